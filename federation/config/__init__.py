"""
Settings: read from flags and environment variables, and validated together.

A setting is the flag `--x` of `serve` or the variable `FEDERATION_X`; the flag wins. All problems
are reported at once. Only this module reads the broker's environment; rooms take plain values.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from federation.config.reading import Reading, flag, name_of, paths_of
from federation.config.values import (
    DocsUrl,
    Duration,
    ExistingPath,
    Folder,
    GatewayUrl,
    Hosts,
    Networks,
    ProviderUrl,
    PublicUrl,
    RedisUrl,
    Scopes,
    Verbs,
    WebhookUrl,
    webhook_url,
)
from federation.documents.values import loopback
from federation.errors import SettingsRefused
from federation.outbound import Outbound, OutboundError
from federation.ownership import check_file, check_state, read_key
from federation.text import host_and_port

__all__ = [
    "Settings",
    "api_server_of_the_pod",
    "flag",
    "loopback",
    "read_outbound",
    "read_settings",
    "settings_reading",
    "variable",
    "webhook_url",
]


_DEFAULT_STATE = Path(".federation")
_UPSTREAM_SECRETS = ("basic-auth-user", "basic-auth-password")
_SECRET_PLACES = (
    *("state", "signing_key", "upstream_secrets", "upstream_key"),
    *("audit_webhook_secret", "audit_webhook_header", "kubeconfig"),
)

_API_TOKEN = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""The folder of every pod with the token that the API server takes it by."""
_REPEATABLE = frozenset({"documents", "signing_key"})


class Settings(BaseModel):
    """The settings of `serve`, validated."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    documents: tuple[ExistingPath, ...] = Field(
        default=(),
        description="File or directory of documents. Needed unless kubernetes-namespace is set.",
    )
    kubernetes_namespace: str | None = Field(
        default=None,
        pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$",
        description="Read JwtIssuers, Policies and Roles of this namespace from the Kubernetes API,"
        " beside any files. Default: none.",
    )
    kubeconfig: ExistingPath | None = Field(
        default=None,
        description="How to reach the Kubernetes API from outside a cluster: the current context"
        " of this file. Default: the ServiceAccount of the pod.",
    )
    issuer_url: PublicUrl | None = Field(
        default=None,
        description="Public URL of this broker, without a path."
        " Needed unless it listens on loopback only.",
    )
    state: Path = Field(
        default=_DEFAULT_STATE,
        description="Directory for keys, spent tokens and the audit journal.",
    )
    shared_state: RedisUrl | None = Field(
        default=None,
        description="redis://… or rediss://… URL of a store for spent and revoked tokens that"
        " several replicas share. They need the same signing-key and issuer-url too.",
    )
    shared_state_wait: int = Field(
        default=0,
        ge=0,
        le=10,
        description="How many replicas of Redis must acknowledge that a token is spent before it"
        " is exchanged, so that a failover does not forget it.",
    )
    signing_key: tuple[ExistingPath, ...] = Field(
        default=(),
        description="PEM file with a P-256 private key; the first signs, all are accepted."
        " Default: a key that is made in the state directory.",
    )
    bearer_token_files: Folder | None = Field(
        default=None,
        description="Folder of the tokens that a JwtIssuer read from Kubernetes may name as its"
        " bearerTokenFile. Default: none, and such a JwtIssuer may name no file.",
    )
    host: str = Field(
        default="127.0.0.1",
        description="Address to listen on; :: means every address, IPv4 and IPv6.",
    )
    port: int = Field(
        default=8080, ge=0, le=65535, description="Port to listen on; 0 picks a free one."
    )
    workers: int = Field(
        default=1, ge=1, le=64, description="How many processes serve, sharing the port."
    )
    keep_alive: Duration = Field(
        default=timedelta(seconds=185),
        ge=timedelta(seconds=1),
        le=timedelta(hours=1),
        description="Duration that an idle connection is kept. It must be longer than reverse"
        " proxies and load balancers in front of the broker keep theirs.",
    )
    send_timeout: Duration = Field(
        default=timedelta(seconds=60),
        ge=timedelta(seconds=1),
        le=timedelta(hours=1),
        description="Duration that a client may leave an answer unread.",
    )
    upstream: GatewayUrl | None = Field(
        default=None,
        description="URL of the OpenFaaS gateway behind the broker, or unix:/path of its socket."
        " Without it the broker only exchanges tokens.",
    )
    upstream_ca: ExistingPath | None = Field(
        default=None, description="PEM file with the private CA of the upstream."
    )
    upstream_certificate: ExistingPath | None = Field(
        default=None,
        description="PEM file with the certificate that the broker shows to the upstream.",
    )
    upstream_key: ExistingPath | None = Field(
        default=None, description="PEM file with the private key of upstream-certificate."
    )
    upstream_secrets: ExistingPath | None = Field(
        default=None,
        description="Directory with the files basic-auth-user and basic-auth-password, the"
        " upstream's own credentials.",
    )
    upstream_timeout: Duration = Field(
        default=timedelta(seconds=60),
        ge=timedelta(seconds=1),
        le=timedelta(hours=1),
        description="Duration that the upstream may take to begin an answer, and that each later"
        " pause of the answer may last.",
    )
    upstream_connections: int = Field(
        default=1000,
        ge=3,
        le=10_000,
        description="Most connections to the upstream at once. A quarter is for its API, an eighth"
        " for logs, and the rest for calls of functions.",
    )
    body_budget: int = Field(
        default=128,
        ge=16,
        le=1_000_000,
        description="MiB that the bodies of all requests to the gateway's API may take at once, in"
        " each worker. A caller waits up to 10 seconds for room, then gets 503. Several bodies"
        " of one caller may take half of it. Beyond that, the caller gets 503 at once.",
    )
    functions: Literal["open", "authorize", "closed"] = Field(
        default="open",
        description="Who may call functions through the broker: open (anybody),"
        " authorize (callers with Function:Invoke) or closed (nobody).",
    )
    callback_hosts: Hosts = Field(
        default="",
        description="Hosts that asynchronous calls may name in X-Callback-Url, separated by commas;"
        " a host other than at port 80 or 443 with its port. Default: none, the header is dropped.",
    )
    function_namespace: str = Field(
        default="openfaas-fn",
        pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$",
        description="The namespace of requests that name none.",
    )
    failed_exchanges: int = Field(
        default=60,
        ge=0,
        le=1_000_000,
        description="Failed exchanges a minute that one address may cause in each worker"
        " before it gets 429, and invalid tokens that it may send to the gateway; 0 means no"
        " limit.",
    )
    trusted_proxies: Networks = Field(
        default="",
        description="Networks of your reverse proxies, separated by commas. Their"
        " X-Forwarded-For names the caller of a failed exchange. Functions get their"
        " X-Forwarded-For and X-Forwarded-Proto."
        " Default: none, the peer is the caller.",
    )
    sign_in_issuer: ProviderUrl | None = Field(
        default=None,
        description="Issuer URL of the OpenID provider at which people sign in. It is published, so"
        " that federation login needs nothing but the URL of this broker. Default: none.",
    )
    sign_in_client_id: str | None = Field(
        default=None,
        pattern=r"^[!-~]{1,256}$",
        description="OAuth client id that federation login uses at sign-in-issuer.",
    )
    sign_in_scopes: Scopes = Field(
        default="openid profile email",
        description="Scopes that federation login asks for, separated by spaces.",
    )
    docs_url: DocsUrl | None = Field(
        default=None,
        description="Address under which the pages of docs/ are published. Refusals then name the"
        " page about their reason, as error_uri. Default: none.",
    )
    audit_verbs: Verbs = Field(
        default="PUT,POST,DELETE",
        pattern=r"^([A-Z]+(,[A-Z]+)*)?$",
        description="Methods of gateway requests that cause an audit event, separated by commas.",
    )
    audit_webhook: WebhookUrl | None = Field(
        default=None, description="URL that audit events are sent to, in addition to the journal."
    )
    audit_webhook_secret: ExistingPath | None = Field(
        default=None, description="File with the secret that signs the events sent to the webhook."
    )
    audit_webhook_header: ExistingPath | None = Field(
        default=None,
        description="File with one more header line for the webhook, such as Authorization: Bearer …",
    )
    audit_webhook_ca: ExistingPath | None = Field(
        default=None, description="PEM file with the private CA of the webhook."
    )
    audit_claims: Literal["none", "ci", "all"] = Field(
        default="ci",
        description="Whose claims the events of exchanges keep, so that a refusal can be explained"
        " later: none, ci (jobs and other workloads, without what names a person) or all (people"
        " too).",
    )
    audit_size: int = Field(
        default=1024, ge=16, description="MiB that the audit journal may take on disk."
    )
    access_log: Literal["on", "off"] = Field(
        default="off", description="on: log one line for each request that is answered."
    )
    metrics_host: str | None = Field(
        default=None,
        description="Address of the metrics port. Default: the same as host.",
    )
    metrics_port: int | None = Field(
        default=None,
        ge=0,
        le=65535,
        description="Port for Prometheus; 0 picks a free one. Default: none.",
    )
    log_format: Literal["json", "text"] | None = Field(
        default=None, description="json or text. Default: text on a terminal, else json."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info",
        description="The least level of log lines: debug, info, warning or error.",
    )

    @model_validator(mode="after")
    def _check_combination(self) -> Settings:
        if problems := _combination_problems(dict(self)):
            raise ValueError("\n".join(problems))
        return self

    @property
    def url(self) -> str:
        """The broker's public URL, which is its tokens' `iss` and `aud`."""
        return self.issuer_url or f"http://{host_and_port(self.host, self.port)}"

    @property
    def shares_one_address(self) -> bool:
        """True if every caller seems to come from the address of one proxy."""
        # The broker speaks no TLS itself, so an https URL means that a proxy is in front of it.
        behind_a_proxy = self.url.startswith("https:")
        return behind_a_proxy and not self.trusted_proxies and self.failed_exchanges > 0


def _combination_problems(given: Mapping[str, object]) -> list[str]:
    """Settings that lack or contradict another one. *given* may be invalid or incomplete."""
    problems = []
    if not given.get("documents") and not given.get("kubernetes_namespace"):
        problems.append(
            f"documents is needed; set {_where('documents')}, or {_where('kubernetes_namespace')}"
        )
    if given.get("kubeconfig") and not given.get("kubernetes_namespace"):
        problems.append("kubeconfig is for kubernetes-namespace; set --kubernetes-namespace too")
    if not given.get("issuer_url") and not loopback(str(given.get("host") or "127.0.0.1")):
        problems.append(
            "issuer-url is needed where the broker listens on more than loopback;"
            " set --issuer-url or FEDERATION_ISSUER_URL to its public URL"
        )
    if given.get("shared_state") and not (given.get("signing_key") and given.get("issuer_url")):
        problems.append(
            "shared-state is for several replicas, which must sign alike: set --signing-key"
            " and --issuer-url too"
        )
    if given.get("shared_state_wait") not in {None, 0, "0"} and not given.get("shared_state"):
        problems.append("shared-state-wait is for a shared state; set --shared-state too")
    problems += _token_folder_problems(given)
    problems += _upstream_problems(given)
    problems += _sign_in_problems(given)
    problems += _metrics_problems(given)
    if not given.get("audit_webhook"):
        problems += [
            f"{name} is for a webhook; set --audit-webhook too"
            for name in ("audit-webhook-secret", "audit-webhook-header", "audit-webhook-ca")
            if given.get(name.replace("-", "_"))
        ]
    return problems


def _token_folder_problems(given: Mapping[str, object]) -> Iterator[str]:
    """
    Yield a problem for each secret of the broker inside the folder `bearer-token-files`.

    The author of a JwtIssuer can have each token in this folder sent to an address of their own.
    """
    for folder in paths_of(given.get("bearer_token_files")):
        for field, path in _secret_paths(given):
            if _overlap(folder, path):
                yield (
                    f"bearer-token-files is {folder}, and {name_of(field)} is {path}: give the"
                    " tokens a folder of their own, since JwtIssuers may name any file in it"
                )
        if _overlap(folder, _API_TOKEN):
            yield (
                f"bearer-token-files is {folder}, and {_API_TOKEN} has the broker's own token for"
                " the Kubernetes API: give the tokens a folder of their own, since JwtIssuers may"
                " name any file in it"
            )


def _secret_paths(given: Mapping[str, object]) -> Iterator[tuple[str, Path]]:
    """The files and folders that hold secrets of the broker, each with its setting."""
    for field in _SECRET_PLACES:
        default = _DEFAULT_STATE if field == "state" else ()
        for path in paths_of(given.get(field) or default):
            yield field, path


def _overlap(one: Path, other: Path) -> bool:
    """True if one of the paths is the other or in it, links followed."""
    one, other = one.resolve(), other.resolve()
    return one.is_relative_to(other) or other.is_relative_to(one)


def _upstream_problems(given: Mapping[str, object]) -> Iterator[str]:
    files = [n for n in ("upstream_ca", "upstream_certificate", "upstream_key") if given.get(n)]
    if files and not str(given.get("upstream")).startswith("https:"):
        yield f"{name_of(files[0])} is for an upstream with an https URL; set --upstream to one"
    if bool(given.get("upstream_certificate")) != bool(given.get("upstream_key")):
        yield "upstream-certificate and upstream-key need each other; set both"


def _sign_in_problems(given: Mapping[str, object]) -> Iterator[str]:
    if bool(given.get("sign_in_issuer")) != bool(given.get("sign_in_client_id")):
        yield "sign-in-issuer and sign-in-client-id need each other; set both"
    default = Settings.model_fields["sign_in_scopes"].default
    if given.get("sign_in_scopes", default) != default and not given.get("sign_in_issuer"):
        yield "sign-in-scopes is for sign-in-issuer; set --sign-in-issuer too"


def _metrics_problems(given: Mapping[str, object]) -> Iterator[str]:
    port, host = given.get("metrics_port"), given.get("metrics_host")
    if host and port is None:
        yield "metrics-host is for the metrics port; set --metrics-port too"
    same_host = not host or host == given.get("host", "127.0.0.1")
    if port and same_host and str(port) == str(given.get("port", 8080)):
        yield "metrics-port must be another one than port"


def variable(field: str) -> str:
    """The environment variable that sets *field*."""
    return "FEDERATION_" + field.upper()


def repeatable(field: str) -> bool:
    """True if *field* may be given more than once."""
    return field in _REPEATABLE


def settings_reading() -> Reading[Settings]:
    """The names and the parsing of the settings of `serve`."""
    return Reading(Settings, "FEDERATION_", _REPEATABLE, _combination_problems, _private_files)


def read_settings(
    flags: Mapping[str, str | Sequence[str] | None],
    environ: Mapping[str, str] | None = None,
    *,
    check_files: bool = True,
) -> Settings:
    """
    Read the settings from *flags*, which are named as the fields, and from *environ*.

    Without *check_files*, files that somebody else could have written are no problem: that is for
    who looks for problems, and never for who serves.
    Raises: SettingsRefused with every problem and the flag or variable that solves it.
    """
    environ = os.environ if environ is None else environ
    return settings_reading().read(flags, environ, check_files=check_files)


def read_outbound(environ: Mapping[str, str] | None = None) -> Outbound:
    """
    Return which proxies and trusted CAs the environment names.

    Raises: SettingsRefused with every variable that cannot be used.
    """
    try:
        return Outbound.of(os.environ if environ is None else environ)
    except OutboundError as error:
        raise SettingsRefused(error.problems) from error


def api_server_of_the_pod(environ: Mapping[str, str] | None = None) -> tuple[str, str] | None:
    """Return host and port of the API server, which Kubernetes tells every pod; else None."""
    environ = os.environ if environ is None else environ
    host, port = environ.get("KUBERNETES_SERVICE_HOST"), environ.get("KUBERNETES_SERVICE_PORT")
    return (host, port) if host and port else None


def _private_files(
    given: Mapping[str, object],
) -> Iterator[tuple[str, Path, Callable[[Path], object]]]:
    yield "state", Path(str(given.get("state") or _DEFAULT_STATE)), check_state
    for path in paths_of(given.get("signing_key")):
        yield "signing_key", path, read_key
    for path in paths_of(given.get("upstream_key")):
        yield "upstream_key", path, read_key
    # Whoever can write a kubeconfig can name another API server, whose documents are then believed.
    for field in ("kubeconfig", "audit_webhook_secret", "audit_webhook_header"):
        for path in paths_of(given.get(field)):
            yield field, path, check_file
    for folder in paths_of(given.get("upstream_secrets")):
        for name in ("", *_UPSTREAM_SECRETS):
            yield "upstream_secrets", folder / name, check_file


def _where(field: str) -> str:
    return f"{flag(field)} or {variable(field)}"
