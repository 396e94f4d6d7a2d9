"""Condition blocks: operators, patterns, keys, and claims that are absent."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.claims import Claims
from federation.policy.conditions import (
    ALIASES,
    PATTERN_CHARS,
    Condition,
    Operator,
    ascii_lower,
    compile_pattern,
    findings,
    holds,
)
from tests.harness import second_evaluator as naive
from tests.harness.builders import conditions

OF_LIST = (Operator.ANY_STRING_EQUAL, Operator.ANY_STRING_LIKE)
NEGATIVE = (Operator.STRING_NOT_EQUAL, Operator.STRING_NOT_LIKE)
POSITIVE = tuple(op for op in Operator if op not in OF_LIST + NEGATIVE)
SCALAR = POSITIVE + NEGATIVE

KELVIN = "\u212a"
LONG_S = "\u017f"


def satisfied(operator: Operator, claim: object, *values: str) -> bool:
    return Condition(operator, "jwt:c", values).satisfied(Claims({"c": claim}))


TEXTLESS = [
    pytest.param({}, id="missing"),
    pytest.param({"c": None}, id="null"),
    pytest.param({"c": ""}, id="empty"),
    pytest.param({"c": []}, id="empty-list"),
    pytest.param({"c": ["x"]}, id="list"),
    pytest.param({"c": {}}, id="empty-object"),
    pytest.param({"c": {"x": "x"}}, id="object"),
    pytest.param({"c": 1.0}, id="float"),
    pytest.param({"c": float("inf")}, id="infinity"),
]
EVERYTHING = ("*", "", "x", "1", "1.0", "None", "null", "[]", "{}", "inf", "?", "**")


@pytest.mark.parametrize("operator", SCALAR)
@pytest.mark.parametrize("claims", TEXTLESS)
def test_a_claim_without_text_matches_no_scalar_operator(
    operator: Operator, claims: dict[str, object]
) -> None:
    assert not Condition(operator, "jwt:c", EVERYTHING).satisfied(Claims(claims))
    # With one value too: an absent claim must not satisfy `StringNotEqual` to that value.
    assert not Condition(operator, "jwt:c", ("other",)).satisfied(Claims(claims))


@pytest.mark.parametrize("operator", OF_LIST)
@pytest.mark.parametrize(
    "claims",
    [
        pytest.param({}, id="missing"),
        *(
            pytest.param({"c": claim}, id=repr(claim))
            for claim in (None, "", "x", "*", 1, True, 1.0, {}, {"x": "x"}, [], [""])
        ),
        pytest.param({"c": [None, 1, True, 1.0, ["x"], {"x": "x"}]}, id="a-list-without-strings"),
    ],
)
def test_for_any_value_takes_only_a_list_with_a_string_in_it(
    operator: Operator, claims: dict[str, object]
) -> None:
    assert not Condition(operator, "jwt:c", (*EVERYTHING, "true")).satisfied(Claims(claims))


def test_for_any_value_ignores_members_that_are_not_strings() -> None:
    assert satisfied(Operator.ANY_STRING_EQUAL, [None, 1, "", "ops"], "dev", "ops")
    assert satisfied(Operator.ANY_STRING_LIKE, [None, 1, "", "ops/eu"], "ops/*")
    assert not satisfied(Operator.ANY_STRING_EQUAL, ["ops/eu"], "ops/*")
    assert not satisfied(Operator.ANY_STRING_LIKE, ["OPS/eu", "xops/eu"], "ops/*")


@pytest.mark.parametrize(
    ("claim", "value", "expected"),
    [
        pytest.param(True, "true", True, id="true"),
        pytest.param(False, "false", True, id="false"),
        pytest.param("true", "true", True, id="text-of-true"),
        pytest.param(True, "True", False, id="true-is-lower-case"),
        pytest.param(True, "1", False, id="true-is-not-one"),
        pytest.param(1, "true", False, id="one-is-not-true"),
        pytest.param(False, "0", False, id="false-is-not-zero"),
        pytest.param(0, "0", True, id="zero-is-present"),
        pytest.param(0, "false", False, id="zero-is-not-false"),
        pytest.param(12270831, "12270831", True, id="integer"),
        pytest.param(12270831, "012270831", False, id="leading-zero"),
        pytest.param(-1, "-1", True, id="negative-integer"),
        pytest.param(1.0, "1", False, id="float"),
        pytest.param("a", "A", False, id="case"),
        pytest.param("a ", "a", False, id="blank"),
        pytest.param("a\n", "a", False, id="newline"),
        pytest.param("\u00e9", "e\u0301", False, id="composed-and-decomposed"),
        pytest.param("*", "*", True, id="a-star-is-itself"),
        pytest.param("anything", "*", False, id="a-star-is-only-itself"),
    ],
)
@pytest.mark.parametrize("operator", [Operator.PRINCIPAL, Operator.STRING_EQUAL])
def test_equal_compares_the_claims_text_byte_for_byte(
    operator: Operator, claim: object, value: str, expected: bool
) -> None:
    assert satisfied(operator, claim, value) is expected
    assert satisfied(operator, claim, "other", value) is expected
    if not isinstance(claim, float):
        assert satisfied(Operator.STRING_NOT_EQUAL, claim, value) is not expected


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        pytest.param("Acme/App", "acme/aPP", True, id="ascii"),
        pytest.param("AZ[@`{", "az[@`{", True, id="the-edges"),
        pytest.param("[", "{", False, id="beyond-z"),
        pytest.param("@", "`", False, id="before-a"),
        pytest.param("k", KELVIN, False, id="kelvin-k"),
        pytest.param("K", KELVIN, False, id="kelvin-K"),
        pytest.param("s", LONG_S, False, id="long-s"),
        pytest.param("S", LONG_S, False, id="long-S"),
        pytest.param("\u00e9", "\u00c9", False, id="e-acute"),
        pytest.param("\u00e9A", "\u00e9a", True, id="ascii-beside-others"),
        pytest.param("i", "\u0130", False, id="dotted-i"),
        pytest.param("i", "\u0131", False, id="dotless-i"),
        pytest.param("ss", "\u00df", False, id="sharp-s"),
        pytest.param("SS", "\u00df", False, id="sharp-S"),
        pytest.param("fi", "\ufb01", False, id="ligature"),
        pytest.param("\u03c3", "\u03c2", False, id="sigma"),
    ],
)
def test_ignoring_case_affects_ascii_letters_only(one: str, other: str, expected: bool) -> None:
    assert satisfied(Operator.STRING_EQUAL_IGNORE_CASE, one, other) is expected
    assert satisfied(Operator.STRING_EQUAL_IGNORE_CASE, other, one) is expected


@given(st.text(), st.text())
def test_ascii_lower_changes_only_a_to_z(one: str, other: str) -> None:
    assert naive.equal_but_for_case(one, ascii_lower(one))
    assert (ascii_lower(one) == ascii_lower(other)) == naive.equal_but_for_case(one, other)


MATCHES = [
    ("*", "a"),
    ("*", "a/b:c\nd"),
    ("**", "a"),
    ("*", ""),
    ("", ""),
    ("a*", "a"),
    ("*a", "a"),
    ("*a*", "a"),
    ("a**b", "ab"),
    ("a*b", "a/x:y\n\r\u2028b"),
    ("refs/heads/*", "refs/heads/a/b"),
    ("?", "\n"),
    ("?", "\U0001d4b3"),
    ("??", "e\u0301"),
    ("a?c", "a/c"),
    ("*?", "a"),
    ("?*", "a"),
    ("?*?", "ab"),
    ("*?*?*", "ab"),
    ("a*?b", "axxb"),
    ("ab*ba", "abba"),
    ("ab*ba", "abxba"),
    ("a*b*c", "abbc"),
    ("a*ab", "aab"),
    ("*ab*ab*", "xabyabz"),
    ("*a?c*e", "abaccde"),
    ("a.c", "a.c"),
    ("[ab]", "[ab]"),
    ("a\\*", "a\\xyz"),
    ("*\\?*", "a\\xb"),
    ("^a$", "^a$"),
    ("(a|b)+", "(a|b)+"),
    ("*.?[x", "aa..[x"),
    ("*a?b*", "xa\nby"),
    ("*\ud800*", "a\ud800b"),
]
REFUSES = [
    ("", "a"),
    ("a", "ab"),
    ("a", "ba"),
    ("a*", "ba"),
    ("*a", "ab"),
    ("A*", "abc"),
    ("?", ""),
    ("?", "ab"),
    ("?", "e\u0301"),
    ("??", "\U0001d4b3"),
    ("a?", "a"),
    ("?*?", "a"),
    ("a*?b", "ab"),
    ("ab*ba", "aba"),
    ("ab*ab", "ab"),
    ("aa*aa", "aaa"),
    ("a?*?a", "aaa"),
    ("a*b*c", "acb"),
    ("*ab*ab*", "xaby"),
    ("*aba*ba", "xaba"),
    ("*ab*b*", "abxx"),
    ("*b*b*a", "baa"),
    ("a.c", "abc"),
    ("[ab]", "a"),
    ("a\\*", "a*"),
    ("a\n", "a"),
    ("a", "a\n"),
    ("refs/heads/main", "refs/heads/main\n"),
    ("acme/*", "acme-evil/app"),
    ("k*", KELVIN),
    ("repo:acme/*:ref:refs/heads/main", "repo:acme/app:environment:a%3Aref%3Arefs/heads/main"),
]


@pytest.mark.parametrize(
    ("pattern", "value", "expected"),
    [(p, v, True) for p, v in MATCHES] + [(p, v, False) for p, v in REFUSES],
    ids=ascii,
)
def test_a_pattern_matches_whole_values(pattern: str, value: str, expected: bool) -> None:
    assert compile_pattern(pattern)(value) is expected
    assert naive.like(pattern, value) is expected
    if value:
        assert satisfied(Operator.STRING_LIKE, value, pattern) is expected
        assert satisfied(Operator.STRING_NOT_LIKE, value, pattern) is not expected
        assert satisfied(Operator.ANY_STRING_LIKE, [value], pattern) is expected


@given(st.text("ab*?", max_size=9), st.text("ab", max_size=14))
def test_a_pattern_agrees_with_the_naive_definition(pattern: str, value: str) -> None:
    assert compile_pattern(pattern)(value) == naive.like(pattern, value)


@given(st.text("ab\\.[?", min_size=1, max_size=4), st.text("ab\\.[x", max_size=12))
def test_a_piece_between_stars_is_literal_except_for_its_question_marks(
    piece: str, value: str
) -> None:
    assert compile_pattern(f"*{piece}*")(value) == naive.like(f"*{piece}*", value)


def best_of(many: int, call: Callable[[], object]) -> float:
    """The processor's seconds for the fastest of *many* calls, however busy the machine is."""
    times = []
    for _ in range(many):
        started = time.thread_time()
        call()
        times.append(time.thread_time() - started)
    return min(times)


CLAIM_CHARS = 16_384


@pytest.mark.parametrize(
    ("pattern", "value"),
    [
        pytest.param("a*" * 60 + "b", "a" * CLAIM_CHARS, id="sixty-stars"),
        pytest.param("*a" * 60 + "*b*", "a" * CLAIM_CHARS, id="sixty-stars-open-end"),
        pytest.param("a*a*a*b", "a" * CLAIM_CHARS, id="three-stars"),
        pytest.param("*a*a*a*b*", "a" * CLAIM_CHARS, id="three-stars-open-end"),
        pytest.param("*" + "ab" * 20 + "c*", "ab" * (CLAIM_CHARS // 2), id="almost-everywhere"),
        pytest.param("*" + "a" * 250 + "b" + "a" * 250 + "*", ("a" * 499 + "c") * 32, id="long"),
        pytest.param("*" + "a?b*" * 60 + "c*", "ab" * (CLAIM_CHARS // 2), id="sixty-marks"),
        pytest.param("*a?a?a?b*", "a" * CLAIM_CHARS, id="marks-in-one-piece"),
        pytest.param("*?" * 60 + "b*", "a" * CLAIM_CHARS, id="stars-and-marks"),
        pytest.param("?" * 60 + "*" + "?" * 60 + "b", "a" * CLAIM_CHARS, id="marks-at-the-ends"),
        pytest.param("*" + "?" * 100 + "b*", "a" * CLAIM_CHARS, id="marks-then-a-letter"),
        pytest.param("?" * 1000, "a" * CLAIM_CHARS, id="marks-alone"),
    ],
)
def test_a_pattern_is_matched_against_16_kib_in_under_10_ms(pattern: str, value: str) -> None:
    matches = compile_pattern(pattern)
    assert not matches(value)
    assert best_of(5, lambda: matches(value)) < 0.010


@pytest.mark.parametrize("piece", ["a?", "?a", "??"])
def test_the_longest_pattern_of_question_marks_takes_at_most_pattern_times_value(
    piece: str,
) -> None:
    assert PATTERN_CHARS == 1024
    matches = compile_pattern("*" + piece * (PATTERN_CHARS // 2 - 2) + "b*")
    assert not matches("a" * CLAIM_CHARS)
    assert best_of(3, lambda: matches("a" * CLAIM_CHARS)) < 0.2


def test_operators_and_keys_are_anded_and_values_ored() -> None:
    block = conditions(
        {
            "StringEqual": {"jwt:a": ["1", "2"], "jwt:b": "x"},
            "StringLike": {"jwt:a": ["2*", "3*"]},
        }
    )
    assert holds(block, Claims({"a": "2", "b": "x"}))
    assert not holds(block, Claims({"a": "1", "b": "x"}))
    assert not holds(block, Claims({"a": "2", "b": "y"}))
    assert not holds(block, Claims({"a": "2"}))


def test_a_negative_operator_excludes_all_of_its_values() -> None:
    assert satisfied(Operator.STRING_NOT_EQUAL, "c", "a", "b")
    assert not satisfied(Operator.STRING_NOT_EQUAL, "b", "a", "b")
    assert satisfied(Operator.STRING_NOT_LIKE, "main", "release/*", "v*")
    assert not satisfied(Operator.STRING_NOT_LIKE, "v1", "release/*", "v*")


@pytest.mark.parametrize(
    ("key", "claims"),
    [
        pytest.param("jwt:ref", {"ref": "v"}, id="plain"),
        pytest.param("jwt:https://x.example/a#b:c", {"https://x.example/a#b:c": "v"}, id="a-url"),
        pytest.param("jwt:a:b", {"a:b": "v"}, id="colon"),
        pytest.param("jwt:a/b", {"a/b": "v", "a": {"b": "w"}}, id="slash-inside"),
        pytest.param("jwt:a~1b", {"a~1b": "v", "a/b": "w"}, id="no-escapes-without-a-pointer"),
        pytest.param("jwt:jwt:a", {"jwt:a": "v", "a": "w"}, id="prefix-twice"),
        pytest.param("jwt: ref", {" ref": "v", "ref": "w"}, id="blank"),
        pytest.param("jwt:/a/b", {"a": {"b": "v"}, "/a/b": "w"}, id="pointer"),
        pytest.param("jwt:/a", {"a": "v", "/a": "w"}, id="pointer-of-one"),
        pytest.param("jwt:/a~1b/c~0d", {"a/b": {"c~d": "v"}}, id="escapes"),
        pytest.param("jwt:/a/1", {"a": ["w", "v"]}, id="index"),
        pytest.param("jwt:/", {"": "v"}, id="the-empty-name"),
        pytest.param("jwt:/a/", {"a": {"": "v"}}, id="the-empty-name-inside"),
    ],
)
def test_a_key_names_exactly_one_claim(key: str, claims: dict[str, object]) -> None:
    assert Condition(Operator.STRING_EQUAL, key, ("v",)).satisfied(Claims(claims))


@pytest.mark.parametrize(
    ("key", "claims"),
    [
        pytest.param("jwt:/a/0", {"a": "v"}, id="index-of-a-string"),
        pytest.param("jwt:/a/00", {"a": ["v"]}, id="leading-zero"),
        pytest.param("jwt:/a/-1", {"a": ["v"]}, id="from-the-end"),
        pytest.param("jwt:/a/b", {"a": [{"b": "v"}]}, id="through-a-list"),
        pytest.param("jwt:/a/b", {"a/b": "v"}, id="slash-in-a-name"),
        pytest.param("jwt:REF", {"ref": "v"}, id="case"),
    ],
)
def test_a_key_names_nothing_else(key: str, claims: dict[str, object]) -> None:
    for operator in (Operator.STRING_EQUAL, Operator.STRING_NOT_EQUAL):
        for value in ("v", "other"):
            assert not Condition(operator, key, (value,)).satisfied(Claims(claims))


@pytest.mark.parametrize(
    "key", ["", "ref", "jwt:", "JWT:ref", "jwt", " jwt:ref", "jwt:/~", "aws:x"]
)
def test_a_key_without_prefix_or_with_a_broken_pointer_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match=re.escape(key.removeprefix("jwt:")) + "$"):
        Condition(Operator.STRING_EQUAL, key, ("v",))


def test_a_finding_holds_the_claim_and_the_verdict() -> None:
    block = conditions({"StringEqual": {"jwt:a": "1", "jwt:/n/x": "y", "jwt:gone": "z"}})
    found = findings(block, Claims({"a": 1, "n": {"x": ["y"]}}))
    assert [(f.condition.key, f.claim, f.holds) for f in found] == [
        ("jwt:a", 1, True),
        ("jwt:/n/x", ["y"], False),
        ("jwt:gone", None, False),
    ]


@pytest.mark.parametrize("operator", OF_LIST)
@pytest.mark.parametrize("value", ["", "a", "A", "ab", "*"])
def test_a_list_condition_accepts_the_text_that_it_accepts_in_a_list(
    operator: Operator, value: str
) -> None:
    condition = Condition(operator, "jwt:c", ("a*", "a"))
    assert condition.accepts(value) == condition.satisfied(Claims({"c": [value]}))


def test_a_condition_shows_what_its_document_says_and_nothing_else() -> None:
    condition = Condition(Operator.STRING_EQUAL, "jwt:c", ("a",))
    assert repr(condition) == (
        "Condition(operator=<Operator.STRING_EQUAL: 'StringEqual'>, key='jwt:c', values=('a',))"
    )
    assert condition == Condition(Operator.STRING_EQUAL, "jwt:c", ("a",))


@pytest.mark.parametrize("operator", SCALAR)
@pytest.mark.parametrize("value", ["", "a", "A", "ab", "*"])
def test_accepts_agrees_with_satisfied_for_a_token_with_that_text(
    operator: Operator, value: str
) -> None:
    condition = Condition(operator, "jwt:c", ("a*", "a"))
    assert condition.accepts(value) == condition.satisfied(Claims({"c": value}))


def test_a_positive_condition_without_values_never_holds() -> None:
    for operator in (*POSITIVE, *OF_LIST):
        assert not satisfied(operator, "a")
        assert not satisfied(operator, ["a"])


def test_every_operator_has_a_known_kind() -> None:
    assert {op for op in Operator if op.negative} == set(NEGATIVE)
    assert {op for op in Operator if op.of_list} == set(OF_LIST)
    assert {op for op in Operator if op.exact} == {Operator.PRINCIPAL, Operator.STRING_EQUAL}
    assert {op for op in Operator if op.pattern} == {op for op in Operator if "Like" in op}
    assert set(ALIASES) == {"StringEquals", "StringEqualsIgnoreCase", "StringNotEquals"}
    assert all(alias == op.replace("Equal", "Equals") for alias, op in ALIASES.items())


def test_equal_conditions_are_equal() -> None:
    one, other = (Condition(Operator.STRING_LIKE, "jwt:a", ("x*",)) for _ in range(2))
    assert one == other
    assert hash(one) == hash(other)
    assert one != Condition(Operator.STRING_LIKE, "jwt:a", ("x",))


@pytest.mark.parametrize(
    ("written", "key"),
    [
        pytest.param("jwt:/ref", "jwt:ref", id="one-step"),
        pytest.param("jwt:/a~1b", "jwt:a/b", id="a-slash-in-the-name"),
        pytest.param("jwt:/a~1", "jwt:a/", id="a-slash-at-the-end-of-the-name"),
        pytest.param("jwt:/~1a", "jwt:/~1a", id="a-slash-at-its-beginning"),
        pytest.param("jwt:/", "jwt:/", id="the-empty-name"),
        pytest.param("jwt:/a/b", "jwt:/a/b", id="two-steps"),
        pytest.param("jwt:/a/", "jwt:/a/", id="a-step-to-the-empty-name"),
        pytest.param("jwt:ref", "jwt:ref", id="a-name"),
    ],
)
def test_a_pointer_to_a_whole_claim_is_read_as_the_claims_name(written: str, key: str) -> None:
    assert Condition(Operator.STRING_EQUAL, written, ("v",)).key == key


@pytest.mark.parametrize("operator", [op for op in Operator if op.pattern])
@given(
    patterns=st.lists(st.text("ab*?", max_size=4), max_size=3),
    value=st.text("ab*?", min_size=1, max_size=4),
)
def test_a_condition_compares_as_its_patterns_do(
    operator: Operator, patterns: list[str], value: str
) -> None:
    claim = [value] if operator.of_list else value
    expected = any(naive.like(pattern, value) for pattern in patterns)
    assert satisfied(operator, claim, *patterns) is (expected is not operator.negative)


@pytest.mark.parametrize("operator", [Operator.PRINCIPAL, Operator.STRING_EQUAL])
@pytest.mark.parametrize("number", [0, 1, 2, 8, 9, 100])
def test_an_exact_condition_is_satisfied_by_each_of_its_values_and_by_nothing_else(
    operator: Operator, number: int
) -> None:
    values = [f"v{n}" for n in range(number)]
    assert all(satisfied(operator, value, *values) for value in values)
    assert not any(satisfied(operator, value, *values) for value in ("v", "V0", "", None, ["v0"]))


@pytest.mark.parametrize("key", ["jwt:ref", "jwt:/ref", "jwt:/a/b", "jwt:/~1a"])
@pytest.mark.parametrize("other", ["jwt:ref", "jwt:/ref", "jwt:/a/b", "jwt:other"])
def test_a_condition_made_like_another_is_as_one_made_alone(key: str, other: str) -> None:
    alone = Condition(Operator.STRING_EQUAL, key, ("v",))
    like = Condition(Operator.PRINCIPAL, other, ("w",))
    made = Condition(Operator.STRING_EQUAL, key, ("v",), like)
    assert (made, made.path, repr(made)) == (alone, alone.path, repr(alone))
    with pytest.raises(ValueError, match="ref"):
        Condition(Operator.STRING_EQUAL, "ref", ("v",), like)
