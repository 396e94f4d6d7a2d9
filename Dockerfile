# The base image is pinned by its tag, so that each build brings the newest security fixes.
# Where builds must be repeatable, add the digest (python:3.13-slim-trixie@sha256:…) to both
# FROM lines and let a bot renew it.

FROM python:3.13-slim-trixie AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY federation ./federation
# The environment has no pip of its own: nothing can be installed into the finished image.
RUN python -m pip wheel --no-cache-dir --no-deps --wheel-dir /tmp/wheel . \
 && python -m venv --without-pip /opt/federation \
 && python -m pip --python /opt/federation install --no-cache-dir "$(echo /tmp/wheel/*.whl)[dashboard,redis,server]"

FROM python:3.13-slim-trixie
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
