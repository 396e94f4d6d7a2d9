"""
The subject token as it was handed over, checked before it is sent anywhere.

A token goes only to the server that it was issued for. Otherwise a person who can set a variable of
a job, such as the broker's URL, could have its token sent to a server of their own. Nothing is
verified here: the broker does that.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from federation.client import ClientError
from federation.errors import Refusal
from federation.jose import jws
from federation.jose.strict_json import loads_object
from federation.text import no_command, printable

_BEARER = re.compile(r"\Abearer\s+", re.IGNORECASE)
_PERSONAL = frozenset({"jti", "user_email", "user_identities", "groups_direct", "email"})
"""Claims that are not shown: those about a person, and `jti`, without which it is no token."""
_PROTOCOL = frozenset({"jti", "nonce", "at_hash", "c_hash", "s_hash", "sid"})


@dataclass(frozen=True, slots=True)
class SubjectToken:
    """A subject token and its claims, which are not verified."""

    text: str = field(repr=False)
    claims: Mapping[str, object] = field(repr=False)

    @classmethod
    def read(cls, given: str) -> SubjectToken:
        """
        Return the token in *given*. White space around it and `Bearer` before it are dropped.

        Raises: ClientError if it is not a token. The message does not quote it.
        """
        text = _BEARER.sub("", given.strip())
        if text.startswith("{"):
            raise _whole_answer(text)
        if re.search(r"\s", text):
            raise ClientError(
                "The token has white space or a line end within.",
                "Give the token alone, on one line.",
            )
        try:
            return cls(text, jws.parse(text).claims)
        except Refusal as refusal:
            raise ClientError(
                f"What was given is not an ID token: {refusal.public}",
                "An ID token has three parts with two dots between, and begins with eyJ. Look"
                " whether it was cut off, or whether another value is in its place.",
            ) from None

    def require_audience(self, expected: str) -> None:
        """
        Check that the token was issued for *expected*. A slash at the end makes no difference.

        Raises: ClientError.
        """
        given = self.claims.get("aud")
        audiences = [str(each) for each in given] if isinstance(given, list) else [given or ""]
        if expected.rstrip("/") in {str(audience).rstrip("/") for audience in audiences}:
            return
        shown = printable(", ".join(map(str, audiences)), 300) or "nobody: it has no aud"
        raise ClientError(
            f"The token is for {shown}, but would be sent to {expected}. It was not sent.",
            f"Check the URL. If it is right, ask the CI system for a token with the audience"
            f" {expected} (on GitLab: aud under id_tokens). If the broker expects another audience"
            " than its URL, give that with --audience.",
        )

    def shown(self, *, personal: bool = False) -> str:
        """
        Return the claims as JSON, one a line, without those about a person, and without `jti`.

        With *personal*, to the person whom they are about, only those of the protocol are left out.
        """
        told = self.told(personal=personal)
        lines = ",\n".join(f"  {json.dumps(n)}: {json.dumps(v)}" for n, v in told.items())
        return "\n".join(map(no_command, ["{", *lines.split("\n"), "}"]))

    def told(self, *, personal: bool = False) -> dict[str, object]:
        """Return the claims that `shown` shows."""
        hidden = _PROTOCOL if personal else _PERSONAL
        return {name: value for name, value in self.claims.items() if name not in hidden}

    @property
    def summary(self) -> str:
        """Issuer, subject and audience on one line."""
        named = (f"{claim} {self.text_of(claim) or 'missing'}" for claim in ("iss", "sub", "aud"))
        return ", ".join(named)

    def text_of(self, claim: str) -> str:
        """Return *claim* as it is shown in a sentence."""
        value = self.claims.get(claim)
        return printable(", ".join(map(str, _each(value))), 300)


def _each(value: object) -> Iterable[object]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _whole_answer(text: str) -> ClientError:
    """The error for JSON in place of a token. It names the member that looks like one."""
    try:
        members = loads_object(text.encode())
    except ValueError:
        members = {}
    tokens = [name for name, value in members.items() if str(value).count(".") == 2]
    name = tokens[0] if len(tokens) == 1 and re.fullmatch(r"\w{1,64}", tokens[0]) else "value"
    return ClientError(
        "What was given is a whole JSON answer, and not the token in it.",
        f"Give the member {name} alone, for example: jq -r .{name}",
    )
