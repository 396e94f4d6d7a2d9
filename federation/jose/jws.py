"""
Parse a JWT in the compact form of RFC 7515, strictly and without verifying it.

Lenient parsers accept padding, stray characters, bits after the last byte, and duplicate members
in JSON. With any of these, two programs can read two different tokens from the same text, so
they are refused. A parsed token is not yet verified.
"""

from __future__ import annotations

from binascii import a2b_base64, b2a_base64
from collections.abc import Mapping
from dataclasses import dataclass, field

from federation.claims import UnverifiedClaims
from federation.errors import Reason, Refusal
from federation.jose.mistakes import mistake
from federation.jose.strict_json import loads_object

MAX_TOKEN_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class Unverified:
    """The parts of a parsed token, none of them verified."""

    header: Mapping[str, object]
    claims: UnverifiedClaims = field(repr=False)
    signing_input: bytes = field(repr=False)
    signature: bytes = field(repr=False)


def parse(token: str) -> Unverified:
    """
    Split *token* into its three segments and decode them; verify nothing.

    Raises: Refusal with `token_too_large` or `malformed_token`.
    """
    if len(token) > MAX_TOKEN_BYTES:
        raise Refusal(Reason.TOKEN_TOO_LARGE, evidence={"chars": len(token)})
    try:
        return _parts(token.encode("ascii"))
    except ValueError:
        sentence = f"{Reason.MALFORMED_TOKEN.sentence} {mistake(token)}".rstrip()
        raise Refusal(Reason.MALFORMED_TOKEN, sentence, evidence={"why": _why(token)}) from None


def _parts(token: bytes) -> Unverified:
    segments = token.split(b".", 3)
    if len(segments) != 3 or not all(segments):
        raise ValueError("not three segments")
    header, payload, signature = segments
    return Unverified(
        header=loads_object(decode_base64url(header)),
        claims=UnverifiedClaims(loads_object(decode_base64url(payload))),
        signing_input=token[: len(header) + 1 + len(payload)],
        signature=decode_base64url(signature),
    )


def decode_base64url(segment: bytes) -> bytes:
    """
    Decode *segment* (RFC 7515, section 2), if it is the only encoding of its bytes.

    Raises: ValueError.
    """
    rest = len(segment) % 4
    # Only zero is valid for the unused bits of the last character, but the decoder accepts any
    # value. One token must have one spelling.
    canonical = not rest or segment[-1] in _LAST[rest]
    if not canonical or _PLUS in segment or _SLASH in segment or _EQUALS in segment:
        raise ValueError("not base64url in its only form")
    standard = segment.replace(b"-", b"+").replace(b"_", b"/") + _PADDING[rest]
    return a2b_base64(standard, strict_mode=True)


def encode_base64url(raw: bytes) -> bytes:
    """Encode *raw* in base64url without padding (RFC 7515, section 2)."""
    standard = b2a_base64(raw, newline=False)
    return standard.rstrip(b"=").replace(b"+", b"-").replace(b"/", b"_")


_PLUS, _SLASH, _EQUALS = b"+/="
_PADDING = (b"", b"", b"==", b"=")
"""The padding for a last group of this many characters."""
_LAST = (b"", b"", b"AQgw", b"AEIMQUYcgkosw048")
"""The characters that may end such a group: their unused bits are zero. None ends one of one."""


def _why(token: str) -> str:
    """Return the cause for the operator, without the text that caused it: it is the token's."""
    segments = token.encode("utf-8", "replace").split(b".", 3)
    if len(segments) != 3 or not all(segments):
        return "not three segments"
    if not token.isascii():
        return "not ascii"
    for name, segment in zip(("header", "payload", "signature"), segments, strict=True):
        try:
            decoded = decode_base64url(segment)
        except ValueError:
            return f"the {name} is not base64url in its only form"
        try:
            if name != "signature":
                loads_object(decoded)
        except ValueError as error:
            return f"the {name}: {str(error).partition(', at line ')[0]}"
    return "cannot be read"
