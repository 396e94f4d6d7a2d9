"""Parsing a compact JWS: each token is read in exactly one way, or refused."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.errors import Reason, Refusal
from federation.jose.jws import MAX_TOKEN_BYTES, decode_base64url, parse
from federation.jose.strict_json import MAX_DEPTH, dumps, dumps_ascii, loads, loads_object
from tests.harness.issuer import base64url, compact

HEADER = {"alg": "RS256", "kid": "k1"}
CLAIMS = {"iss": "https://issuer.example", "sub": "someone", "groups": ["a", {"b": 1}]}


def token(header: object = HEADER, payload: object = CLAIMS, signature: bytes = b"sig") -> str:
    return compact(header, payload, lambda _: signature)


def refused(text: str) -> Refusal:
    with pytest.raises(Refusal) as caught:
        parse(text)
    return caught.value


def test_a_token_is_its_header_its_claims_and_what_was_signed() -> None:
    text = token()
    parsed = parse(text)
    assert parsed.header == HEADER
    assert parsed.claims == CLAIMS
    assert parsed.signing_input == text.rpartition(".")[0].encode()
    assert parsed.signature == b"sig"


def test_a_token_shows_its_header_and_nothing_else() -> None:
    assert repr(parse(token())) == f"Unverified(header={HEADER!r})"


def test_sixteen_kibibytes_are_accepted_and_one_byte_more_is_not() -> None:
    short = token(payload={"x": ""})
    filler = (MAX_TOKEN_BYTES - len(short)) * 3 // 4
    largest = next(
        candidate
        for length in range(filler + 3, filler - 3, -1)
        if len(candidate := token(payload={"x": "a" * length})) <= MAX_TOKEN_BYTES
    )
    assert parse(largest).claims["x"]
    assert refused("a" * (MAX_TOKEN_BYTES + 1)).reason is Reason.TOKEN_TOO_LARGE


GOOD = token()
FIRST, SECOND, THIRD = GOOD.split(".")


def trailing_bits(segment: str) -> str:
    """The same bytes, written with a bit set beyond the last of them."""
    assert len(segment) % 4
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return segment[:-1] + alphabet[alphabet.index(segment[-1]) ^ 1]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param(FIRST, id="one segment"),
        pytest.param(f"{FIRST}.{SECOND}", id="two segments"),
        pytest.param(f"{GOOD}.{THIRD}", id="four segments"),
        pytest.param(f"{FIRST}.{SECOND}.{THIRD}.{THIRD}.{THIRD}", id="five segments, as a JWE"),
        pytest.param("." * MAX_TOKEN_BYTES, id="only dots"),
        pytest.param(f".{SECOND}.{THIRD}", id="empty header"),
        pytest.param(f"{FIRST}..{THIRD}", id="empty payload, as detached content"),
        pytest.param(f"{FIRST}.{SECOND}.", id="empty signature"),
        pytest.param(f"{FIRST}=.{SECOND}.{THIRD}", id="padding in the header"),
        pytest.param(f"{GOOD}=", id="padding in the signature"),
        pytest.param(f" {GOOD}", id="space before"),
        pytest.param(f"{GOOD}\n", id="newline after"),
        pytest.param(f"{FIRST}.{SECOND[:4]} {SECOND[4:]}.{THIRD}", id="space within"),
        pytest.param(f"{FIRST}.{SECOND[:4]}*{SECOND[4:]}.{THIRD}", id="stray character within"),
        *(
            pytest.param(
                f"{GOOD[:at]}****{GOOD[at:]}", id=f"stray characters within segment {number}"
            )
            for number, at in enumerate((4, len(FIRST) + 5, len(GOOD) - 2))
        ),
        pytest.param(f"Bearer {GOOD}", id="scheme before"),
        pytest.param(f"{FIRST}.{SECOND}.+w", id="plain base64 with +"),
        pytest.param(f"{FIRST}.{SECOND}./w", id="plain base64 with /"),
        pytest.param(f"{FIRST}.{SECOND}.AAAAA", id="a length that nothing has"),
        pytest.param(f"{FIRST}.{SECOND}.{trailing_bits('c2ln' + 'c2k')}", id="trailing bits"),
        pytest.param(f"{FIRST}.{SECOND}.\u0441ln", id="a letter beyond ASCII"),
        pytest.param(f"{FIRST}.{SECOND}.\ud800", id="half a character"),
        pytest.param(json.dumps({"payload": SECOND, "signatures": []}), id="JSON serialization"),
    ],
)
def test_what_is_not_the_compact_form_is_refused(text: str) -> None:
    assert refused(text).reason is Reason.MALFORMED_TOKEN


BAD_OBJECTS = [
    pytest.param(b"", id="nothing"),
    pytest.param(b"{", id="cut off"),
    pytest.param(b"{} {}", id="two objects"),
    pytest.param(b'{"a":1,}', id="comma at the end"),
    pytest.param(b"{'a':1}", id="single quotes"),
    pytest.param(b'"text"', id="a string"),
    pytest.param(b'[{"a":1}]', id="a list"),
    pytest.param(b"null", id="null"),
    pytest.param(b"7", id="a number"),
    pytest.param(b'\xef\xbb\xbf{"a":1}', id="byte order mark"),
    pytest.param('{"a":1}'.encode("utf-16"), id="UTF-16"),
    pytest.param(b'{"a":"\xff"}', id="not UTF-8"),
    pytest.param(b'{"a":"\xc0\xaf"}', id="overlong UTF-8"),
    pytest.param(b'{"a":"\xed\xa0\x80"}', id="surrogate in UTF-8"),
    pytest.param(b'{"a":"\\ud800"}', id="escaped half of a pair"),
    pytest.param(b'{"a":["x",{"\\uDFFF":1}]}', id="escaped half of a pair in a name, inside"),
    pytest.param(b'{"a":"\\udc00\\ud800"}', id="pair in the wrong order"),
    pytest.param(b'{"a":"\n"}', id="control character in a string"),
    pytest.param(b'{"iss":"a","iss":"b"}', id="member twice"),
    pytest.param(b'{"iss":"a","\\u0069ss":"b"}', id="member twice, once escaped"),
    pytest.param(b'{"a":{"b":1,"b":1}}', id="member twice, inside"),
    pytest.param(b'{"a":[{"b":1,"b":1}]}', id="member twice, in a list"),
    pytest.param(b'{"a":NaN}', id="NaN"),
    pytest.param(b'{"a":Infinity}', id="Infinity"),
    pytest.param(b'{"a":-Infinity}', id="-Infinity"),
    pytest.param(b'{"a":1e999}', id="a number that overflows"),
    pytest.param(b'{"a":-1e999}', id="a number that overflows below"),
    pytest.param(b'{"a":01}', id="leading zero"),
    pytest.param(b'{"a":' + b"9" * 65 + b"}", id="65 digits"),
    pytest.param(b'{"a":' + b"9" * 5000 + b"}", id="5000 digits, more than Python converts"),
    pytest.param(b'{"a":0.' + b"9" * 65 + b"}", id="65 digits after the point"),
    pytest.param(b'{"a":' * (MAX_DEPTH + 1) + b"1" + b"}" * (MAX_DEPTH + 1), id="too deep"),
    pytest.param(b'{"a":' + b"[" * 6000 + b"]" * 6000 + b"}", id="deeper than the stack"),
    pytest.param(b'{"a":' + b"[" * 11000, id="deep and never closed"),
]


@pytest.mark.parametrize("data", BAD_OBJECTS)
def test_what_is_not_one_plain_json_object_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        loads_object(data)
    if data:
        assert refused(token(payload=data)).reason is Reason.MALFORMED_TOKEN
        assert refused(token(header=data)).reason is Reason.MALFORMED_TOKEN


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"{}", {}),
        (b' {"a" : [1, -2.5e3, true, null] } \n', {"a": [1, -2500.0, True, None]}),
        ('{"k":"\u212a"}'.encode(), {"k": "\u212a"}),
        (b'{"a":"\\ud83d\\ude00"}', {"a": "\U0001f600"}),
        (b'{"a":"\\\\ud800"}', {"a": "\\ud800"}),
        (b'{"a":"\\u0000"}', {"a": "\0"}),
        (b'{"A":1,"a":2}', {"A": 1, "a": 2}),
    ],
    ids=["empty", "spaces and kinds", "UTF-8", "pair", "escaped backslash", "NUL", "case"],
)
def test_plain_json_is_accepted(data: bytes, value: object) -> None:
    assert loads_object(data) == value


def nested(depth: int, opening: bytes, closing: bytes) -> bytes:
    """One object that holds *depth* - 1 more levels."""
    return b'{"a":' + opening * (depth - 1) + b"1" + closing * (depth - 1) + b"}"


@pytest.mark.parametrize(
    ("opening", "closing"),
    [
        pytest.param(b"[", b"]", id="lists, compact"),
        pytest.param(b"[ ", b" ]", id="lists, spaced"),
        pytest.param(b'{"a":', b"}", id="objects, compact"),
        pytest.param(b'{"a": ', b" }", id="objects, spaced"),
        pytest.param(b"[1, ", b"]", id="lists after numbers"),
    ],
)
def test_objects_and_lists_are_nested_at_most_32_deep(opening: bytes, closing: bytes) -> None:
    assert loads_object(nested(32, opening, closing))
    assert loads_object(b'{"b":[],' + nested(32, opening, closing)[1:]), "beside others"
    with pytest.raises(ValueError, match="nested too deeply"):
        loads_object(nested(33, opening, closing))


@pytest.mark.parametrize("spaced", [b"", b" "], ids=["compact", "spaced"])
def test_numbers_have_at_most_64_characters(spaced: bytes) -> None:
    digits, fraction = b"9" * 64, b"0." + b"9" * 62
    data = b'{"a":' + spaced + b"[%s,%s]}"
    assert loads_object(data % (digits, fraction)) == {"a": [10**64 - 1, 1.0]}
    for longer in (data % (digits + b"9", fraction), data % (digits, fraction + b"9")):
        with pytest.raises(ValueError, match="a number is too long"):
            loads_object(longer)


def test_the_nesting_of_objects_is_limited_but_not_their_number() -> None:
    assert loads_object(b'{"a":' * MAX_DEPTH + b"1" + b"}" * MAX_DEPTH)
    assert loads_object(b'{"a":[' + b",".join([b"{}"] * 500) + b"]}")


def test_a_refusal_says_what_was_wrong_but_never_the_token() -> None:
    for bad in (b'{"secret-secret', b'{"secret":NaN}', b'{"secret":"\xff"}'):
        refusal = refused(token(payload=bad))
        assert refusal.public == Reason.MALFORMED_TOKEN.sentence
        assert refusal.evidence["why"]
        assert "secret" not in str(refusal)
        assert base64url(bad) not in str(refusal)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (f"{GOOD}\n", "a line end at its end"),
        (f"{GOOD}\r\n", "a line end at its end"),
        (f"{GOOD}\r", "a line end at its end"),
        (f"Bearer {GOOD}", "begins with Bearer"),
        (f"bearer {GOOD}\n", "begins with Bearer"),
        (f"Authorization: Bearer {GOOD}", "begins with Bearer"),
        (json.dumps({"value": GOOD, "count": 1}), "a JSON object; send only the token in it"),
        (json.dumps([GOOD]), "a JSON object"),
        ('{"iss": "https://ci.example", "sub": "s"}', "the claims of a token as JSON"),
        ("", "It is empty"),
        (" \n", "It is empty"),
        (f'"{GOOD}"', "in quotes"),
        (f"'{GOOD}'\n", "in quotes"),
        (f" {GOOD}", "white space at an end"),
        (f"{GOOD[:40]}\n{GOOD[40:]}", "white space or a line end within"),
        ("null", "a word that programs print"),
        ("undefined\n", "a word that programs print"),
        ("$ACTIONS_ID_TOKEN", "a variable that nobody filled"),
        ("${{ env.TOKEN }}", "a variable that nobody filled"),
        ("{{ .Values.token }}", "a variable that nobody filled"),
        ("<your token>", "a variable that nobody filled"),
        ("<!DOCTYPE html><html><body>Sign in</body></html>", "HTML or XML"),
        ("HTTP/1.1 200 OK\r\n\r\n{}", "a whole HTTP answer"),
        ("-----BEGIN PRIVATE KEY-----\nMIIE", "in PEM"),
        ("ghs_16C7e42F292c6912E7710c838347Ae178B4a", "an API token"),
        ("glcbt-64_ZzDwzzzzzzzzzzzzzzzzz", "an API token"),
        ("0123456789abcdef", "no dots"),
        (f"{GOOD}.a.b", "five parts"),
        (f"{FIRST}.{SECOND}", "2 parts with dots"),
        (f"{FIRST}.{SECOND}.", "One of its three parts is empty"),
        (f"{FIRST}.{SECOND}.c2k=", "not base64url"),
    ],
)
def test_a_usual_mistake_is_named_and_nothing_of_the_token_is(text: str, told: str) -> None:
    refusal = refused(text)
    assert refusal.reason is Reason.MALFORMED_TOKEN
    assert refusal.public.startswith(Reason.MALFORMED_TOKEN.sentence)
    assert told in refusal.public
    assert not any(part in refusal.public for part in GOOD.split("."))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        pytest.param("\u0441" + GOOD, "not ascii", id="a letter beyond ASCII"),
        pytest.param(token(payload=b'{"secret":"\xff"}'), "the payload: not utf-8", id="a byte beyond UTF-8"),
        pytest.param(FIRST, "not three segments", id="one segment"),
        pytest.param(f"{GOOD}.{THIRD}", "not three segments", id="four segments"),
        pytest.param(f"{FIRST}.{SECOND}.{trailing_bits('c2k')}", "the signature is not base64url in its only form",
                     id="trailing bits"),
        pytest.param(f"{GOOD}=", "the signature is not base64url in its only form", id="padding"),
        pytest.param(token(payload=b"[1]"), "the payload: not an object", id="a list"),
        pytest.param(token(payload=b'{"a":1,"a":2}'), "the payload: a member stands twice in one object",
                     id="a member twice"),
        pytest.param(token(payload=b'{"a":NaN}'), "the payload: NaN is not JSON", id="NaN"),
        pytest.param(token(payload=b'{"a":1e999}'), "the payload: a number is too long or too large",
                     id="infinity"),
    ],
)  # fmt: skip
def test_the_evidence_of_a_refusal_is_exactly_the_cause(text: str, why: str) -> None:
    assert refused(text).evidence == {"why": why}


def test_the_evidence_of_a_token_that_is_too_large_is_its_length() -> None:
    refusal = refused("a" * (16 * 1024 + 1))
    assert refusal.reason is Reason.TOKEN_TOO_LARGE
    assert refusal.evidence == {"chars": 16 * 1024 + 1}
    assert refused("a" * 16 * 1024).reason is Reason.MALFORMED_TOKEN


def test_written_json_is_one_line_of_ascii_if_it_is_asked_for() -> None:
    value = {"b": "\u2028\u00e9\U0001f680\n", "a": [1, None]}
    line = dumps_ascii(value)
    assert line == b'{"b":"\\u2028\\u00e9\\ud83d\\ude80\\n","a":[1,null]}'
    assert loads(line) == value
    assert dumps(value).decode() == '{"b":"\u2028\u00e9\U0001f680\\n","a":[1,null]}'


def test_numbers_beyond_64_bits_are_written_as_they_are() -> None:
    value = {"n": 2**64, "m": [-(2**64), 1]}
    for written in (dumps(value), dumps_ascii(value)):
        assert written == b'{"n":18446744073709551616,"m":[-18446744073709551616,1]}'
    assert dumps({"\u00e9": 2**64}) == '{"\u00e9":18446744073709551616}'.encode()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=5), json_values, max_size=5))
def test_every_object_that_can_be_written_is_read_back(claims: dict[str, object]) -> None:
    assert parse(token(payload=claims)).claims == claims


@given(st.binary(max_size=80), st.binary(max_size=80))
def test_any_bytes_are_parsed_or_refused(header: bytes, payload: bytes) -> None:
    with suppress(Refusal):
        assert parse(token(header=header, payload=payload)).signature == b"sig"


@given(st.text(max_size=60))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    assert refused(text).reason is Reason.MALFORMED_TOKEN


def naively_loaded(data: bytes) -> object:
    """The standard library's reading, with each object's members counted."""

    def members(pairs: list[tuple[str, object]]) -> dict[str, object]:
        if len(dict(pairs)) != len(pairs):
            raise ValueError("a member twice")
        return dict(pairs)

    def number(digits: str) -> float:
        if not math.isfinite(float(digits)):
            raise ValueError("no number")
        return float(digits)

    return json.loads(data.decode(), object_pairs_hook=members, parse_float=number)


def naively_decoded(segment: bytes) -> bytes:
    """The standard library's decoding, if encoding gives the same text again."""
    decoded = base64.urlsafe_b64decode(segment + b"=" * (-len(segment) % 4))
    if base64.urlsafe_b64encode(decoded).rstrip(b"=") != segment:
        raise ValueError("another encoding")
    return decoded


def outcome(read: Callable[[bytes], object], data: bytes) -> str:
    """The result of *read* with its types, as text, or `refused`."""
    try:
        return repr(read(data))
    except ValueError:
        return "refused"


scalars = st.sampled_from(
    [
        *("1", "-0", "0.0", "1.0", "1e2", "1E2", "0.1", "01", "1e400", "true", "null"),
        *("10000000000000000001", "18446744073709551616", "-9223372036854775809"),
        *('""', '"a"', r'"\u0061"', r'"\/"', '"/"', r'"\ud83d\ude00"', r'"\n"'),
        *('"\u00e9"', '"\x7f"', '"\u2028"'),
    ]
)
names = st.sampled_from(['"a"', '"b"', '"\\u0061"', '""', '"\u00e9"'])
texts = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{','.join(items)}]")
        | st.lists(st.tuples(names, inner).map(":".join), max_size=3).map(
            lambda members: "{" + ",".join(members) + "}"
        )
    ),
    max_leaves=8,
)


@given(texts, st.sampled_from(["", " "]))
def test_json_is_read_as_a_naive_reader_reads_it(text: str, space: str) -> None:
    data = (text + space).encode()
    assert outcome(loads, data) == outcome(naively_loaded, data)


@given(st.binary(max_size=40), st.integers(0, 60), st.sampled_from([*b"+/=-_AQgw. \n\xff"]))
def test_base64url_is_read_as_a_naive_reader_reads_it(raw: bytes, place: int, stray: int) -> None:
    segment = bytearray(base64url(raw).encode())
    assert decode_base64url(bytes(segment)) == raw
    segment[place : place + 1] = bytes([stray])
    assert outcome(decode_base64url, bytes(segment)) == outcome(naively_decoded, bytes(segment))
