"""Claims as text, looking up a claim by its key, and showing a claim in a message."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.claims import lookup, pointer, shown, text

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("claim", "expected"),
    [
        pytest.param("main", "main", id="string"),
        pytest.param(" ", " ", id="blank"),
        pytest.param("\n", "\n", id="newline"),
        pytest.param(True, "true", id="true"),
        pytest.param(False, "false", id="false"),
        pytest.param(0, "0", id="zero"),
        pytest.param(1, "1", id="one"),
        pytest.param(-7, "-7", id="negative"),
        pytest.param(10**30, "1" + "0" * 30, id="large"),
        pytest.param(None, None, id="null"),
        pytest.param("", None, id="empty"),
        pytest.param(1.0, None, id="whole-float"),
        pytest.param(1.5, None, id="float"),
        pytest.param([], None, id="empty-list"),
        pytest.param(["main"], None, id="list"),
        pytest.param({}, None, id="empty-object"),
        pytest.param({"a": "main"}, None, id="object"),
    ],
)
def test_strings_integers_and_booleans_are_text_and_nothing_else_is(
    claim: object, expected: str | None
) -> None:
    assert text(claim) == expected


@pytest.mark.parametrize(
    ("path", "steps"),
    [
        pytest.param("/", ("",), id="the-empty-name"),
        pytest.param("/a", ("a",), id="one"),
        pytest.param("/a/b", ("a", "b"), id="two"),
        pytest.param("/a/", ("a", ""), id="trailing"),
        pytest.param("//", ("", ""), id="two-empty-names"),
        pytest.param("/a~1b", ("a/b",), id="slash"),
        pytest.param("/a~0b", ("a~b",), id="tilde"),
        pytest.param("/~01", ("~1",), id="tilde-then-one"),
        pytest.param("/~0~1~00", ("~/~0",), id="all"),
        pytest.param("/https:~1~1x#y", ("https://x#y",), id="a-url"),
    ],
)
def test_a_pointer_reads_as_rfc_6901_says(path: str, steps: tuple[str, ...]) -> None:
    assert pointer(path) == steps


@pytest.mark.parametrize("path", ["", "a", "a/b", "#/a", "/~", "/a~", "/a~2", "/~~0", "/a/~/b"])
def test_what_is_not_a_pointer_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(path)}$"):
        pointer(path)


NESTED = {
    "a": {"b": "deep", "": "nameless", "x/y": "slashed", "0": "zero", "n": None},
    "list": ["first", {"k": "inside"}, ["nested"]],
    "text": "word",
}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        pytest.param(("a", "b"), "deep", id="object"),
        pytest.param(("a", ""), "nameless", id="empty-name"),
        pytest.param(("a", "x/y"), "slashed", id="slash-in-name"),
        pytest.param(("a", "0"), "zero", id="digits-are-a-name-in-an-object"),
        pytest.param(("list", "0"), "first", id="index"),
        pytest.param(("list", "1", "k"), "inside", id="object-in-list"),
        pytest.param(("list", "2", "0"), "nested", id="list-in-list"),
        pytest.param(("list",), NESTED["list"], id="whole-list"),
        pytest.param(("list", "3"), None, id="beyond"),
        pytest.param(("list", "-1"), None, id="from-the-end"),
        pytest.param(("list", "-"), None, id="after-the-end"),
        pytest.param(("list", "00"), None, id="leading-zero"),
        pytest.param(("list", "01"), None, id="leading-zero-one"),
        pytest.param(("list", "+1"), None, id="sign"),
        pytest.param(("list", " 1"), None, id="blank"),
        pytest.param(("list", "1\n"), None, id="newline"),
        pytest.param(("list", "\u0661"), None, id="arabic-one"),
        pytest.param(("list", "1_0"), None, id="underscore"),
        pytest.param(("list", "9" * 5000), None, id="huge"),
        pytest.param(("list", ""), None, id="empty-index"),
        pytest.param(("list", "k"), None, id="name-in-list"),
        pytest.param(("text", "0"), None, id="into-a-string"),
        pytest.param(("a", "n", "x"), None, id="through-null"),
        pytest.param(("a", "gone", "x"), None, id="through-nothing"),
        pytest.param(("gone",), None, id="nothing"),
    ],
)
def test_a_lookup_finds_what_is_there_and_none_elsewhere(
    path: tuple[str, ...], expected: object
) -> None:
    assert lookup(NESTED, path) == expected


@pytest.mark.parametrize(
    ("claim", "expected"),
    [
        pytest.param("refs/heads/main", "refs/heads/main", id="plain"),
        pytest.param(None, "(absent)", id="absent"),
        pytest.param("", "(empty)", id="empty"),
        pytest.param(True, "true", id="boolean"),
        pytest.param(12, "12", id="integer"),
        pytest.param(1.5, "1.5", id="float"),
        pytest.param({"a": 1}, "(an object)", id="object"),
        pytest.param(["a", 1, True], "[a, 1, true]", id="list"),
        pytest.param([], "[]", id="empty-list"),
        pytest.param("a\nb", "a%0Ab", id="newline"),
        pytest.param("a\r\nb", "a%0D%0Ab", id="crlf"),
        pytest.param("a\tb\0", "a%09b%00", id="control"),
        pytest.param("\x1b[31mred", "%1B[31mred", id="terminal-escape"),
        pytest.param("\x7f\x9b2J", "%7F%C2%9B2J", id="delete-and-c1"),
        pytest.param('say "hi"', "say %22hi%22", id="quotes"),
        pytest.param("a\\nb", "a%5Cnb", id="backslash"),
        pytest.param("\u2028\u2029\x85", "%E2%80%A8%E2%80%A9%C2%85", id="other-line-ends"),
        pytest.param("\u202eevil", "%E2%80%AEevil", id="right-to-left"),
        pytest.param("é𝒳", "%C3%A9%F0%9D%92%B3", id="non-ascii"),
        pytest.param("\ud800x", "%3Fx", id="lone-surrogate"),
        pytest.param("\n::error::x", "%0A::error::x", id="workflow-command"),
        pytest.param("Production%3AV1", "Production%3AV1", id="percent-of-the-issuer"),
        pytest.param(["a\nb", '"'], "[a%0Ab, %22]", id="inside-a-list"),
        pytest.param([None, "", ["x"], {}], "[NoneType, str, list, dict]", id="textless-items"),
    ],
)
def test_a_claim_is_shown_so_that_it_can_inject_nothing(claim: object, expected: str) -> None:
    assert shown(claim) == expected


@given(JSON)
def test_a_shown_claim_is_one_line_that_an_error_description_may_hold(claim: object) -> None:
    assert re.fullmatch(r"[\x20\x21\x23-\x5b\x5d-\x7e]+", shown(claim))


def test_a_long_claim_is_cut_before_it_is_encoded() -> None:
    assert shown("x" * 200) == "x" * 200
    assert shown("x" * 16_384) == "x" * 200 + "..."
    assert shown("\U0001d4b3" * 16_384) == "%F0%9D%92%B3" * 200 + "..."
    assert len(shown(["x" * 100] * 100)) == 203
