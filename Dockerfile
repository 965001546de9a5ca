# The service in a container: jernih serve on port 8000, as a user without rights, the model under
# /model (mounted read-only):
#   docker build -t jernih .
#   docker run --rm -p 127.0.0.1:8000:8000 -v "$PWD/my-defended-model:/model:ro" jernih
# For NVIDIA devices: --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu128
ARG PYTHON=3.12

FROM python:${PYTHON}-slim AS build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/jernih
ENV PATH=/opt/jernih/bin:$PATH
ARG TORCH=2.15.0
ARG TORCHVISION=0.29.2
RUN pip install --index-url "${TORCH_INDEX}" "torch==${TORCH}" "torchvision==${TORCHVISION}"
WORKDIR /src
# Versions and hashes of everything else; deploy/lock.sh makes the list again.
COPY deploy/requirements.lock ./
RUN pip install --no-deps --require-hashes --requirement requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY src ./src
RUN pip install "hatchling>=1.26" && pip install --no-deps --no-build-isolation . && pip check

FROM python:${PYTHON}-slim
RUN useradd --create-home --uid 10001 jernih && install -d -o jernih /spool
COPY --from=build /opt/jernih /opt/jernih
ENV PATH=/opt/jernih/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    GRADIO_ANALYTICS_ENABLED=False \
    HF_HUB_DISABLE_TELEMETRY=1
USER jernih
WORKDIR /home/jernih
EXPOSE 8000
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=4)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["jernih"]
CMD ["serve", "/model", "--host", "0.0.0.0", "--port", "8000"]
