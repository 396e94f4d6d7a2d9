"""
The provider's answer at the callback: the parameters that the browser brings.

Anybody can send the browser, or any program on this machine the listener, to the callback. An
answer counts only if it has the `state` of the sign-in, the `iss` of its provider (RFC 9207) and
each parameter once. Any other is foreign: it changes nothing, and the sign-in goes on waiting.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hmac import compare_digest

from federation.sign_on.metadata import Metadata
from federation.sign_on.oauth_errors import refused_answer
from federation.sign_on.pending import Pending

Answer = Sequence[tuple[str, str]]
"""The parameters in their order."""

_MAX_PARAMETERS = 50


class ForeignAnswer(Exception):
    """An answer that does not belong to this sign-in. The sign-in goes on waiting for its own."""


def code_of(answer: Answer, pending: Pending, metadata: Metadata) -> str:
    """
    Return the authorization code in *answer*.

    Raises: ForeignAnswer; ClientError with what the provider says, if it says no.
    """
    return _own(answer, pending, metadata, "code")


def id_token_of(answer: Answer, pending: Pending, metadata: Metadata) -> str:
    """
    Return the ID token in *answer* of the implicit flow. It is not verified.

    Raises: ForeignAnswer; ClientError with what the provider says, if it says no.
    """
    return _own(answer, pending, metadata, "id_token")


def _own(answer: Answer, pending: Pending, metadata: Metadata, wanted: str) -> str:
    parameters = _once_each(answer)
    _check_state(parameters, pending)
    _check_issuer(parameters, metadata, wanted)
    given, error = parameters.get(wanted, ""), parameters.get("error", "")
    if bool(given) == bool(error):
        raise ForeignAnswer(f"The answer has neither or both of {wanted} and error.")
    if error:
        raise refused_answer(error, parameters.get("error_description", ""), metadata.issuer)
    return given


def _once_each(answer: Answer) -> Mapping[str, str]:
    """
    Return the parameters by name.

    RFC 6749, section 3.1: none may come twice. A reader that takes the first and one that takes
    the last would see two answers.
    """
    if len(answer) > _MAX_PARAMETERS:
        raise ForeignAnswer("The answer has too many parameters.")
    parameters = dict(answer)
    if len(parameters) != len(answer):
        raise ForeignAnswer("The answer has a parameter twice.")
    return parameters


def _check_state(parameters: Mapping[str, str], pending: Pending) -> None:
    given = parameters.get("state", "").encode("utf-8", "surrogatepass")
    # Compared in constant time: on loopback many guesses are cheap, and a timing would help them.
    if not pending.state or not compare_digest(given, pending.state.encode()):
        raise ForeignAnswer("The answer has another state.")


def _check_issuer(parameters: Mapping[str, str], metadata: Metadata, wanted: str) -> None:
    """
    Check `iss`, by which a code of another provider is noticed before it is sent (RFC 9207).

    A client that knows two providers, one of them hostile, could otherwise be made to send the
    code of the honest one to the hostile one's token endpoint (mix-up, RFC 9700, section 4.4).
    An answer with an ID token may leave it out, as oidc-provider's do: the token has an `iss`.
    """
    iss = parameters.get("iss")
    in_token = wanted == "id_token" and bool(parameters.get("id_token"))
    if iss is None and (in_token or not metadata.names_itself):
        return
    if iss != metadata.issuer:
        raise ForeignAnswer("The answer is of another provider.")
