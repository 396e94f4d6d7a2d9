# The base image is pinned by its tag, so that each build brings the newest security fixes.
# Where builds must be repeatable, add the digest (python:3.14-slim-trixie@sha256:…) to both
# FROM lines and let a bot renew it.

FROM python:3.14-slim-trixie AS build
WORKDIR /src
COPY deploy/image/requirements.txt deploy/image/build-requirements.txt deploy/image/
# Only wheels whose hashes are written down are installed: no index can slip in another file, and
# none of them runs code while it is installed. `make lock` renews both lists.
# The environment has no pip of its own: nothing can be installed into the finished image.
RUN python -m venv /tmp/build \
 && /tmp/build/bin/python -m pip install --no-cache-dir --only-binary=:all: --require-hashes --requirement deploy/image/build-requirements.txt \
 && python -m venv --without-pip /opt/federation \
 && python -m pip --python /opt/federation install --no-cache-dir --only-binary=:all: --require-hashes --requirement deploy/image/requirements.txt
COPY pyproject.toml README.md LICENSE ./
# The pages that `federation explain` prints.
COPY docs/documents.md docs/lint.md docs/refusals.md docs/troubleshooting.md docs/
# The sample tokens of `federation test`.
COPY tests/vectors/claims tests/vectors/claims/
COPY federation ./federation
RUN /tmp/build/bin/python -m pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /tmp/wheel . \
 && python -m pip --python /opt/federation install --no-cache-dir --no-deps --no-index /tmp/wheel/*.whl \
 && python -m pip --no-cache-dir --python /opt/federation check

FROM python:3.14-slim-trixie
LABEL org.opencontainers.image.title="federation" \
      org.opencontainers.image.description="Trades a CI job's identity token for a short-lived access token" \
      org.opencontainers.image.licenses="MIT"
COPY --from=build /opt/federation /opt/federation
ENV PATH=/opt/federation/bin:$PATH \
    HOME=/var/lib/federation \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    FEDERATION_DOCUMENTS=/etc/federation \
    FEDERATION_HOST=0.0.0.0 \
    FEDERATION_PORT=8080 \
    FEDERATION_STATE=/var/lib/federation
RUN install --directory --mode=0700 --owner=65532 --group=65532 /var/lib/federation
# The broker writes only here. Everything else may be mounted read-only.
VOLUME /var/lib/federation
USER 65532:65532
EXPOSE 8080
# http.client ignores the proxy variables.
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import http.client as h, os, sys; c = h.HTTPConnection('127.0.0.1', int(os.environ['FEDERATION_PORT']), timeout=3); c.request('GET', '/livez'); sys.exit(c.getresponse().status != 200)"]
ENTRYPOINT ["federation"]
CMD ["serve"]
