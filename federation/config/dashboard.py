"""
The settings of `federation dashboard`, validated together.

A setting is the flag `--x` or the variable `FEDERATION_DASHBOARD_X`; the flag wins.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from federation.config.reading import Reading, paths_of
from federation.config.values import (
    PUBLIC_URL,
    Duration,
    ExistingPath,
    Networks,
    ProviderUrl,
    RedisUrl,
    Scopes,
)
from federation.documents.values import loopback
from federation.ownership import check_state, read_key

__all__ = ["DashboardSettings", "dashboard_reading", "read_dashboard_settings"]

_DEFAULT_STATE = Path(".federation-dashboard")
_DEFAULT_PORTS = {"http": "80", "https": "443"}


def _origin(url: str) -> str:
    """*url* as browsers write an origin (RFC 6454, section 6.2): in lower case, no default port."""
    found = PUBLIC_URL.fullmatch(url.lower())
    if not found or int(found["port"] or 0) > 65535:
        raise ValueError(
            f"{url!r} must be like https://dashboard.example.com: no path, no slash at the end"
        )
    if found["port"] == _DEFAULT_PORTS[found["scheme"]]:
        return f"{found['scheme']}://{found['host']}"
    return url.lower()


def _public_url(url: str) -> str:
    origin = _origin(url)
    host = origin.partition("://")[2].rsplit(":", 1)[0].strip("[]")
    # Browsers keep Secure cookies of these hosts without TLS: they never leave the machine.
    if origin.startswith("http:") and not (loopback(host) or host.endswith(".localhost")):
        raise ValueError(f"{url!r} must be https; http is for loopback hosts only")
    return origin


Origin = Annotated[str, AfterValidator(_origin)]
PublicUrl = Annotated[str, AfterValidator(_public_url)]


class DashboardSettings(BaseModel):
    """The settings of `dashboard`, validated."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    public_url: PublicUrl = Field(
        description="URL of the dashboard as browsers see it, without a path. It is a host of its"
        " own, on which no function runs. http is for loopback hosts only.",
    )
    gateway: Origin = Field(
        description="URL of the broker as the dashboard reaches it, without a path.",
    )
    gateway_url: Origin | None = Field(
        default=None,
        description="The broker's issuer-url, which people see. Default: the same as gateway.",
    )
    issuer: ProviderUrl = Field(
        description="Issuer URL of the OpenID provider that people sign in at.",
    )
    client_id: str = Field(
        pattern=r"^[!-~]{1,256}$",
        description="The dashboard's client id at the provider.",
    )
    client_secret_file: ExistingPath | None = Field(
        default=None,
        description="File with the client's secret. Default: a public client, with PKCE alone.",
    )
    scopes: Scopes = Field(
        default="openid profile email",
        max_length=1000,
        description="Scopes that the provider is asked for, separated by spaces. With offline_access,"
        " some providers give a refresh token that they give no other way.",
    )
    session_key: tuple[ExistingPath, ...] = Field(
        default=(),
        description="File with a P-256 private key in PEM, or with at least 32 random bytes. The"
        " first encrypts sessions, all decrypt. Default: a key that is made in the state"
        " directory.",
    )
    state: Path = Field(
        default=_DEFAULT_STATE,
        description="Directory for sessions, and for the session key that is made here. It is not"
        " the broker's.",
    )
    shared_state: RedisUrl | None = Field(
        default=None,
        description="redis://… or rediss://… URL of a store for sessions that several replicas"
        " share. They need the same session-key too.",
    )
    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(
        default=8090, ge=0, le=65535, description="Port to listen on; 0 picks a free one."
    )
    trusted_proxies: Networks = Field(
        default="",
        description="Networks of your reverse proxies, separated by commas. Their X-Forwarded-For"
        " names the address of who signs in. Default: none, the peer is the caller.",
    )
    session_lifetime: Duration = Field(
        default=timedelta(hours=12),
        ge=timedelta(minutes=1),
        le=timedelta(days=30),
        description="Duration after which a person signs in again, whatever they do.",
    )
    idle_lifetime: Duration = Field(
        default=timedelta(hours=1),
        ge=timedelta(minutes=1),
        le=timedelta(days=30),
        description="Duration without a request after which a session ends.",
    )
    log_format: Literal["json", "text"] | None = Field(
        default=None, description="json or text. Default: text on a terminal, else json."
    )

    @model_validator(mode="after")
    def _check_combination(self) -> DashboardSettings:
        if problems := list(_combination_problems(dict(self))):
            raise ValueError("\n".join(problems))
        return self

    @property
    def broker_url(self) -> str:
        """The broker's public URL."""
        return self.gateway_url or self.gateway


def dashboard_reading() -> Reading[DashboardSettings]:
    """The names and the parsing of these settings."""
    return Reading(
        DashboardSettings,
        "FEDERATION_DASHBOARD_",
        frozenset({"session_key"}),
        lambda given: list(_combination_problems(given)),
        _private_files,
    )


def read_dashboard_settings(
    flags: Mapping[str, str | Sequence[str] | None], environ: Mapping[str, str] | None = None
) -> DashboardSettings:
    """
    Read the settings of `dashboard` from *flags* and *environ*.

    Raises: SettingsRefused with every problem and the flag or variable that solves it.
    """
    return dashboard_reading().read(flags, os.environ if environ is None else environ)


def _combination_problems(given: Mapping[str, object]) -> Iterator[str]:
    if given.get("shared_state") and not given.get("session_key"):
        yield (
            "shared-state is for several replicas, which must read each other's sessions: set"
            " --session-key too"
        )


def _private_files(
    given: Mapping[str, object],
) -> Iterator[tuple[str, Path, Callable[[Path], object]]]:
    yield "state", Path(str(given.get("state") or _DEFAULT_STATE)), check_state
    for field in ("session_key", "client_secret_file"):
        for path in paths_of(given.get(field)):
            yield field, path, read_key
