# bart in a container; see docs/cluster.md for how to run it. There are three targets:
#
#   docker build --tag bart .                      on NVIDIA's PyTorch image, for GPUs
#   docker build --tag bart:cpu --target cpu .     on Python's slim image, without CUDA
#   docker build --tag bart:serve --target serve . the same, for `bart serve` (docs/serving.md)
#
# --build-arg NGC_TAG=… selects another release of NVIDIA's image, with torch 2.10 or newer.

ARG NGC_TAG=26.05-py3
ARG PYTHON_TAG=3.12-slim-bookworm

FROM python:${PYTHON_TAG} AS cpu
COPY constraints.txt pyproject.toml README.md LICENSE /src/
COPY bart_cli /src/bart_cli
COPY presets /src/presets
# The constraints pin the torch version that passed the tests; this index has it without CUDA.
RUN pip install --no-cache-dir --constraint /src/constraints.txt \
        --extra-index-url https://download.pytorch.org/whl/cpu '/src[all,news]' \
    && rm -r /src \
    && useradd --create-home --no-log-init --uid 10001 bart \
    && install --directory --owner bart /workspace
USER 10001
WORKDIR /workspace
ENTRYPOINT ["bart"]
CMD ["--help"]

FROM cpu AS serve
EXPOSE 8000
HEALTHCHECK --start-period=60s CMD ["python", "-c", \
    "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/readyz')"]
ENTRYPOINT ["bart", "serve", "--host", "0.0.0.0"]
CMD ["--model", "/model"]

FROM nvcr.io/nvidia/pytorch:${NGC_TAG} AS gpu
COPY pyproject.toml README.md LICENSE /src/
COPY bart_cli /src/bart_cli
COPY presets /src/presets
# Keep NVIDIA's build of torch: constrain pip to its exact version, and verify it afterwards.
RUN python -c "from importlib.metadata import version; print('torch==' + version('torch'))" \
        > /tmp/torch.txt \
    && pip install --no-cache-dir --constraint /tmp/torch.txt '/src[all,news]' \
    && python -c "from importlib.metadata import version; print('torch==' + version('torch'))" \
        > /tmp/torch-after.txt \
    && cmp /tmp/torch.txt /tmp/torch-after.txt \
    && rm -r /src /tmp/torch.txt /tmp/torch-after.txt \
    && useradd --create-home --no-log-init --uid 10001 bart \
    && install --directory --owner bart /workspace/bart
USER 10001
WORKDIR /workspace/bart
# Replace NVIDIA's entry point, which prints a banner.
ENTRYPOINT ["bart"]
CMD ["--help"]
