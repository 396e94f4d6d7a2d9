"""
`federation serve`: run the broker as a server.

The ports are bound and every setting and document is checked before anything runs, so that one
start shows every mistake. Then this process serves, or with `--workers` it supervises several.
`--check-config` ends after the checks. It binds no port and makes no file, so it may run beside a
broker that serves. SIGHUP makes every process read documents, keys and certificates again.
"""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from time import monotonic

import click
import structlog

from federation import __version__
from federation.app import BrokerApp, build, check_shared_state
from federation.app.check_config import check_config
from federation.cli.environment_log import log_environment
from federation.cli.setting_options import setting_options
from federation.config import Settings, read_outbound, read_settings, settings_reading
from federation.config.values import has_every_address
from federation.documents.catalog import Catalog
from federation.errors import DocumentsRefused, Problem, Problems, SettingsRefused
from federation.logs import configure_logs
from federation.ownership import fault
from federation.server.http_limits import http_config
from federation.server.listener import listen
from federation.server.metrics_endpoint import (
    count_in_files_of,
    exposition,
    metrics_server,
    remove_if_abandoned,
    worker_files,
)
from federation.server.readiness import Said, read_reports, remove_report, write_report
from federation.server.shutdown import GracefulServer
from federation.server.workers import NoWorkerLeft, ParentLine, Supervisor
from federation.sources.files import Adopted
from federation.text import no_command

_FOLDER = "PROMETHEUS_MULTIPROC_DIR"


@setting_options(settings_reading())
@click.command()
@click.option(
    "--check-config",
    "only_check",
    is_flag=True,
    help="Check all settings, documents, files and the shared state, then exit. Nothing is started.",
)
def serve(*, only_check: bool, **flags: str | tuple[str, ...] | None) -> None:
    """
    Run the broker.

    Every setting can also be given by the environment variable in brackets; the flag wins.
    Documents are watched: a change is live within two seconds, and a set with an error in it
    is not adopted. SIGHUP reads documents, keys and certificates again.
    """
    # Else a SIGHUP that comes during the start would end it, which systemd takes for a clean exit.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    adopted: list[Adopted] = []
    with ExitStack() as sockets:
        try:
            settings = _read(flags)
            configure_logs(settings.log_format, settings.log_level)
            if only_check:
                click.echo(f"the broker could start with this: {check_config(settings)}")
                return
            # One process hands over to nobody, and would keep the text of each reload.
            on_adopt = adopted.append if settings.workers > 1 else None
            settings, listener, metrics, app = _prepare(settings, sockets, on_adopt)
            log_environment(settings_reading())
        except SettingsRefused as refused:
            _show(refused.documents)
            raise click.UsageError("\n".join(refused.problems)) from refused
        except DocumentsRefused as refused:
            _show(refused.problems)
            message = "the documents have errors; nothing was started"
            raise click.ClickException(message) from refused
        # Raise the limit of open files: connections have a limit of their own.
        with suppress(OSError, ValueError):
            _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        served = _numbers(app.state.broker.source.current())
        serving = partial(_log_listening, settings, metrics, served)
        if settings.workers == 1:
            _run_one(settings, app, listener, metrics, serving)
        else:
            del app  # this process answers nothing, so it needs no documents
            last = adopted[-1] if adopted else None  # None: the workers follow the Kubernetes API
            _run_several(settings, listener, metrics, last, serving)


def _read(flags: Mapping[str, str | tuple[str, ...] | None]) -> Settings:
    """Read the settings. Raises: SettingsRefused, also with what is wrong about proxies and CAs."""
    try:
        return read_settings(flags)
    except SettingsRefused as refused:
        problems = Problems([*refused.problems])
        with problems.collected():
            read_outbound()
        raise SettingsRefused(problems.settings) from refused


def _prepare(
    settings: Settings, sockets: ExitStack, on_adopt: Callable[[Adopted], None] | None
) -> tuple[Settings, socket.socket, socket.socket | None, BrokerApp]:
    """
    Bind the ports and make the application. The settings returned have the port that was bound.

    Raises: SettingsRefused, DocumentsRefused, with everything that is wrong.
    """
    problems, metrics = Problems(), None
    with problems.collected():
        listener = sockets.enter_context(listen(settings.host, settings.port))
        settings = settings.model_copy(update={"port": listener.getsockname()[1]})
    if settings.metrics_port is not None:
        host = settings.metrics_host or settings.host
        with problems.collected():
            metrics = sockets.enter_context(listen(host, settings.metrics_port))
    with problems.collected():
        app = build(settings, on_adopt=on_adopt)
    with problems.collected():
        check_shared_state(settings)
    problems.refuse()
    return settings, listener, metrics, app


def _show(problems: tuple[Problem, ...]) -> None:
    for problem in problems:
        click.echo(no_command(str(problem)), err=True)


def _numbers(catalog: Catalog) -> dict[str, int]:
    """Return how many documents *catalog* has of each kind."""
    return {
        "issuers": len(catalog.issuers),
        "roles": len(catalog.all_roles),
        "policies": len(catalog.policies),
    }


def _log_listening(
    settings: Settings, metrics: socket.socket | None, served: Mapping[str, int]
) -> None:
    """Say that connections are accepted, as what, and how many documents are *served*."""
    log = structlog.get_logger("federation")
    log.info(
        "listening",
        version=__version__,
        mode="gateway" if settings.upstream else "exchange only",
        url=settings.url,
        host=settings.host,
        port=settings.port,
        metrics_port=metrics and metrics.getsockname()[1],
        upstream=settings.upstream,
        functions=settings.functions if settings.upstream else None,
        **served,
        kubernetes_namespace=settings.kubernetes_namespace,
        workers=settings.workers,
    )
    if settings.shares_one_address:
        log.warning(
            "callers behind the TLS proxy share one budget of failed exchanges: set"
            " trusted-proxies to the proxy's network, or failed-exchanges to 0"
        )
    if has_every_address(settings.trusted_proxies):
        log.warning(
            "trusted-proxies has every address, so each caller can choose the address that is"
            " limited and that functions see: name the networks of your proxies alone"
        )


def _run_one(
    settings: Settings,
    app: BrokerApp,
    listener: socket.socket,
    metrics: socket.socket | None,
    log_listening: Callable[[], None],
) -> None:
    def serving() -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, app.state.reload)
        log_listening()

    with ExitStack() as stack:
        if metrics is not None:
            collect = app.state.metrics.registry.collect
            registry = exposition(collect, pids=lambda: {"0": os.getpid()})
            reports: dict[str, Said | None] = {"0": None}
            app.state.health.publish = lambda said: reports.update({"0": Said(monotonic(), said)})
            stack.enter_context(metrics_server(metrics, registry, lambda: reports))
        _run(settings, app, listener, serving)


def _run_several(
    settings: Settings,
    listener: socket.socket,
    metrics: socket.socket | None,
    adopted: Adopted | None,
    log_listening: Callable[[], None],
) -> None:
    work = partial(_run_worker, settings)
    with ExitStack() as stack:
        supervisor = Supervisor(work, settings.workers, adopted, serving=log_listening)
        if metrics is not None:
            try:
                files = stack.enter_context(worker_files(settings.state))
            except OSError as error:
                problem = f"the directory for metrics cannot be made: {fault(error)}"
                raise click.ClickException(problem) from error
            # prometheus_client takes the directory from the environment, which workers inherit.
            os.environ[_FOLDER] = str(files.path)

            def forget(worker: int) -> None:
                files.ended(worker)
                remove_report(files.path, worker)

            supervisor.ended = forget
            registry = exposition(files.collect, supervisor.pids, supervisor.serving)
            reports = partial(read_reports, files.path, settings.workers)
            stack.enter_context(metrics_server(metrics, registry, reports))
        try:
            supervisor.run(listener)
        except NoWorkerLeft as error:
            raise click.ClickException("no worker can be started; the log says why") from error


def _run_worker(settings: Settings, number: int, listener: socket.socket, line: ParentLine) -> None:
    """Serve as one of several workers, with an application of its own."""
    configure_logs(settings.log_format, settings.log_level)
    has_metrics = settings.metrics_port is not None
    if has_metrics:
        count_in_files_of(number)
    app = _built_in_worker(settings, line)

    def serving() -> None:
        line.on_reload(app.state.reload)
        line.serves()

    if has_metrics:
        folder = Path(os.environ[_FOLDER])
        app.state.health.publish = partial(write_report, folder, number)
    try:
        _run(settings, app, listener, serving)
    finally:
        if has_metrics:
            remove_if_abandoned(folder)


def _built_in_worker(settings: Settings, line: ParentLine) -> BrokerApp:
    """Return the application. What keeps it from starting is logged, and ends this process."""
    log = structlog.get_logger("federation")
    try:
        return build(settings, on_adopt=line.adopted, last_good=line.take_last_good())
    except SettingsRefused as refused:
        for problem in (*refused.problems, *refused.documents):
            log.error("the worker cannot start", problem=str(problem))
    except DocumentsRefused as refused:
        for problem in refused.problems:
            log.error("the worker cannot start", problem=str(problem))
    except OSError as error:
        log.error("the worker cannot start", problem=str(error))
    except Exception:  # a bug: its traceback is in one line of the log as well
        log.exception("the worker cannot start", problem="unexpected error")
    sys.exit(1)


def _run(
    settings: Settings, app: BrokerApp, listener: socket.socket, serving: Callable[[], None]
) -> None:
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
    GracefulServer(config, serving).run(sockets=[listener])
