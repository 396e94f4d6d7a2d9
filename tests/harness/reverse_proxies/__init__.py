"""Real reverse proxies in front of a broker: nginx, and one of Go's standard library."""

from __future__ import annotations

import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from tests.harness.go import go_server
from tests.harness.process import Process, free_port

Proxy = Callable[..., AbstractContextManager[str]]
"""`proxy(target, idle_seconds)` runs a proxy in front of the URL *target*, and gives its own URL."""

# As the documentation of nginx says it for connections that are kept and for WebSockets.
_NGINX = """
daemon off;
master_process off;
pid {folder}/pid;
error_log {folder}/error.log warn;
events {{ worker_connections 2000; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
    upstream broker {{
        server {address};
        keepalive 1000;
        keepalive_timeout {idle_seconds}s;
    }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://broker;
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
            proxy_set_header X-Forwarded-For $remote_addr;
        }}
        location /http-1.0/ {{
            proxy_pass http://{address}/;
        }}
    }}
}}
"""


@contextmanager
def nginx(target: str, idle_seconds: int) -> Iterator[str]:
    """
    Run nginx in front of *target*, and yield its URL.

    It keeps idle connections for *idle_seconds*, and hands upgrades on. Below `/http-1.0/` it
    speaks HTTP/1.0, as it does by default.
    """
    with tempfile.TemporaryDirectory() as temporary:
        proxy = _Nginx(target.removeprefix("http://"), idle_seconds, Path(temporary))
        try:
            proxy.start()
            yield f"http://127.0.0.1:{proxy.port}"
        finally:
            proxy.kill()


def go_proxy(target: str, idle_seconds: int) -> AbstractContextManager[str]:
    """Run Go's reverse proxy in front of *target*, and give its URL. It hands upgrades on too."""
    return go_server(Path(__file__).with_name("main.go"), target, f"{idle_seconds}s")


class _Nginx(Process):
    def __init__(self, address: str, idle_seconds: int, folder: Path) -> None:
        found = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
        assert found, "nginx is needed: .ci/install installs it"
        self.port = free_port()
        written = _NGINX.format(
            folder=folder, address=address, idle_seconds=idle_seconds, port=self.port
        )
        (folder / "nginx.conf").write_text(written, "utf-8")
        super().__init__([found, "-e", "stderr", "-c", str(folder / "nginx.conf")], folder)

    def is_up(self) -> bool:
        return _listens(self.port)


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
