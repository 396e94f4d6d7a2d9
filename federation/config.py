"""
Settings: read once, from flags and the environment, every problem at once.

`FEDERATION_X` in the environment, `--x` as a flag of `serve`; the flag wins. This is the only
place that reads the broker's environment; every other room takes plain values.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails

from federation.documents.values import loopback
from federation.errors import SettingsRefused

__all__ = ["Settings", "flag", "loopback", "read_settings", "variable", "webhook_url"]


_PUBLIC_URL = re.compile(
    r"(?P<scheme>https?)://(?P<host>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:(?P<port>[0-9]{1,5}))?"
)


def _existing(path: Path) -> Path:
    if not path.exists():
        raise ValueError(f"{path} does not exist")
    return path


def _public_url(url: str) -> str:
    found = _PUBLIC_URL.fullmatch(url)
    if not found or int(found["port"] or 0) > 65535:
        raise ValueError(
            f"{url!r} must be like https://gateway.example.com: no path, no slash at the end"
        )
    if found["scheme"] == "http" and not loopback(found["host"].strip("[]")):
        raise ValueError(f"{url!r} must be https; http is for loopback addresses only")
    return url


def _gateway_url(url: str) -> str:
    if not _PUBLIC_URL.fullmatch(url.removesuffix("/")):
        raise ValueError(f"{url!r} must be like http://gateway.openfaas:8080, without a path")
    return url.removesuffix("/")


def webhook_url(url: str) -> str:
    """
    *url*, to which audit events may be sent.

    Raises: ValueError.
    """
    parts = urlsplit(url)
    if not re.fullmatch(r"[!-~]+", url) or not parts.hostname or parts.fragment:
        raise ValueError("it must be like https://receiver.example.com/events")
    if parts.scheme not in {"http", "https"}:
        raise ValueError("it must be like https://receiver.example.com/events")
    if parts.username is not None:
        raise ValueError("it must not hold a password; sign with audit-webhook-secret instead")
    if parts.scheme == "http" and not loopback(parts.hostname):
        raise ValueError("it must be https; http is for loopback addresses only")
    return url


def _networks(text: str) -> str:
    for network in filter(None, text.split(",")):
        try:
            ipaddress.ip_network(network)
        except ValueError as error:
            raise ValueError(f"{error}; networks are like 10.0.0.0/8,fd00::/8") from error
    return text


def _redis_url(url: SecretStr) -> SecretStr:
    # It may hold a password, so no message quotes it.
    if not re.fullmatch(r"rediss?://\S+", url.get_secret_value()):
        raise ValueError("it must begin with redis:// or rediss://")
    return url


ExistingPath = Annotated[Path, AfterValidator(_existing)]


class Settings(BaseModel):
    """Everything `serve` needs to know, checked."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    documents: Annotated[
        tuple[ExistingPath, ...],
        Field(min_length=1, description="File or directory of documents."),
    ]
    issuer_url: Annotated[
        str | None,
        AfterValidator(lambda url: url if url is None else _public_url(url)),
        Field(
            description="Public URL of this broker, without a path."
            " Needed unless it listens on loopback only."
        ),
    ] = None
    state: Annotated[Path, Field(description="Directory for what the broker must remember.")] = (
        Path(".federation")
    )
    shared_state: Annotated[
        SecretStr | None,
        AfterValidator(lambda url: url if url is None else _redis_url(url)),
        Field(
            description="redis://… or rediss://…: spent and revoked tokens live there, for several"
            " replicas, which then share a signing-key and the issuer-url."
        ),
    ] = None
    signing_key: Annotated[
        tuple[ExistingPath, ...],
        Field(
            description="PEM file with a P-256 private key; the first signs, all are accepted."
            " Default: a key made once under the state directory."
        ),
    ] = ()
    host: Annotated[str, Field(description="Address to listen on.")] = "127.0.0.1"
    port: Annotated[
        int, Field(ge=0, le=65535, description="Port to listen on; 0 picks a free one.")
    ] = 8080
    workers: Annotated[
        int, Field(ge=1, le=64, description="How many processes serve, sharing the port.")
    ] = 1
    upstream: Annotated[
        str | None,
        AfterValidator(lambda url: url if url is None else _gateway_url(url)),
        Field(
            description="URL of the OpenFaaS gateway to stand before. Without it the broker only"
            " exchanges tokens."
        ),
    ] = None
    upstream_secrets: Annotated[
        ExistingPath | None,
        Field(
            description="Directory with the files basic-auth-user and basic-auth-password, the"
            " upstream's own credentials."
        ),
    ] = None
    upstream_timeout: Annotated[
        int,
        Field(ge=1, le=3600, description="Seconds the upstream may take to begin an answer."),
    ] = 60
    upstream_connections: Annotated[
        int, Field(ge=1, le=10_000, description="Most connections to the upstream at once.")
    ] = 1000
    functions: Annotated[
        Literal["open", "authorize", "closed"],
        Field(
            description="Who may call functions through the broker: open, anybody;"
            " authorize, who has Function:Invoke; closed, nobody."
        ),
    ] = "open"
    function_namespace: Annotated[
        str,
        Field(
            pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$",
            description="The namespace meant where a request names none.",
        ),
    ] = "openfaas-fn"
    failed_exchanges: Annotated[
        int,
        Field(
            ge=0,
            le=1_000_000,
            description="Failed exchanges a minute that one address may cause before it is told to"
            " wait, in each worker; 0 is no limit.",
        ),
    ] = 60
    trusted_proxies: Annotated[
        str,
        AfterValidator(_networks),
        Field(
            description="Networks of the proxies whose X-Forwarded-For says which address failed"
            " exchanges count for, with commas. Default: none, the peer is the caller."
        ),
    ] = ""
    audit_verbs: Annotated[
        str,
        Field(
            pattern=r"^([A-Z]+(,[A-Z]+)*)?$",
            description="Methods of gateway requests that make an audit event, with commas.",
        ),
    ] = "PUT,POST,DELETE"
    audit_webhook: Annotated[
        str | None,
        AfterValidator(lambda url: url if url is None else webhook_url(url)),
        Field(description="URL that audit events are delivered to, beside the journal."),
    ] = None
    audit_webhook_secret: Annotated[
        ExistingPath | None,
        Field(description="File with the secret that signs what is delivered."),
    ] = None
    audit_webhook_ca: Annotated[
        ExistingPath | None,
        Field(description="PEM file with the CA of the webhook, where it is a private one."),
    ] = None
    audit_size: Annotated[
        int, Field(ge=16, description="MiB that the audit journal may take on disk.")
    ] = 1024
    metrics_port: Annotated[
        int | None,
        Field(
            ge=0,
            le=65535,
            description="Port for Prometheus, on the same host; 0 picks a free one. Default: none.",
        ),
    ] = None
    log_format: Annotated[
        Literal["json", "text"] | None,
        Field(description="json or text. Default: text on a terminal, else json."),
    ] = None

    @model_validator(mode="after")
    def _fit_together(self) -> Settings:
        if problems := _together(dict(self)):
            raise ValueError("\n".join(problems))
        return self

    @property
    def url(self) -> str:
        """The broker's public URL: its tokens' `iss` and `aud`."""
        return self.issuer_url or local_url(self.host, self.port)

    @property
    def shares_one_address(self) -> bool:
        """Whether all callers come from one address, as far as the broker can tell."""
        # It speaks no TLS itself, so with https there is always a proxy.
        behind_a_proxy = self.url.startswith("https:")
        return behind_a_proxy and not self.trusted_proxies and self.failed_exchanges > 0


def _together(given: Mapping[str, object]) -> list[str]:
    """What settings ask of each other and do not get. *given* need not be valid or complete."""
    problems = []
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
    if given.get("metrics_port") and str(given["metrics_port"]) == str(given.get("port", 8080)):
        problems.append("metrics-port must be another one than port")
    if not given.get("audit_webhook"):
        problems += [
            f"{name} is for a webhook; set --audit-webhook too"
            for name in ("audit-webhook-secret", "audit-webhook-ca")
            if given.get(name.replace("-", "_"))
        ]
    return problems


def local_url(host: str, port: int) -> str:
    """The URL of a server on this machine."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def flag(field: str) -> str:
    """The flag that sets *field*."""
    return "--" + field.replace("_", "-")


def variable(field: str) -> str:
    """The environment variable that sets *field*."""
    return "FEDERATION_" + field.upper()


def repeatable(field: str) -> bool:
    """Whether *field* may be given more than once."""
    return field in {"documents", "signing_key"}


def read_settings(
    flags: Mapping[str, str | Sequence[str] | None], environ: Mapping[str, str] | None = None
) -> Settings:
    """
    The settings that *flags* (by field) and *environ* give; an empty one is as if not there.

    In a variable, several paths are separated as in `PATH`.
    Raises: SettingsRefused with every problem, each with what to set.
    """
    environ = os.environ if environ is None else environ
    given: dict[str, object] = {}
    for field in Settings.model_fields:
        from_environ = environ.get(variable(field))
        if flags.get(field):
            given[field] = flags[field]
        elif from_environ:
            given[field] = from_environ.split(os.pathsep) if repeatable(field) else from_environ
    try:
        return Settings.model_validate(given)
    except ValidationError as error:
        # Where a setting is wrong by itself, the model does not go on to how they fit together.
        alone = [_sentence(problem) for problem in error.errors() if problem["loc"]]
        raise SettingsRefused([*alone, *_together(given)]) from error


def _sentence(problem: ErrorDetails) -> str:
    field = str(problem["loc"][0])
    where = f"{flag(field)} or {variable(field)}"
    if problem["type"] == "missing":
        return f"{field.replace('_', '-')} is needed; set {where}"
    what = problem["msg"].removeprefix("Value error, ")
    return f"{field.replace('_', '-')}: {what}; set by {where}"
