"""
A CI issuer and a gateway on this machine, to try a broker by hand.

`python -m federation.demo.local FOLDER` serves both until it is stopped. FOLDER gets the variables of
a few CI jobs, and the gateway's password for the broker.
"""

from __future__ import annotations

import asyncio
import secrets
import shlex
import socket
from contextlib import suppress
from pathlib import Path

import click

from federation.demo.issuer import LocalIssuer
from federation.demo.stage import serving
from federation.demo.upstream import DemoGateway

_USER = "admin"
_JOBS = {"main": ("github", "main"), "feature": ("github", "feature"),
         "stranger": ("github", "stranger"), "gitlab": ("gitlab", "main")}  # fmt: skip


async def serve_both(folder: Path, issuer_port: int, gateway_port: int) -> None:
    """Write the files into *folder*, and serve the issuer and the gateway until cancelled."""
    with (
        socket.create_server(("127.0.0.1", issuer_port)) as issuer_socket,
        socket.create_server(("127.0.0.1", gateway_port)) as gateway_socket,
    ):
        issuer = LocalIssuer(f"http://127.0.0.1:{issuer_port}")
        gateway = DemoGateway(_USER, password := secrets.token_urlsafe(16))
        (folder / "gateway").mkdir(mode=0o700, parents=True, exist_ok=True)
        _write(folder / "gateway" / "basic-auth-user", _USER)
        _write(folder / "gateway" / "basic-auth-password", password)
        for name, (provider, job) in _JOBS.items():
            variables = issuer.environment(provider, job).items()
            lines = [f"export {variable}={shlex.quote(value)}\n" for variable, value in variables]
            _write(folder / f"{name}.env", "".join(lines))
        async with serving(issuer.app, issuer_socket), serving(gateway.app, gateway_socket):
            click.echo(f"issuer   {issuer.iss('github')} and {issuer.iss('gitlab')}")
            click.echo(f"gateway  http://127.0.0.1:{gateway_port}")
            click.echo(f"jobs     {', '.join(f'{folder}/{name}.env' for name in _JOBS)}")
            click.echo("Ctrl-C stops both.")
            await asyncio.Event().wait()


def _write(path: Path, text: str) -> None:
    """Write *text* to the file *path*, which only this user may read."""
    path.touch(0o600)
    path.chmod(0o600)
    path.write_text(text, "utf-8")


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--issuer-port", default=9000)
@click.option("--gateway-port", default=9001)
def main(folder: Path, issuer_port: int, gateway_port: int) -> None:
    """Serve a CI issuer and a gateway on this machine, and write the variables of jobs to FOLDER."""
    with suppress(KeyboardInterrupt):
        asyncio.run(serve_both(folder, issuer_port, gateway_port))


if __name__ == "__main__":
    main()
