"""
`federation serve`: run the broker as a server.

The ports are bound and every setting and document is checked before anything runs, so that one
start shows every mistake. Then this process serves, or with `--workers` it supervises several.
"""

from __future__ import annotations

import gc
import os
import resource
import signal
import socket
import sys
from contextlib import ExitStack, suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from time import monotonic

import click
import structlog
from pydantic.fields import FieldInfo

from federation.app import BrokerApp, build, check_shared_state
from federation.config import Settings, flag, read_settings, repeatable, variable
from federation.errors import DocumentsRefused, SettingsRefused
from federation.logs import configure_logs
from federation.server.http_limits import http_config
from federation.server.metrics_endpoint import (
    count_in_files_of,
    exposition,
    metrics_server,
    worker_files,
)
from federation.server.readiness import Said, read_reports, remove_report, write_report
from federation.server.shutdown import BACKLOG, GracefulServer
from federation.server.workers import Supervisor
from federation.text import no_command

_FOLDER = "PROMETHEUS_MULTIPROC_DIR"


def _setting_options(command: click.Command) -> click.Command:
    """Add an option for each setting, with its meaning, its default and its variable."""
    for name, field in Settings.model_fields.items():
        command.params.append(
            click.Option(
                [flag(name), name],
                multiple=repeatable(name),
                metavar="VALUE",
                help=f"{field.description}{_default(field)} [{variable(name)}]",
            )
        )
    return command


def _default(field: FieldInfo) -> str:
    default = field.default
    if field.is_required() or default in {None, (), ""}:
        return ""
    shown = f"{default.total_seconds():g}s" if isinstance(default, timedelta) else default
    return f" Default: {shown}."


@_setting_options
@click.command()
def serve(**flags: str | tuple[str, ...] | None) -> None:
    """
    Run the broker.

    Every setting can also be given by the environment variable in brackets; the flag wins.
    Documents are watched: a change is live within two seconds, and a set with an error in it
    is not adopted.
    """
    with ExitStack() as sockets:
        try:
            settings = read_settings(flags)
            listener = sockets.enter_context(_listen(settings.host, settings.port))
            settings = settings.model_copy(update={"port": listener.getsockname()[1]})
            metrics = None
            if settings.metrics_port is not None:
                metrics = sockets.enter_context(_listen(settings.host, settings.metrics_port))
            configure_logs(settings.log_format)
            app = build(settings)
            check_shared_state(settings)
        except SettingsRefused as refused:
            raise click.UsageError("\n".join(refused.problems)) from refused
        except DocumentsRefused as refused:
            for problem in refused.problems:
                click.echo(no_command(str(problem)), err=True)
            message = "the documents have errors; nothing was started"
            raise click.ClickException(message) from refused
        _log_start(settings, metrics)
        # Raise the limit of open files: connections have a limit of their own.
        with suppress(OSError, ValueError):
            _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        if settings.workers == 1:
            _run_one(settings, app, listener, metrics)
        else:
            _run_several(settings, listener, metrics)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        problem = f"cannot listen on {host} port {port}: {error.strerror or error}"
        raise SettingsRefused([problem]) from error


def _log_start(settings: Settings, metrics: socket.socket | None) -> None:
    log = structlog.get_logger("federation")
    log.info(
        "listening",
        url=settings.url,
        host=settings.host,
        port=settings.port,
        metrics_port=metrics and metrics.getsockname()[1],
    )
    if settings.shares_one_address:
        log.warning(
            "callers behind the TLS proxy share one budget of failed exchanges: set"
            " trusted-proxies to the proxy's network, or failed-exchanges to 0"
        )


def _run_one(
    settings: Settings, app: BrokerApp, listener: socket.socket, metrics: socket.socket | None
) -> None:
    with ExitStack() as stack:
        if metrics is not None:
            collect = app.state.metrics.registry.collect
            registry = exposition(collect, pids=lambda: {"0": os.getpid()})
            reports: dict[str, Said | None] = {"0": None}
            app.state.health.publish = lambda said: reports.update({"0": Said(monotonic(), said)})
            stack.enter_context(metrics_server(metrics, registry, lambda: reports))
        _run(settings, app, listener)


def _run_several(
    settings: Settings, listener: socket.socket, metrics: socket.socket | None
) -> None:
    work = partial(_run_worker, settings)
    if metrics is None:
        Supervisor(work, settings.workers).run(listener)
        return
    with ExitStack() as stack:
        try:
            files = stack.enter_context(worker_files(settings.state))
        except OSError as error:
            problem = f"the directory for metrics cannot be made: {error}"
            raise click.ClickException(problem) from error
        # prometheus_client takes the directory from the environment, which workers inherit.
        os.environ[_FOLDER] = str(files.path)

        def forget(worker: int) -> None:
            files.ended(worker)
            remove_report(files.path, worker)

        supervisor = Supervisor(work, settings.workers, forget)
        registry = exposition(files.collect, supervisor.pids)
        reports = partial(read_reports, files.path, settings.workers)
        stack.enter_context(metrics_server(metrics, registry, reports))
        supervisor.run(listener)


def _run_worker(settings: Settings, number: int, listener: socket.socket) -> None:
    """Serve as one of several workers, with an application of its own."""
    configure_logs(settings.log_format)
    if settings.metrics_port is None:
        _run(settings, build(settings), listener)
        return
    count_in_files_of(number)
    app = build(settings)
    app.state.health.publish = partial(write_report, Path(os.environ[_FOLDER]), number)
    _run(settings, app, listener)


def _run(settings: Settings, app: BrokerApp, listener: socket.socket) -> None:
    # After its shutdown uvicorn raises the signal again that caused it. That is a normal exit.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    # Documents and modules stay until the end. Without this, each full garbage collection would
    # visit all of them, and no request is answered meanwhile (36 ms instead of 0.5 ms).
    gc.freeze()
    config = http_config(
        app,
        keep_alive_seconds=settings.keep_alive.total_seconds(),
        send_seconds=settings.send_timeout.total_seconds(),
    )
    GracefulServer(config).run(sockets=[listener])
