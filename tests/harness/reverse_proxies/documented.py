"""
The reverse proxies of docs/reverse-proxies.md: real programs with TLS, and the page's own text.

Only ports, addresses, names and the paths of certificates are replaced.
"""

from __future__ import annotations

import re
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.harness.certificates import Authority
from tests.harness.process import ROOT, Process, free_port

PAGE = ROOT / "docs" / "reverse-proxies.md"

_NGINX = """
daemon off;
master_process off;
pid {folder}/pid;
error_log {folder}/error.log warn;
events {{}}
http {{
access_log off;
client_body_temp_path {folder}/body;
proxy_temp_path {folder}/proxy;
fastcgi_temp_path {folder}/fastcgi;
uwsgi_temp_path {folder}/uwsgi;
scgi_temp_path {folder}/scgi;
{text}
}}
"""
_CADDY = """
{{
admin off
auto_https disable_redirects
storage file_system {folder}/caddy
}}
{text}
"""


@dataclass(frozen=True)
class Place:
    """The values that a configuration is filled in with."""

    folder: Path
    port: int
    broker: str
    """`host:port`."""
    pem: Path


@dataclass(frozen=True)
class Documented:
    """A section of the page, and how to run the configuration in it."""

    title: str
    program: str
    arguments: Callable[[Path], list[str]]
    replaced: Callable[[Place], Mapping[str, str]]
    """Each text of the page that is replaced, once."""
    around: str = "{text}\n"
    """The rest of the program's configuration."""

    def configuration(self, place: Place) -> str:
        """The text of the page with the places of this test."""
        section = PAGE.read_text("utf-8").split(f"\n## {self.title}\n")[1].split("\n## ")[0]
        found = re.search(r"^```\w+\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
        assert found, f"{self.title} has no configuration"
        text = found[1]
        for old, new in {"127.0.0.1:8080": place.broker, **self.replaced(place)}.items():
            assert text.count(old) == 1, f"{old} in {self.title}"
            text = text.replace(old, new)
        return self.around.format(folder=place.folder, text=text)

    @contextmanager
    def running(self, broker: str) -> Iterator[tuple[str, Path]]:
        """Run it in front of the URL *broker*; yield its URL, and the file of its CA."""
        found = shutil.which(self.program) or shutil.which(self.program, path="/usr/sbin")
        assert found, f"{self.program} is needed: .ci/install installs it"
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            authority = Authority(folder / "tls")
            place = Place(folder, free_port(), broker.removeprefix("http://"), authority.served)
            configuration = folder / "configuration"
            configuration.write_text(self.configuration(place), "utf-8")
            home = {"HOME": temporary, "XDG_CONFIG_HOME": temporary}
            proxy = _Listening([found, *self.arguments(configuration)], place, home)
            try:
                proxy.start()
                yield f"https://127.0.0.1:{place.port}", authority.certificate
            finally:
                proxy.kill()


class _Listening(Process):
    def __init__(self, command: list[str], place: Place, environ: Mapping[str, str]) -> None:
        super().__init__(command, place.folder, environ)
        self._port = place.port

    def is_up(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self._port), timeout=1).close()
        except OSError:
            return False
        return True


NGINX = Documented(
    "nginx",
    "nginx",
    lambda file: ["-e", "stderr", "-c", str(file)],
    lambda place: {
        "listen 443 ssl;": f"listen 127.0.0.1:{place.port} ssl;",
        "/etc/nginx/tls/fullchain.pem": str(place.pem),
        "/etc/nginx/tls/privkey.pem": str(place.pem),
    },
    _NGINX,
)
CADDY = Documented(
    "Caddy",
    "caddy",
    lambda file: ["run", "--adapter", "caddyfile", "--config", str(file)],
    lambda place: {
        "gateway.example.com {": f"https://127.0.0.1:{place.port} {{\ntls {place.pem} {place.pem}"
    },
    _CADDY,
)
HAPROXY = Documented(
    "HAProxy",
    "haproxy",
    lambda file: ["-db", "-f", str(file)],
    lambda place: {
        "bind :443": f"bind 127.0.0.1:{place.port}",
        "/etc/haproxy/gateway.pem": str(place.pem),
    },
)
