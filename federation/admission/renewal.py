"""
Keeps the webhook's certificate valid, and API servers trusting it, without a failed review.

All replicas share one Secret. A replica that finds the certificate due for renewal writes a new
generation beside the old one. If several try, the Secret's resourceVersion lets one succeed, and
the others take what it wrote. The `caBundle` of the webhook's configuration then holds the CAs of
both generations. A replica serves the new certificate once it has seen its CA there for some
minutes, since each API server learns of a changed configuration in its own time.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import random
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog

from federation.admission.certificates import (
    LIFETIME,
    Generation,
    bundle,
    from_secret,
    planned,
    to_secret,
)
from federation.sources.kubernetes.connection import Connection, Trouble
from federation.sources.kubernetes.fields import mapping
from federation.sources.kubernetes.tls import load_certificate

FIELD_MANAGER = "federation-admission"
SETTLE = timedelta(minutes=5)
"""A new certificate is served when API servers could trust its CA for so long."""
CHECK = timedelta(seconds=10)
_ATTEMPTS = 5
_SPREAD = 0.2
_CONFIGURATIONS = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"


@dataclass(frozen=True, slots=True)
class Place:
    """The Secret that keeps the certificate, and the configuration that tells API servers its CA."""

    namespace: str
    secret: str
    configuration: str
    """The name of the ValidatingWebhookConfiguration."""

    @property
    def secret_path(self) -> str:
        """The path of the Secret."""
        return f"/api/v1/namespaces/{self.namespace}/secrets/{self.secret}"

    @property
    def configuration_path(self) -> str:
        """The path of the ValidatingWebhookConfiguration."""
        return f"{_CONFIGURATIONS}/{self.configuration}"


@dataclass(frozen=True, slots=True)
class _Configuration:
    """The webhook's configuration as the API server has it."""

    version: str
    bundles: Mapping[str, bytes]
    """The `caBundle` of each of its webhooks."""

    def holds(self, ca: bytes) -> bool:
        """Return whether every webhook of it trusts *ca*."""
        return bool(self.bundles) and all(ca in each for each in self.bundles.values())


@dataclass(slots=True)
class Certificates:
    """The certificate that *context* serves, renewed in time."""

    connection: Connection
    place: Place
    names: frozenset[str]
    """The DNS names and addresses by which API servers call this webhook."""
    context: ssl.SSLContext
    lifetime: timedelta = LIFETIME
    settle: timedelta = SETTLE
    check_every: timedelta = CHECK
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    served: Generation | None = field(default=None, init=False)
    trusted: bool = field(default=False, init=False)
    """True if API servers trust what is served, as of the last look."""
    _since: dict[bytes, float] = field(default_factory=dict, init=False, repr=False)
    """When each CA was first seen in the configuration, on the monotonic clock."""
    _trouble: str = field(default="", init=False, repr=False)

    async def keep(self) -> None:
        """Check again and again, until cancelled. What goes wrong is logged once."""
        while True:
            try:
                await self.check()
                self._note("")
            except Trouble as trouble:
                self._note(str(trouble))
            spread = random.uniform(1 - _SPREAD, 1 + _SPREAD)  # noqa: S311  no secret
            await asyncio.sleep(self.check_every.total_seconds() * spread)

    async def check(self) -> None:
        """
        Renew the certificate if it is time, let API servers trust it, and serve what they trust.

        Raises: Trouble.
        """
        for _ in range(_ATTEMPTS):
            try:
                return await self._check_once()
            except Trouble as trouble:
                if trouble.status != 409:
                    raise
                # Another replica was first: look at what it wrote.
        raise Trouble("the Secret or the webhook's configuration changes all the time")

    async def _check_once(self) -> None:
        # In this order: a configuration that another replica changed after it read a newer Secret
        # has another version then, so that an older set of CAs never replaces a newer one.
        configuration = await self._configuration()
        generations = await self._generations()
        if configuration is not None and configuration.bundles:
            configuration = await self._trusting(configuration, bundle(generations))
        self._note_trusted(configuration, generations)
        self._serve(self._choice(generations))
        if not self.trusted:
            raise Trouble(
                f"the ValidatingWebhookConfiguration {self.place.configuration} does not exist, or "
                "has no webhook"
            )

    # The Secret

    async def _generations(self) -> tuple[Generation, ...]:
        secret = await self._secret()
        found = from_secret(mapping(secret.get("data")))
        wanted = planned(found, self.names, self.clock(), self.lifetime)
        if wanted != found:
            await self._write(secret, wanted)
        if wanted[:1] != found[:1]:
            expires = wanted[0].expires.isoformat()
            _log().info("a new certificate was made for the admission webhook", expires=expires)
        return wanted

    async def _secret(self) -> Mapping[str, Any]:
        try:
            return await self.connection.request("GET", self.place.secret_path)
        except Trouble as trouble:
            if trouble.status != 404:
                raise
            name = f"{self.place.namespace}/{self.place.secret}"
            # Whoever may create Secrets may create any, so this program must not.
            raise Trouble(f"the Secret {name} does not exist; create it, empty", 404) from None

    async def _write(self, secret: Mapping[str, Any], generations: Sequence[Generation]) -> None:
        # The version is in its metadata: the API server takes this for no other one.
        body = {**secret, "data": to_secret(generations)}
        await self.connection.request("PUT", self.place.secret_path, body=body)

    # The configuration

    async def _configuration(self) -> _Configuration | None:
        try:
            found = await self.connection.request("GET", self.place.configuration_path)
        except Trouble as trouble:
            if trouble.status == 404:
                return None
            raise
        return _read_configuration(found)

    async def _trusting(self, configuration: _Configuration, cas: bytes) -> _Configuration:
        """Return *configuration* after its webhooks trust *cas*, and nothing else."""
        if all(each == cas for each in configuration.bundles.values()):
            return configuration
        text = base64.b64encode(cas).decode("ascii")
        body = {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingWebhookConfiguration",
            "metadata": {
                "name": self.place.configuration,
                "resourceVersion": configuration.version,
            },
            "webhooks": [
                {"name": name, "clientConfig": {"caBundle": text}} for name in configuration.bundles
            ],
        }
        patched = await self.connection.request(
            "PATCH",
            self.place.configuration_path,
            params={"fieldManager": FIELD_MANAGER, "force": "true"},
            body=body,
            content_type="application/apply-patch+yaml",
        )
        _log().info("API servers trust the admission webhook by a new set of CAs")
        return _read_configuration(patched)

    # What is served

    def _note_trusted(
        self, configuration: _Configuration | None, generations: Sequence[Generation]
    ) -> None:
        now = time.monotonic()
        self._since = {
            generation.ca: self._since.get(generation.ca, now)
            for generation in generations
            if configuration is not None and configuration.holds(generation.ca)
        }

    def _choice(self, generations: Sequence[Generation]) -> Generation:
        """Return the newest generation once it settled; before that the older one, if there is one."""
        newest, *older = generations
        since = self._since.get(newest.ca)
        settled = since is not None and time.monotonic() - since >= self.settle.total_seconds()
        return newest if settled or not older else older[0]

    def _serve(self, generation: Generation) -> None:
        if generation != self.served:
            load_certificate(self.context, generation.certificate, generation.key)
            self.served = generation
            expires = generation.expires.isoformat()
            _log().info("the admission webhook serves another certificate", expires=expires)
        self.trusted = generation.ca in self._since

    def _note(self, trouble: str) -> None:
        if trouble and trouble != self._trouble:
            _log().warning(
                "the certificate of the admission webhook could not be checked", reason=trouble
            )
        self._trouble = trouble


def server_context() -> ssl.SSLContext:
    """Return the TLS context of a server that has no certificate yet: each handshake fails."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    # A resumed session would go on under a certificate that is no longer served.
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET
    return context


def _read_configuration(found: Mapping[str, Any]) -> _Configuration:
    webhooks = found.get("webhooks")
    bundles = {
        str(webhook.get("name")): _decoded(mapping(webhook.get("clientConfig")).get("caBundle"))
        for webhook in (webhooks if isinstance(webhooks, list) else ())
        if isinstance(webhook, dict)
    }
    return _Configuration(str(mapping(found.get("metadata")).get("resourceVersion")), bundles)


def _decoded(value: object) -> bytes:
    try:
        return base64.b64decode(value, validate=True) if isinstance(value, str) else b""
    except (binascii.Error, ValueError):
        return b""


def _log() -> Any:
    return structlog.get_logger("federation.admission")
