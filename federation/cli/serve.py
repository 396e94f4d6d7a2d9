"""
`federation serve`: the broker as a server.

The port is bound first and everything is checked once, here, so that a mistake is told before
anything runs. Then one process serves, or several that share the port and are started again
when one ends.
"""

from __future__ import annotations

import gc
import os
import resource
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial

import click
import structlog
import uvicorn
from prometheus_client.metrics_core import Metric
from pydantic.fields import FieldInfo

from federation.app import build
from federation.config import Settings, flag, read_settings, repeatable, variable
from federation.errors import DocumentsRefused, SettingsRefused
from federation.logs import configure_logs
from federation.server.http_limits import CONNECTIONS, BoundedHttp
from federation.server.metrics_endpoint import Exposition, SharedCounts
from federation.server.sharing import SharingServer
from federation.server.shutdown import DrainingServer
from federation.server.workers import Share, supervise

__all__ = ["configured", "serve"]

_GRACE_SECONDS = 20


def _setting_options(command: click.Command) -> click.Command:
    """One option for each setting, with its meaning, its default and its variable."""
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
    silent = field.is_required() or field.default in {None, (), ""}
    return "" if silent else f" Default: {field.default}."


@_setting_options
@click.command()
def serve(**flags: str | tuple[str, ...] | None) -> None:
    """
    Run the broker.

    Every setting can also be given by the environment variable in brackets; the flag wins.
    Documents are watched: a change is live within two seconds, and a set with an error in it
    is not adopted.
    """
    try:
        settings = read_settings(flags)
        listener = _listen(settings.host, settings.port)
        settings = settings.model_copy(update={"port": listener.getsockname()[1]})
        with _closed_on_failure(listener):
            port = settings.metrics_port
            scraped = None if port is None else _listen(settings.host, port)
        configure_logs(settings.log_format)
        with _closed_on_failure(listener):
            app = build(settings)
    except SettingsRefused as refused:
        raise click.UsageError("\n".join(refused.problems)) from refused
    except DocumentsRefused as refused:
        for problem in refused.problems:
            click.echo(str(problem), err=True)
        raise click.ClickException("the documents have errors; nothing was started") from refused
    structlog.get_logger("federation").info(
        "listening",
        url=settings.url,
        host=settings.host,
        port=settings.port,
        metrics_port=scraped and scraped.getsockname()[1],
    )
    if settings.shares_one_address:
        structlog.get_logger("federation").warning(
            "callers behind the TLS proxy share one budget of failed exchanges: set"
            " trusted-proxies to the proxy's network, or failed-exchanges to 0"
        )
    _allow_many_files()
    if settings.workers == 1:
        with _exposed(scraped, app.state.metrics.registry.collect, {"0": os.getpid()}):
            _run(DrainingServer(configured(app)), listener)
    else:
        _run_several(settings, listener, scraped)


def _run_several(
    settings: Settings, listener: socket.socket, scraped: socket.socket | None
) -> None:
    pids = {"parent": os.getpid()}
    work = partial(_worker, settings)
    if scraped is None:
        supervise(work, settings.workers, listener, pids=pids, ended=lambda _pid: None)
        return
    try:
        counts = SharedCounts(settings.state)
    except OSError as error:
        raise click.ClickException(f"metrics have no place: {error}") from error
    # The library looks for it as it is imported, so the workers inherit it.
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(counts.path)
    try:
        with _exposed(scraped, counts.collect, pids):
            supervise(work, settings.workers, listener, pids=pids, ended=counts.ended)
    finally:
        counts.close()


@contextmanager
def _exposed(
    listener: socket.socket | None,
    counts: Callable[[], Iterable[Metric]],
    pids: Mapping[str, int],
) -> Iterator[None]:
    """What *counts* can be scraped on *listener*, where there is one."""
    if listener is None:
        yield
        return
    exposition = Exposition(listener, counts, lambda: dict(pids))
    exposition.start()
    try:
        yield
    finally:
        exposition.stop()


def _allow_many_files() -> None:
    """Connections are bounded by their own number, not by a default for interactive shells."""
    with suppress(OSError, ValueError):
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _worker(settings: Settings, share: Share) -> None:
    """One process among several: the same settings, an application of its own."""
    configure_logs(settings.log_format)
    config = configured(build(settings))
    _run(SharingServer(config, share.connections, share.place), share.listener)


def _run(server: DrainingServer, listener: socket.socket) -> None:
    # uvicorn raises again the signal that it stopped for. To be stopped is no failure.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    # What is loaded by now stays. To look for garbage in it would hold every request up.
    gc.freeze()
    server.run(sockets=[listener])


def configured(app: Callable[..., Awaitable[None]]) -> uvicorn.Config:
    """How *app* is served: HTTP/1.1 within limits, and nothing else."""
    return uvicorn.Config(
        app,
        http=BoundedHttp,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )


@contextmanager
def _closed_on_failure(listener: socket.socket) -> Iterator[None]:
    try:
        yield
    except BaseException:
        listener.close()
        raise


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise SettingsRefused(
            [f"cannot listen on {host} port {port}: {error.strerror or error}"]
        ) from error
