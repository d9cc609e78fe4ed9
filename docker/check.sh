#!/usr/bin/env bash
# Build images and run a small round in each, with its training process, on the CPU.
#   docker/check.sh [worker] [training] [text]        from any folder; by default the first two
# Prints size and seconds; the exit code is 1 if an image is not built, its round fails, or it runs as root. `text` is a
# large image for a GPU: it is built, and asked only for its version.
#   ENGINE=podman          docker, podman or buildah; by default the first that is there
#   TORCH_INDEX=ADDRESS    package index of torch; by default that of CPU builds (for CUDA: https://pypi.org/simple)
#   BUILD_OPTIONS="..."    further options for building, such as --network host
#   RUN_OPTIONS="..."      further options for running, such as --gpus all
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() {
  echo "docker/check.sh: $1" >&2
  exit 1
}

find_engine() {
  local name
  for name in ${ENGINE:-docker podman buildah}; do
    case $name in docker | podman | buildah) ;; *) fail "ENGINE is '$name', not docker, podman or buildah" ;; esac
    "$name" info >/dev/null 2>&1 && { echo "$name"; return; }
  done
  fail "no container engine answers (tried: ${ENGINE:-docker, podman, buildah}); install one, or start its service"
}

# Options are lists of words on purpose.
# shellcheck disable=SC2086
build() {
  "$engine" build ${BUILD_OPTIONS:-} --build-arg "TORCH_INDEX=${TORCH_INDEX:-https://download.pytorch.org/whl/cpu}" \
    --file "docker/$1.Dockerfile" --tag "ospo-$1:check" .
}

# run IMAGE COMMAND [ARGUMENT ...]: in a new container, as the image's own user
# shellcheck disable=SC2086
run() {
  local image="ospo-$1:check" command="$2" container code=0
  shift 2
  if [ "$engine" = buildah ]; then
    container=$(buildah from --pull=never "localhost/$image") || return
    buildah run ${RUN_OPTIONS:-} "$container" -- "$command" "$@" || code=$?
    buildah rm "$container" >/dev/null
    return "$code"
  fi
  "$engine" run --rm ${RUN_OPTIONS:-} --entrypoint "$command" "$image" "$@"
}

# Prints the megabytes of all files, unless the user is another one than it should be.
# shellcheck disable=SC2016
readonly SIZE='test "$(id -u)" = 10001 || { echo "runs as user $(id -u), not 10001" >&2; exit 1; }
du -smx --exclude=/proc --exclude=/sys / 2>/dev/null | cut -f 1'
check() {
  local name=$1 size built
  SECONDS=0
  case $name in worker | training | text) ;; *) fail "there is no image '$name', only worker, training, text" ;; esac
  build "$name" || fail "$name was not built"
  built=$SECONDS
  size=$(run "$name" sh -c "$SIZE") || fail "$name does not run as it should"
  SECONDS=0
  case $name in # the worker's texts come from vLLM, the other's from transformers, since its image has no vLLM
    worker) run "$name" ospo round --profile smoke --set engine.kind=vllm ;;
    training) run "$name" ospo round --profile smoke ;;
    text) run "$name" vllm --version ;;
  esac || fail "$name was built, but what it is for fails in it"
  summary+=("$name: ${size} MB, built in $built s, ran in $SECONDS s")
}

engine=$(find_engine)
summary=()
[ $# -gt 0 ] || set -- worker training
for image in "$@"; do check "$image"; done
printf '%s\n' "${summary[@]}"
