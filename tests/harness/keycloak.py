"""
A real Keycloak on loopback, with the realm of `tests/end_to_end/sign_on/realm.json`.

It keeps everything in memory, so each start begins with that file. It starts in 10 to 30 s and
takes 500 MB.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2

from tests.harness import sign_on_programs
from tests.harness.process import Process, free_port
from tests.harness.sign_on_parts import Object, Ports, publishes_metadata

REALM = "openfaas"
SUB = {
    "alice": "aa544816-e4e9-4ea0-b4cf-dd70db159d2e",
    "bob": "b0b2ad33-5e52-4c0a-8d4f-0a3f0c1d9b7e",
    "mallory": "3a110b17-64f6-4b0d-9c46-27d0b3f5c1aa",
}
"""The claim `sub` of each person."""

_ADMIN, _ADMIN_PASSWORD = "admin", "admin-password"
_THREADS = "io.quarkus.bootstrap.forkjoin.QuarkusForkJoinWorkerThreadFactory"
_JAVA = (
    *("-Xms64m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"),
    *("-Dfile.encoding=UTF-8", "-Duser.language=en", "-Duser.country=US"),
    "-Djava.util.logging.manager=org.jboss.logmanager.LogManager",
    f"-Djava.util.concurrent.ForkJoinPool.common.threadFactory={_THREADS}",
    "-Dpicocli.disable.closures=true",
    *("--add-opens=java.base/java.util=ALL-UNNAMED", "--enable-native-access=ALL-UNNAMED"),
    "--add-opens=java.base/java.util.concurrent=ALL-UNNAMED",
    "--add-opens=java.base/java.security=ALL-UNNAMED",
    "--add-opens=java.base/java.lang=ALL-UNNAMED",
)
"""What `kc.sh` gives to Java. Without that script, a signal reaches the server itself."""


class Keycloak(Process):
    """A Keycloak with a realm of its own. Its administrator may change everything in it."""

    start_seconds = 300.0

    def __init__(self, folder: Path, ports: Ports | None = None) -> None:
        self.ports = ports or Ports()
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.issuer = f"{self.url}/realms/{REALM}"
        """The claim `iss` of its tokens."""
        super().__init__(
            [str(sign_on_programs.java()), *_JAVA, *self._words(folder)],
            folder,
            {
                "KC_BOOTSTRAP_ADMIN_USERNAME": _ADMIN,
                "KC_BOOTSTRAP_ADMIN_PASSWORD": _ADMIN_PASSWORD,
            },
        )
        for part in ("lib", "conf", "providers", "themes"):
            (folder / part).symlink_to(sign_on_programs.keycloak() / part)
        realm = (sign_on_programs.SOURCE / "realm.json").read_text("utf-8")
        imported = folder / "data" / "import" / f"{REALM}-realm.json"
        imported.parent.mkdir(parents=True)
        imported.write_text(self.ports.fill(realm), "utf-8")

    def _words(self, folder: Path) -> list[str]:
        options = {
            "http-enabled": "true",
            "http-host": "127.0.0.1",
            "http-port": self.port,
            "hostname": self.url,
            "cache": "local",
            "log-level": "warn",
        }
        return [
            f"-Dkc.home.dir={folder}",
            f"-Djboss.server.config.dir={folder / 'conf'}",
            *("-cp", str(folder / "lib" / "quarkus-run.jar")),
            *("io.quarkus.bootstrap.runner.QuarkusEntryPoint", "start", "--optimized"),
            "--import-realm",
            *(f"--{name}={value}" for name, value in options.items()),
        ]

    def is_up(self) -> bool:
        """True if it answers with the realm's metadata."""
        return publishes_metadata(self.issuer)

    # Its administrator

    def ask(self, method: str, path: str, body: Object | list[Any] | None = None) -> Any:
        """
        Ask its admin API as the administrator, and return the answer's JSON, if it has any.

        *path* begins below the realm, as `/users`. Raises: HTTPStatusError.
        """
        with httpx2.Client(timeout=30, trust_env=False) as client:
            form = {
                "grant_type": "password",
                "client_id": "admin-cli",
                "username": _ADMIN,
                "password": _ADMIN_PASSWORD,
            }
            # One token a question: it is good for a minute only.
            granted = client.post(
                f"{self.url}/realms/master/protocol/openid-connect/token", data=form
            )
            token = granted.raise_for_status().json()["access_token"]
            answer = client.request(
                method,
                f"{self.url}/admin/realms/{REALM}{path}",
                json=body,
                headers={"Authorization": f"Bearer {token}"},
            ).raise_for_status()
        return answer.json() if answer.content else None

    def sign_out(self, name: str) -> None:
        """End all sessions of a person. The dashboard is told by back-channel logout."""
        self.ask("POST", f"/users/{SUB[name]}/logout")

    def sessions(self, name: str) -> int:
        """The number of sessions that a person has."""
        return len(self.ask("GET", f"/users/{SUB[name]}/sessions"))

    def change_client(self, client_id: str, **changes: Any) -> None:
        """
        Change a client. *changes* are members as in the realm's file.

        `attributes` are changed one by one: those that are not named stay.
        """
        [client] = self.ask("GET", f"/clients?clientId={client_id}")
        attributes = {**client.get("attributes", {}), **changes.pop("attributes", {})}
        changed = {**client, **changes, "attributes": attributes}
        self.ask("PUT", f"/clients/{client['id']}", changed)

    def change_person(self, name: str, **changes: Any) -> None:
        """Change a person, as `enabled=False`. Others may know the person: undo it at the end."""
        path = f"/users/{SUB[name]}"
        self.ask("PUT", path, {**self.ask("GET", path), **changes})


@contextmanager
def keycloak_running(folder: Path, ports: Ports | None = None) -> Iterator[Keycloak]:
    """Run a Keycloak of one's own inside the `with` block."""
    sign_on_programs.need("keycloak")
    keycloak = Keycloak(folder, ports)
    try:
        keycloak.start()
        yield keycloak
    finally:
        keycloak.kill()  # nothing of it is kept
