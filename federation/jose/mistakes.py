"""
Sentences about texts that should be a token and are something else, such as `Bearer` and a token.

A sentence is constant, or has counts: the text may be an API token or another person's token, so no
part of it is quoted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from federation.jose.strict_json import loads_object

_BEARER = re.compile(r"\s*(authorization:\s*)?bearer\s", re.IGNORECASE)
_NOTHING = frozenset({"null", "None", "nil", "undefined", "false", "true"})
_UNFILLED = re.compile(
    r"\$[A-Za-z_{(]|%[A-Za-z_]+%|\{\{|<(?!html>|body>)[A-Za-z_ -]+>\Z", re.IGNORECASE
)
_API_TOKEN = re.compile(r"(gh[a-z]_|github_pat_|gl[a-z]{2,}-|ya29\.|xox[a-z]-|dapi|hvs\.)")
"""The beginnings of the API tokens of GitHub, GitLab, Google and others, which are no ID tokens."""
_OF_CLAIMS = frozenset({"iss", "sub", "aud", "exp"})


def mistake(token: str) -> str:
    """Return a sentence about what *token* is instead of a token, empty if nothing is known."""
    return next((sentence for looks, sentence in _MISTAKES if looks(token)), "") or _parts(token)


def _is_claims(token: str) -> bool:
    if not token.lstrip().startswith("{"):
        return False
    try:
        return bool(_OF_CLAIMS & loads_object(token.encode("utf-8", "replace")).keys())
    except ValueError:
        return False


def _in_quotes(token: str) -> bool:
    text = token.strip()
    return len(text) > 1 and text[0] == text[-1] and text[0] in "\"'`"


_MISTAKES: Sequence[tuple[Callable[[str], object], str]] = (
    (lambda token: not token.strip(), "It is empty; look whether the variable or file is."),
    (_is_claims, "It is the claims of a token as JSON; send the token itself."),
    (
        lambda token: token.lstrip().startswith(("{", "[")) and token.lstrip()[:2] != "{{",
        "It is a JSON object; send only the token in it.",
    ),
    (_BEARER.match, "It begins with Bearer; send only the token after it."),
    (
        lambda token: token.lstrip().upper().startswith("HTTP/"),
        "It is a whole HTTP answer with its headers; send only the token in it.",
    ),
    (_in_quotes, "It is in quotes; send the token without them."),
    (
        lambda token: token.strip() in _NOTHING,
        "It is a word that programs print for no value; look at what asked for the token.",
    ),
    (
        lambda token: _UNFILLED.match(token.strip()),
        "It is the name of a variable that nobody filled; send its value.",
    ),
    (
        lambda token: token.lstrip().startswith("<"),
        "It is HTML or XML; something else answered in place of what gives tokens.",
    ),
    (
        lambda token: token.lstrip().startswith("-----BEGIN "),
        "It is a key or a certificate in PEM; send the token.",
    ),
    (
        lambda token: _API_TOKEN.match(token.strip()),
        "It is an API token; send the ID token of the job, which begins with eyJ.",
    ),
    (
        lambda token: token.rstrip("\r\n") != token and not re.search(r"\s", token.strip()),
        "It has a line end at its end; send the token without it.",
    ),
    (
        lambda token: token.strip() != token and not re.search(r"\s", token.strip()),
        "It has white space at an end; send the token without it.",
    ),
    (
        lambda token: re.search(r"\s", token),
        "It has white space or a line end within; send it on one line.",
    ),
)
"""Texts that are often sent in place of a token, the surest sign first."""


def _parts(token: str) -> str:
    """Return what the number and the letters of the parts say, empty if they are those of a JWT."""
    number = token.count(".") + 1
    if number == 5:
        return "It has five parts, so it is encrypted (JWE); signed tokens are taken only."
    if number == 1:
        return "It has no dots; an ID token has three parts with two dots between."
    if number != 3:
        return f"It has {number} parts with dots between, and not three; look whether it was cut."
    if not all(token.split(".")):
        return "One of its three parts is empty; look whether it was cut."
    if any(character in token for character in "+/="):
        return "It is not base64url, which has no +, / and =."
    return ""
