"""Text from outside, made safe to show."""

from __future__ import annotations

import pytest
import yaml

from federation.text import did_you_mean, nearest, oauth_safe, printable, quoted

HOSTILE = ["a\x1b[31m", "two\nlines", "\u202ereversed", "zero\u200bwidth", "\ud800", "\x00"]


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_what_is_shown_is_one_printable_line(text: str) -> None:
    for shown in (printable(text), quoted(text), oauth_safe(text)):
        assert shown.isprintable()


def test_quoted_text_is_short_and_harmless() -> None:
    assert quoted("a\x1b[31m\u202eb\n") == '"a\\x1b[31m\\u202eb\\n"'
    assert len(quoted("x" * 1000)) <= 82
    assert len(quoted("\x00" * 1000)) <= 82


@pytest.mark.parametrize("text", ["plain", 'with "quotes"', "back\\slash", "tab\t", "é", "\u200b"])
def test_quoted_text_can_be_pasted_into_a_document(text: str) -> None:
    assert yaml.safe_load(quoted(text)) == text


def test_text_within_its_limit_is_whole_and_beyond_it_is_cut() -> None:
    assert printable("x" * 10, 10) == "x" * 10
    assert printable("x" * 11, 10) == "x" * 7 + "..."


def test_an_oauth_description_holds_nothing_but_what_rfc_6749_allows() -> None:
    assert oauth_safe('a"b\\c é') == "a%22b%5Cc %C3%A9"
    assert oauth_safe("x" * 300) == "x" * 200 + "..."


def test_a_near_word_is_suggested_and_a_far_one_is_not() -> None:
    assert nearest("Function:Creat", ["Function:Create", "Secret:List"]) == "Function:Create"
    assert nearest("zzz", ["Function:Create"]) is None
    assert nearest("x" * 10_000, ["x" * 9_999]) is None
    assert did_you_mean("polcy", ["policy"]) == "did you mean policy?"
    assert did_you_mean("zzz", ["policy", "principal"]) == "known here: policy, principal"
