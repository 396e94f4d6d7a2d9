"""
A provider's refusals, told as sentences with what to do about each.

The codes are those of RFC 6749 (sections 4.1.2.1 and 5.2), RFC 8628 (section 3.5), RFC 7009 and
OpenID Connect Core (section 3.1.2.6). The description is foreign text: it is shown on one line and
cut, and nothing is read from it but a hint about the redirect URI.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from federation.client import ClientError
from federation.errors import Refusal
from federation.text import no_command, printable

_DESCRIPTION_CHARS = 300
_CODE_CHARS = 64


class ProviderRefused(ClientError):
    """A refusal of the provider. *error* is its OAuth code, such as `invalid_grant`."""

    def __init__(self, error: str, problem: str, advice: str) -> None:
        super().__init__(problem, advice)
        self.error = error


class TokenRefused(ClientError):
    """A token of the provider that did not verify. *reason* is a slug of docs/refusals.md."""

    def __init__(self, reason: str, problem: str, advice: str) -> None:
        super().__init__(problem, advice)
        self.reason = reason


_ADVICE: Mapping[str, str] = MappingProxyType(
    {
        "access_denied": "You or a rule of the provider said no. Sign in again, or ask its operator"
        " whether you may use this client.",
        "invalid_grant": "The sign-in is over or was used before. Sign in again.",
        "invalid_client": "Check the client id and the client secret. A client that the provider"
        " calls confidential needs its secret, a public one must have none.",
        "unauthorized_client": "The operator of the provider allows this client to sign in this way"
        " (the grant type).",
        "unsupported_grant_type": "The provider does not know this way to sign in. Choose another"
        " one with --grant.",
        "unsupported_response_type": "The provider does not know this way to sign in. Choose"
        " another one with --grant.",
        "invalid_scope": "The provider does not know one of the scopes, or does not give it to this"
        " client. Check --scope.",
        "invalid_request": "The operator of the provider compares the registered client with the"
        " client id, the redirect URI and the scopes.",
        "expired_token": "Nobody signed in on the other device in time. Sign in again.",
        "login_required": "You are not signed in at the provider. Sign in again without"
        " --prompt none.",
        "interaction_required": "The provider has to ask you something. Sign in again without"
        " --prompt none.",
        "consent_required": "The provider has to ask you for consent. Sign in again with"
        " --prompt consent.",
        "account_selection_required": "You have several accounts at the provider. Sign in again"
        " with --prompt select_account.",
        "temporarily_unavailable": "The provider cannot answer now. Sign in again in a minute.",
        "server_error": "The provider failed. Sign in again in a minute, or ask its operator.",
        "slow_down": "Wait a minute, then sign in again.",
    }
)
_REDIRECT_URI = (
    "Register the redirect URI of the sign-in for this client at the provider, character for"
    " character: scheme, host, port and path."
)
_OTHER = "The operator of the provider can say more."

_TOKEN_ADVICE: Mapping[str, str] = MappingProxyType(
    {
        "unsupported_algorithm": "Have the provider sign this client's ID tokens with RS256 or"
        " ES256. One that is signed with the client secret (HS256) proves nothing to the broker.",
        "wrong_audience": "The token is for another client. Check the client id.",
        "wrong_party": "The token was issued to another client. Check the client id.",
        "expired": "Check the clock of this machine.",
        "not_yet_valid": "Check the clock of this machine.",
        "keys_unavailable": "The keys of the provider cannot be fetched now. Sign in again in a"
        " minute.",
        "unknown_key": "If the provider has just replaced its keys, sign in again in a minute.",
        "wrong_nonce": "The token belongs to another sign-in. Sign in again.",
        "wrong_subject": "The token is another person's. Sign in again.",
    }
)


def refused_answer(error: str, description: str, issuer: str) -> ProviderRefused:
    """Return what to tell about the refusal *error* of the provider *issuer*."""
    code, said = printable(error, _CODE_CHARS), printable(description, _DESCRIPTION_CHARS)
    advice = _ADVICE.get(error, _OTHER)
    if "redirect" in description.lower():
        advice = _REDIRECT_URI
    said = f": {said}" if said else "."
    return ProviderRefused(error, no_command(f"{issuer} refused ({code}){said}"), advice)


def refused_token(refusal: Refusal, kind: str) -> TokenRefused:
    """Return what to tell about *refusal* of a token, which is an ID token, or another *kind*."""
    public = refusal.public.replace("The subject token", f"The {kind}").replace(
        "the subject token", f"the {kind}"
    )
    return token_refused(refusal.reason.value, public)


def token_refused(reason: str, sentence: str) -> TokenRefused:
    """Return what to tell about a token that is refused with *reason*."""
    advice = _TOKEN_ADVICE.get(reason, _OTHER)
    return TokenRefused(reason, no_command(f"{sentence} ({reason})"), advice)
