"""
`federation dashboard`: run the pages for people, as a process and an origin of its own.

The port is bound and every setting is checked before anything runs, so that one start shows every
mistake. SIGHUP reads session keys and the client's secret again.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

import click
import structlog

from federation import __version__
from federation.cli.environment_log import log_environment
from federation.cli.setting_options import setting_options
from federation.config.dashboard import (
    DashboardSettings,
    dashboard_reading,
    read_dashboard_settings,
)
from federation.config.values import has_every_address
from federation.errors import Problems, SettingsRefused
from federation.logs import configure_logs
from federation.server.http_limits import http_config
from federation.server.listener import listen
from federation.server.shutdown import GracefulServer

if TYPE_CHECKING:
    from federation.dashboard.app import DashboardApp

_CONNECTIONS = 500


@setting_options(dashboard_reading())
@click.command()
def dashboard(**flags: str | tuple[str, ...] | None) -> None:
    """
    Run the dashboard, where people sign in and see what they may do.

    Every setting can also be given by the environment variable in brackets; the flag wins.
    The dashboard has no power of its own: it does what the broker allows the person who signed in.
    """
    # Else a SIGHUP that comes during the start would end it, which systemd takes for a clean exit.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with ExitStack() as sockets:
        try:
            settings = read_dashboard_settings(flags)
            configure_logs(settings.log_format)
            listener, app = _prepare(settings, sockets)
            log_environment(dashboard_reading())
        except SettingsRefused as refused:
            raise click.UsageError("\n".join(refused.problems)) from refused
        # After its shutdown uvicorn raises the signal again that caused it. That is a normal exit.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: sys.exit(0))

        def serving() -> None:
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, app.state.reload)
            _log_listening(settings, listener)

        GracefulServer(http_config(app, _CONNECTIONS), serving).run(sockets=[listener])


def _prepare(settings: DashboardSettings, sockets: ExitStack) -> tuple[socket.socket, DashboardApp]:
    """Bind the port and make the application. Raises: SettingsRefused with everything wrong."""
    # Imported here: `--help` needs none of the libraries of the extra.
    from federation.dashboard.app import build  # noqa: PLC0415
    from federation.dashboard.stores import check_shared_state  # noqa: PLC0415

    problems = Problems()
    with problems.collected():
        listener = sockets.enter_context(listen(settings.host, settings.port))
    with problems.collected():
        app = build(settings)
    with problems.collected():
        check_shared_state(settings)
    problems.refuse()
    return listener, app


def _log_listening(settings: DashboardSettings, listener: socket.socket) -> None:
    """Say that connections are accepted, and as what."""
    host, port = listener.getsockname()[:2]
    log = structlog.get_logger("federation")
    log.info(
        "listening",
        version=__version__,
        mode="dashboard",
        url=settings.public_url,
        host=host,
        port=port,
        gateway=settings.gateway,
        issuer=settings.issuer,
    )
    if settings.public_url.startswith("https:") and not settings.trusted_proxies:
        log.warning(
            "people behind the TLS proxy share one budget of failed sign-ins: set trusted-proxies"
            " to the proxy's network"
        )
    if has_every_address(settings.trusted_proxies):
        log.warning(
            "trusted-proxies has every address, so each person can choose the address that is"
            " limited: name the networks of your proxies alone"
        )
