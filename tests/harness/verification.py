"""Verify a subject token in one line, with a fake issuer and a new key ring."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest

from federation.documents.model import JwtIssuer
from federation.errors import Refusal
from federation.issuers.key_ring import KeyRing
from federation.issuers.verify import Verified, check_signature, find_signer, verify
from federation.jose import jws
from tests.harness.builders import NOW, issuer
from tests.harness.clock import Clock
from tests.harness.issuer import FakeIssuer


def proven(
    token: str, fake: FakeIssuer, issuers: Iterable[JwtIssuer] | None = None, now: float = NOW
) -> Verified:
    """Verify *token*. By default *fake* is the only trusted issuer. Raises: Refusal."""

    async def story() -> Verified:
        ring = KeyRing(fake.connect, Clock())
        trusted = [issuer(fake.iss)] if issuers is None else issuers
        try:
            parsed = jws.parse(token)
            signer = await find_signer(parsed, {each.iss: each for each in trusted}, ring)
            return verify(check_signature(parsed, signer), now)
        finally:
            await ring.aclose()

    return asyncio.run(story())


def refused(
    token: str, fake: FakeIssuer, issuers: Iterable[JwtIssuer] | None = None, now: float = NOW
) -> Refusal:
    """The refusal of *token*, which must not verify."""
    with pytest.raises(Refusal) as caught:
        proven(token, fake, issuers, now)
    return caught.value
