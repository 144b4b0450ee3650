# The pipeline in a container. On a CPU:
#   docker build -t residual-attention .
#   docker run --name reproduced --shm-size=2g residual-attention && docker cp reproduced:/project/reports .
# With NVIDIA GPUs (CUDA itself comes with the PyTorch of the lock; a driver of the host is needed):
#   docker build --build-arg BASE=nvidia/cuda:13.0.1-base-ubuntu24.04 -t residual-attention:cuda .
#   docker run --gpus all --shm-size=8g residual-attention:cuda make repro PROFILE=cifar10
ARG BASE=debian:13-slim
FROM ${BASE}
SHELL ["/bin/bash", "-o", "pipefail", "-c"]

# Only the versions in requirements.lock change numbers.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates git make python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*

RUN useradd --create-home --uid 10001 runner && install -d -o runner /project
USER 10001
WORKDIR /project

# The environment first: it is built again only when one of these files changes.
COPY --chown=10001 Makefile README.md pyproject.toml requirements.lock ./
COPY --chown=10001 models models
COPY --chown=10001 pipeline pipeline
RUN make environment
COPY --chown=10001 . .

CMD ["make", "repro"]
