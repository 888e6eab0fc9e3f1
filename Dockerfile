# The server in an image: `--target cpu` (the default), or `--target cuda` for hosts with the NVIDIA container toolkit.
ARG PYTHON=3.13-slim-bookworm

FROM python:${PYTHON} AS wheel
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY flight_server flight_server
COPY flight_sql flight_sql
COPY kernels kernels
COPY transport transport
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:${PYTHON} AS base
RUN useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin pgflight \
    && install --directory --owner pgflight --group pgflight /var/cache/pgflight
# Kernels are compiled for the CPU they run on, at the first start: keep this directory on a volume.
ENV NUMBA_CACHE_DIR=/var/cache/pgflight \
    PYTHONDONTWRITEBYTECODE=1 \
    PGFLIGHT_LISTEN=grpc://0.0.0.0:8815 \
    PGFLIGHT_HTTP_LISTEN=0.0.0.0:9464
EXPOSE 8815 9464
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:9464/healthz', timeout=4)"]
ENTRYPOINT ["pgflight-server"]
CMD ["serve"]

# CUDA's libraries come as wheels; the driver comes with the container toolkit.
FROM base AS cuda
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY requirements-cuda13.lock ./
RUN pip install --no-cache-dir --require-hashes -r requirements-cuda13.lock
RUN --mount=from=wheel,source=/wheels,target=/wheels pip install --no-cache-dir --no-deps /wheels/*.whl
USER 10001:10001

FROM base AS cpu
COPY requirements.lock ./
RUN pip install --no-cache-dir --require-hashes -r requirements.lock
RUN --mount=from=wheel,source=/wheels,target=/wheels pip install --no-cache-dir --no-deps /wheels/*.whl
USER 10001:10001
