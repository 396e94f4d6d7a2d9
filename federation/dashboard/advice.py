"""
What a person at a page can do about the provider's refusal.

`sign_on` advises who signs in by command: it names options, and the clock of their own machine. At
the dashboard it is its operator who has the settings and the clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from federation.client import ClientError
from federation.sign_on.oauth_errors import ProviderRefused, TokenRefused

_AGAIN = "Sign in again."
_CLIENT = "The operator of the dashboard compares its client id and secret with the provider's."
_CLOCKS = "The operator compares the clocks of the provider and the dashboard."
_CODE = "The operator of the provider allows this client to sign in by a code (authorization_code)."

_ADVICE: Mapping[str, str] = MappingProxyType(
    {
        "invalid_client": _CLIENT,
        "unsupported_grant_type": _CODE,
        "unsupported_response_type": _CODE,
        "invalid_scope": "The operator of the dashboard compares the setting scopes with those that"
        " the provider gives to this client.",
        "login_required": _AGAIN,
        "interaction_required": "Sign in again, and answer what the provider asks.",
        "consent_required": "Sign in again, and consent at the provider.",
        "account_selection_required": "Choose one account at the provider, then sign in again.",
        "wrong_audience": _CLIENT,
        "wrong_party": _CLIENT,
        "expired": _CLOCKS,
        "not_yet_valid": _CLOCKS,
    }
)


def advice_on(error: ClientError) -> str:
    """Return what a person at a page can do about *error*."""
    code = ""
    if isinstance(error, ProviderRefused):
        code = error.error
    elif isinstance(error, TokenRefused):
        code = error.reason
    return _ADVICE.get(code, error.advice) or _AGAIN
