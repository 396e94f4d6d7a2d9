"""
Verify a provider's tokens by the road that the broker itself takes, and then a little more.

Signature, issuer, audience, `azp`, times and type are checked by `issuers.verify`. On top come
what only the client of a sign-in can check: the nonce, and that a refresh gives the same person.
A second, laxer verifier beside the broker's would be where the holes come from.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from hmac import compare_digest

from federation.claims import Claims, audiences
from federation.documents.model import JwtIssuer
from federation.errors import Refusal
from federation.issuers.key_ring import KeyRing
from federation.issuers.verify import check_signature, find_signer, verify
from federation.jose.jws import Unverified, parse
from federation.providers.table import GENERIC, known_provider
from federation.sign_on.bounded import Bounded, client_of
from federation.sign_on.metadata import Metadata
from federation.sign_on.oauth_errors import refused_token, token_refused

_ID_TOKEN = "ID token"
_ACCESS_TOKEN = "access token"


def issuer_of(metadata: Metadata, client_id: str) -> JwtIssuer:
    """Return the provider as the broker's documents would describe it for people."""
    provider = "keycloak" if metadata.is_keycloak else known_provider(metadata.issuer)
    return JwtIssuer(
        name="sign-in",
        iss=metadata.issuer,
        audiences=(),
        provider=provider or GENERIC,
        token_expiry=timedelta(minutes=15),
        single_use=False,
        jwks_uri=metadata.jwks_uri,
        clients=(client_id,),
    )


@dataclass(frozen=True, slots=True)
class Verifier:
    """Verifies tokens of one provider for one client."""

    issuer: JwtIssuer
    client_id: str
    keys: KeyRing
    clock: Callable[[], float]

    @classmethod
    def of(
        cls, metadata: Metadata, client_id: str, transport: Bounded, clock: Callable[[], float]
    ) -> Verifier:
        """Return a verifier that fetches the provider's keys over *transport*."""
        ring = KeyRing(lambda _ca_bundle: client_of(transport))
        return cls(issuer_of(metadata, client_id), client_id, ring, clock)

    async def signed_in(self, id_token: str, nonce: str) -> Claims:
        """Return the claims of *id_token*, whose nonce must be *nonce*. Raises: ClientError."""
        claims = await self._id_token(id_token)
        given = claims.get("nonce")
        # OpenID Connect Core, section 3.1.3.7, 11: without it, the ID token of another sign-in of
        # the same person could be put in the place of this one (replay, code injection).
        if not isinstance(given, str) or not _same(given, nonce):
            raise token_refused("wrong_nonce", "The ID token has another nonce than this sign-in.")
        return claims

    async def on_other_device(self, id_token: str) -> Claims:
        """Return the claims of *id_token* of the device flow, which has no nonce."""
        return await self._id_token(id_token)

    async def refreshed(self, id_token: str, subject: str) -> Claims:
        """
        Return the claims of *id_token*, given at a refresh, whose `sub` must still be *subject*.

        OpenID Connect Core, section 12.2. Such a token need not have a nonce.
        """
        claims = await self._id_token(id_token)
        if not _same(str(claims["sub"]), subject):
            raise token_refused("wrong_subject", "The refreshed ID token is of another person.")
        return claims

    async def of_client(self, access_token: str) -> Claims:
        """
        Return the claims of *access_token*, which the client got for itself.

        Its audience is whom it is for, often the gateway. Here it is only checked that the
        provider signed it, and that it was issued to this client; the broker checks the rest.
        """
        try:
            token = parse(access_token)
        except Refusal as refusal:
            raise token_refused(
                refusal.reason.value, "The access token is opaque: it is no JWT."
            ) from None
        meant = tuple(one for one in audiences(token.claims) if isinstance(one, str))
        issuer = replace(
            self.issuer, audiences=meant, clients=(), authorized_parties=(self.client_id,)
        )
        return await self._verified(token, issuer, _ACCESS_TOKEN)

    async def _id_token(self, text: str) -> Claims:
        try:
            token = parse(text)
        except Refusal as refusal:
            raise refused_token(refusal, _ID_TOKEN) from None
        claims = await self._verified(token, self.issuer, _ID_TOKEN)
        several = len(audiences(claims)) > 1
        if several and claims.get("azp") is None:
            # OpenID Connect Core, section 3.1.3.7, 4: it may have been issued to another of them.
            raise token_refused(
                "wrong_party", "The ID token has several audiences, and no azp names its client."
            )
        return claims

    async def _verified(self, token: Unverified, issuer: JwtIssuer, kind: str) -> Claims:
        try:
            await self.keys.refresh_due([self.issuer])
            signer = await find_signer(token, {issuer.iss: issuer}, self.keys)
            return verify(check_signature(token, signer), self.clock()).claims
        except Refusal as refusal:
            raise refused_token(refusal, kind) from None


def _same(one: str, other: str) -> bool:
    return bool(other) and compare_digest(
        one.encode("utf-8", "surrogatepass"), other.encode("utf-8", "surrogatepass")
    )
