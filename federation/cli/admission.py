"""
`federation admission`: run the admission webhook, which judges objects before they are kept.

It is a program of its own and not a part of `serve`, because it needs rights that the broker must
not have: to change its own webhook configuration, and the Secret with its certificate.
"""

from __future__ import annotations

import re
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from ipaddress import ip_address
from pathlib import Path

import click
import structlog

from federation import __version__
from federation.admission.endpoint import Endpoint, build
from federation.admission.neighbours import NeighbourReader
from federation.admission.renewal import Certificates, Place, server_context
from federation.admission.server import run
from federation.cli.environment_log import log_environment
from federation.config import api_server_of_the_pod, read_outbound
from federation.errors import SettingsRefused
from federation.logs import configure_logs
from federation.server.listener import listen
from federation.sources.kubernetes.connect import connect

_LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_NAMESPACE = re.compile(_LABEL)
_NAME = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_DEFAULT = "federation-admission"


def _namespace(_context: click.Context, _option: click.Parameter, value: str | None) -> str | None:
    if value is not None and not _NAMESPACE.fullmatch(value):
        raise click.BadParameter("it is not a name of a namespace")
    return value


def _name(_context: click.Context, _option: click.Parameter, value: str) -> str:
    if not _NAME.fullmatch(value) or len(value) > 253:
        raise click.BadParameter("it is not a name of an object")
    return value


def _host_names(
    _context: click.Context, _option: click.Parameter, values: Sequence[str]
) -> frozenset[str]:
    return frozenset(_host_name(value) for value in values)


def _host_name(value: str) -> str:
    try:
        return str(ip_address(value))
    except ValueError:
        if not _NAME.fullmatch(value) or len(value) > 253:
            raise click.BadParameter("it is neither a DNS name nor an address") from None
        return value


@click.command()
@click.option(
    "--namespace",
    envvar="FEDERATION_KUBERNETES_NAMESPACE",
    required=True,
    callback=_namespace,
    help="The namespace whose JwtIssuers, Policies and Roles are judged.",
)
@click.option(
    "--kubeconfig",
    envvar="FEDERATION_KUBECONFIG",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="How to reach the API server from outside a cluster. Default: the pod's ServiceAccount.",
)
@click.option(
    "--own-namespace",
    callback=_namespace,
    help="The namespace of this program's Secret and Service. Default: the same as --namespace.",
)
@click.option(
    "--secret",
    default=_DEFAULT,
    show_default=True,
    callback=_name,
    help="The Secret that keeps the certificate. It must exist, and may be empty.",
)
@click.option(
    "--webhook-configuration",
    default=_DEFAULT,
    show_default=True,
    callback=_name,
    help="The ValidatingWebhookConfiguration whose caBundle is kept up to date.",
)
@click.option(
    "--host-name",
    "host_names",
    multiple=True,
    callback=_host_names,
    help="A name or address by which API servers call this program; repeat it for more."
    f" Default: {_DEFAULT}.<own namespace>.svc.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    default=8443,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Port to listen on; 0 picks a free one.",
)
@click.option(
    "--log-format",
    type=click.Choice(["json", "text"]),
    help="Default: text on a terminal, else json.",
)
def admission(
    *,
    namespace: str,
    kubeconfig: Path | None,
    own_namespace: str | None,
    secret: str,
    webhook_configuration: str,
    host_names: frozenset[str],
    host: str,
    port: int,
    log_format: str | None,
) -> None:
    """
    Run the admission webhook.

    The API server asks it about each changed JwtIssuer, Policy and Role. It refuses what `check`
    refuses in the object itself, and warns about the rest. It makes and renews its certificate.
    """
    configure_logs(log_format)
    own = own_namespace or namespace
    with ExitStack() as sockets:
        try:
            connection = connect(namespace, kubeconfig, api_server_of_the_pod(), read_outbound())
            listener = sockets.enter_context(listen(host, port))
            log_environment(None)
        except SettingsRefused as refused:
            raise click.UsageError("\n".join(refused.problems)) from refused
        certificates = Certificates(
            connection,
            Place(own, secret, webhook_configuration),
            host_names or frozenset({f"{_DEFAULT}.{own}.svc"}),
            server_context(),
        )
        app = build(Endpoint(namespace, NeighbourReader(connection)), certificates)
        # After its shutdown uvicorn raises the signal again that caused it. That is a normal exit.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: sys.exit(0))
        run(app, listener, certificates.context, lambda: _log_listening(listener, namespace))


def _log_listening(listener: socket.socket, namespace: str) -> None:
    host, port = listener.getsockname()[:2]
    structlog.get_logger("federation").info(
        "listening",
        version=__version__,
        mode="admission",
        namespace=namespace,
        host=host,
        port=port,
    )
