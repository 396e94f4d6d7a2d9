"""
A token taken apart, once and strictly, before anything in it is believed.

The compact form of RFC 7515 has many loose readings: padding, stray characters, bits beyond
the last byte, members that stand twice. Each lets two programs see two tokens in one text, so
each is refused. Nothing here says that a token is good.
"""

from __future__ import annotations

from binascii import a2b_base64, b2a_base64
from collections.abc import Mapping
from dataclasses import dataclass, field

from federation.claims import UnverifiedClaims
from federation.errors import Reason, Refusal
from federation.jose.strict_json import loads_object

__all__ = ["MAX_TOKEN_BYTES", "Unverified", "decode_base64url", "encode_base64url", "parse"]

MAX_TOKEN_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class Unverified:
    """What a token says of itself."""

    header: Mapping[str, object]
    claims: UnverifiedClaims = field(repr=False)
    signing_input: bytes = field(repr=False)
    signature: bytes = field(repr=False)


def parse(token: str) -> Unverified:
    """
    *token* taken apart: three segments, two of them JSON objects, nothing verified.

    Raises: Refusal with `token_too_large` or `malformed_token`.
    """
    if len(token) > MAX_TOKEN_BYTES:
        raise Refusal(Reason.TOKEN_TOO_LARGE, evidence={"chars": len(token)})
    try:
        return _parts(token.encode("ascii"))
    except ValueError as error:
        raise Refusal(Reason.MALFORMED_TOKEN, evidence={"why": _why(error)}) from None


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
    The bytes that *segment* encodes (RFC 7515, section 2), if it is their only encoding.

    Raises: ValueError.
    """
    if b"+" in segment or b"/" in segment or b"=" in segment:
        raise ValueError("not base64url in its only form")
    beyond = len(segment) % 4
    standard = segment.replace(b"-", b"+").replace(b"_", b"/") + _PADDING[beyond]
    decoded = a2b_base64(standard, strict_mode=True)
    # The last characters hold bits beyond the last byte; the decoder takes them whatever they are.
    if beyond and encode_base64url(decoded[1 - beyond :]) != segment[-beyond:]:
        raise ValueError("not base64url in its only form")
    return decoded


def encode_base64url(raw: bytes) -> bytes:
    """*raw* in base64url without padding (RFC 7515, section 2)."""
    standard = b2a_base64(raw, newline=False)
    return standard.rstrip(b"=").replace(b"+", b"-").replace(b"/", b"_")


_PADDING = (b"", b"===", b"==", b"=")
"""What standard base64 has behind a last group of so many characters; one alone is an error."""


def _why(error: ValueError) -> str:
    """What was wrong, without the text that was wrong: it is a part of the token."""
    if isinstance(error, UnicodeDecodeError | UnicodeEncodeError):
        return f"not {error.encoding}"
    return str(error).partition(": line ")[0]
