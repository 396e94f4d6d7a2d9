"""
Reads a token or its claims from a file that is given to a command.

People give the one for the other, or the whole answer that had it within. Each has its own
sentence, and none quotes the file, since it may be a secret.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import BinaryIO

import click

from federation.claims import UnverifiedClaims
from federation.jose import strict_json

_FILE_BYTES = 1024 * 1024
_BEARER = re.compile(r"\A(authorization:\s*)?bearer\s+", re.IGNORECASE)
_TOKEN = re.compile(r"[\"']?eyJ[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]*)+[\"']?")
_OF_CLAIMS = frozenset({"iss", "sub", "aud", "exp"})
_OF_A_HEADER = frozenset({"alg", "kid", "typ"})


def text_of(file: BinaryIO) -> str:
    """
    Return what *file* holds, without white space around it.

    Raises: click.BadParameter if it is too large or not UTF-8.
    """
    content = file.read(_FILE_BYTES + 1)
    if len(content) > _FILE_BYTES:
        raise click.BadParameter("the file is larger than 1 MiB, and no token is")
    try:
        return content.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        raise click.BadParameter("the file is not UTF-8 text; save it as UTF-8") from None


def token_in(text: str) -> str:
    """Return *text*, which should be a token. Raises: click.BadParameter if it is claims."""
    if text.startswith("{") and _OF_CLAIMS & _members(text).keys():
        raise click.BadParameter(
            "the file holds claims, and not a token; give it with --claims", param_hint="--token"
        )
    return text


def claims_in(text: str, option: str = "--claims", *, so: str = "with --token") -> UnverifiedClaims:
    """
    Return the claims in *text*, the file that *option* names.

    *so* says how the command takes a token. Raises: click.BadParameter with what it is instead.
    """
    if _TOKEN.fullmatch(_BEARER.sub("", text)):
        raise _not_claims(f"a token, and not its claims; give it {so}", option)
    try:
        members = strict_json.loads_object(text.encode())
    except ValueError as error:
        if text.startswith("["):
            raise _not_claims(
                "a list; give the claims of one token, as one object", option
            ) from None
        raise _not_claims(f"no JSON object: {error}", option) from None
    if instead := _instead_of_claims(members, so):
        raise _not_claims(instead, option)
    return UnverifiedClaims(members)


def _instead_of_claims(members: Mapping[str, object], so: str) -> str:
    """Return what *members* are where they are no claims, empty if they may be."""
    if _OF_CLAIMS & members.keys():
        return ""
    for name, value in members.items():
        if isinstance(value, str) and _TOKEN.fullmatch(value) and re.fullmatch(r"\w{1,64}", name):
            return f"a whole JSON answer with a token in {name}; give that token {so}"
    if isinstance(members.get("claims"), dict):
        return "an audit event; give the object in its member claims: jq .claims"
    if members and members.keys() <= _OF_A_HEADER:
        return "the header of a token; give its payload, the part after the first dot"
    return ""


def _members(text: str) -> Mapping[str, object]:
    try:
        return strict_json.loads_object(text.encode())
    except ValueError:
        return {}


def _not_claims(what: str, option: str) -> click.BadParameter:
    return click.BadParameter(f"the file holds {what}", param_hint=option)
