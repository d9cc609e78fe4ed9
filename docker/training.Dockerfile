# GPU worker: sampling, scoring, training and evaluation. Text generation has an image of its own (text.Dockerfile).
# The host needs an NVIDIA driver and the container toolkit.
# From the project's root: docker build -f docker/training.Dockerfile -t ospo-training:0.1.0 .
FROM python:3.11.11-slim-bookworm AS build

# pip installs into the environment that the second stage copies, and is itself no part of it.
RUN python -m venv --without-pip /opt/venv
ENV PIP_PYTHON=/opt/venv/bin/python PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /build

# torch from PyPI brings its CUDA libraries. https://download.pytorch.org/whl has an index for every version of CUDA, and
# one without it, for a trial on a machine that has no GPU: --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG TORCH_INDEX=https://pypi.org/simple
RUN pip install --no-deps --index-url "$TORCH_INDEX" torch==2.13.0
# What the project depends on, before its code, which changes more often. The lock chooses only versions here, so that
# nothing is installed that only vLLM needs.
COPY pyproject.toml README.md LICENSE ./
COPY requirements/cpu.lock requirements/
RUN pip install --constraint requirements/cpu.lock . \
    && rm -rf /opt/venv/lib/python3.11/site-packages/torch/include /opt/venv/lib/python3.11/site-packages/torch/test \
        /opt/venv/lib/python3.11/site-packages/torch/bin/test_* \
    && find /opt/venv/lib -type d -name tests -prune -exec rm -r {} +

COPY . .
RUN pip install --no-deps .


FROM python:3.11.11-slim-bookworm

RUN useradd --create-home --uid 10001 ospo
COPY --from=build /opt/venv /opt/venv

# The deployments' working directory: deploy them with OSPO_HOME=/opt/ospo.
WORKDIR /opt/ospo
RUN mkdir runs .ospo && chown ospo: runs .ospo
USER 10001
ENV PATH=/opt/venv/bin:$PATH DO_NOT_TRACK=1 PREFECT_RUNNER_HEARTBEAT_FREQUENCY=30
CMD ["prefect", "worker", "start", "--pool", "ospo-gpu", "--type", "process"]
