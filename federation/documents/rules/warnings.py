"""
Warnings about Roles that admit more, or less, than they seem to.

Each rule looks for one known mistake and names the safer condition. `docs/lint.md` has the attack
behind each rule.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from types import MappingProxyType
from urllib.parse import urlsplit

from federation.documents.rules.owners import literal_prefix, only_wildcards
from federation.documents.rules.role_facts import (
    Fault,
    Place,
    PlacedCondition,
    RoleFacts,
    RoleForm,
    yaml,
)
from federation.documents.rules.trust import reaches_the_owner, rests_on_free_values, says_who
from federation.policy.conditions import Condition, keys
from federation.providers.profile import BOOLEAN, NameWithId
from federation.providers.table import GENERIC
from federation.text import quoted

_SUB = keys("sub")


def may_name(form: RoleForm) -> bool:
    """Return whether a condition may be on a name."""
    named = {name for claims in form.profile.names for name in claims.names}
    return form.names(_SUB | keys(*named))


def names_without_ids(facts: RoleFacts) -> Iterator[Fault]:
    """W101: a name is compared but no id, and whoever takes over the name is admitted."""
    narrowing = [placed for placed in facts.conditions if placed.narrows]
    for claims in facts.profile.names:
        named = [placed for placed in narrowing if _is_name(claims, placed)]
        if named and not _pins_id(claims, facts):
            where = f"; {claims.where}" if claims.where else ""
            yield Fault(
                named[0].place,
                f"{quoted(named[0].values[0])} is a name: whoever takes it over after a rename or "
                "a deletion is admitted",
                f"add {yaml('StringEqual', **{claims.ids[0]: '<id>'})}{where}",
            )


def _is_name(claims: NameWithId, placed: PlacedCondition) -> bool:
    if placed.claim == "sub" and claims.sub_name:
        return any(map(claims.sub_name.search, placed.values))
    return placed.claim in claims.names


def _pins_id(claims: NameWithId, facts: RoleFacts) -> bool:
    ids = [placed for placed in facts.conditions if placed.narrows and placed.claim in claims.ids]
    if any(not each.pattern or all(literal_prefix(v) == v for v in each.values) for each in ids):
        return True
    return bool(claims.sub_id and facts.only("sub", claims.sub_id))


_TYPE_IN_SUB = re.compile(r":ref_type:[^*?]")


def unrestricted_refs(facts: RoleFacts) -> Iterator[Fault]:
    """W102: jobs of any branch, tag or pull request of the repository are admitted."""
    if not facts.profile.ref_claims:
        return
    # GitHub gives all pull requests of a repository this one `sub`, whatever their branch.
    of_pull_requests = [
        (place, value)
        for placed in facts.on(_SUB)
        for place, value in placed.placed_values
        if value.endswith(":pull_request")
    ]
    for place, value in of_pull_requests:
        yield Fault(
            place,
            f"every author of a pull request in the repository has the subject "
            f"{quoted(value)}, whatever the branch",
            "let no Role that deploys admit it; for previews, give a Role of its own few rights",
        )
    if of_pull_requests or _restricts_ref(facts) or _restricts_environment(facts):
        return
    yield Fault(
        facts.block,
        "no restriction on ref or environment: whoever may push any branch may use this Role",
        _ref_to_add(facts),
    )


def may_restrict_environment(form: RoleForm) -> bool:
    """Return whether a condition may restrict an environment that any branch can name."""
    return form.profile.open_environments and form.names(_SUB | form.rule_keys.environments)


def environment_without_ref(facts: RoleFacts) -> Iterator[Fault]:
    """W103: an environment without protection rules can be named from any branch."""
    if not facts.profile.open_environments or not _restricts_environment(facts):
        return
    if _restricts_ref(facts) or "jwt:ref_type" in facts.narrowed or facts.only("sub", _TYPE_IN_SUB):
        return
    naming = facts.on(facts.rule_keys.environments) or facts.on(_SUB)
    yield Fault(
        naming[0].place,
        "an environment without protection rules can be named by a job on any branch",
        _ref_to_add(facts),
    )


def _restricts_ref(facts: RoleFacts) -> bool:
    # `ref_protected: "false"` leaves exactly the branches that anybody with write access may push.
    return any(
        placed.shape is not BOOLEAN or not placed.condition.accepts("false")
        for placed in facts.on(facts.rule_keys.refs)
    ) or any(facts.only(claim, part) for claim, part in facts.profile.ref_within.items())


def _restricts_environment(facts: RoleFacts) -> bool:
    within = facts.profile.environment_within
    return not facts.rule_keys.environments.isdisjoint(facts.narrowed) or bool(
        within and facts.only("sub", within)
    )


def _ref_to_add(facts: RoleFacts) -> str:
    for pair in facts.profile.never_together:
        only = [p for p in facts.on(keys(pair.claim)) if pair.values.issuperset(p.values)]
        example = dict(facts.profile.ref_example).get(pair.other, pair.begins)
        if only and not example.startswith(pair.begins):
            return f"add {yaml('StringLike', **{pair.other: pair.begins + '*'})} or a narrower ref"
    return f"add {yaml('StringEqual', **dict(facts.profile.ref_example))}"


def untold_forks(facts: RoleFacts) -> Iterator[Fault]:
    """W121: a fork's job has the same project and branch, and only one claim tells it."""
    claim = facts.profile.fork_told_by
    if not claim or facts.only(claim, _ORIGIN) or facts.only("sub", _ORIGIN_IN_SUB):
        return
    yield Fault(
        facts.block,
        f"a fork's job has the project's id and can have its branch, and only {claim} tells it",
        f"add {yaml('StringEqual', **{claim: '<host>/<owner>/<repository>'})}",
    )


# A pattern that leaves the owner open also matches the forks.
_ORIGIN = re.compile(r"^[^/*?]+/[^/*?]+/")
_ORIGIN_IN_SUB = re.compile(r"/vcs-origin/[^/*?]+/[^/*?]+/")

_SEPARATORS = frozenset(string.punctuation) - {"*", "?"}


def open_endings(facts: RoleFacts) -> Iterator[Fault]:
    """W104: a trailing wildcard after no separator also matches longer names."""
    for placed, place, value in _patterns(facts):
        literal = value.rstrip("*?")
        if value.endswith("*") and literal and literal[-1] not in _SEPARATORS:
            yield Fault(
                place,
                f"{quoted(value)} also matches {quoted(_longer(facts, placed, value))}",
                _instead_of_ending(facts, placed, literal),
            )


def _longer(facts: RoleFacts, placed: PlacedCondition, value: str) -> str:
    """A value that nobody meant, and that the pattern *value* matches."""
    literal = re.sub(r"[*?]+", "x", value.rstrip("*?"))
    shape = placed.shape
    longer = [literal + ending for ending in ("-evil", "0", "s", "_evil")]
    return next((v for v in longer if shape is None or shape.whole.fullmatch(v)), literal + "…")


def _instead_of_ending(facts: RoleFacts, placed: PlacedCondition, literal: str) -> str:
    listed = "each value under StringEqual"
    shape = placed.shape
    if shape and not shape.whole.fullmatch(re.sub(r"[*?]+", "x", literal) + "/x"):
        return f"write {listed}"
    if literal.endswith("/v"):
        return f"write {quoted(literal + '1.*')}, or {listed}"
    ending = "-*" if placed.key in facts.owner_keys.paths else "/*"
    return f"write {quoted(literal + ending)}, or {listed}"


_STAR_INSIDE = re.compile(r"\*[*?]*[^*?]")


def inner_wildcards(facts: RoleFacts) -> Iterator[Fault]:
    """W112: a `*` before more text matches separators too, and so parts that a caller chooses."""
    if not facts.profile.ci:
        return
    files = facts.rule_keys.files
    for placed, place, value in _patterns(facts):
        if placed.key not in facts.rule_keys.with_separators or not _STAR_INSIDE.search(value):
            continue
        shape = placed.shape
        if shape and shape.values:
            continue  # the claim has few values, and no separator in them
        ending = value.rpartition("*")[2]
        example = f"a name that {_holds(value)} is enough"
        if placed.key in files:
            example = f"so does a branch called {quoted('x' + ending)}"
        yield Fault(
            place,
            f"in {quoted(value)} the * also runs over / : and @: {example}",
            _instead_of_star(placed.key, of_file=placed.key in files),
        )


def _holds(value: str) -> str:
    *_, inner, ending = value.rsplit("*", 2)
    return f"ends in {quoted(ending)}" if ending else f"holds {quoted(inner)}"


def _instead_of_star(key: str, *, of_file: bool) -> str:
    if key == "jwt:sub":
        return "put the repository and the ref or environment into conditions of their own"
    if of_file:
        return "write the file and the ref out, or put the ref into a condition of its own"
    return "write the whole ref, or let the pattern begin with refs/heads/ or refs/tags/"


def _patterns(facts: RoleFacts) -> Iterator[tuple[PlacedCondition, Place, str]]:
    """The values of positive patterns that are more than wildcards and that T003 accepts."""
    for placed in facts.patterns:
        for place, value in placed.placed_values:
            condition = placed.condition
            if not only_wildcards(condition, value) and not reaches_the_owner(
                facts, condition, value
            ):
                yield placed, place, value


def events_named_in_vain(facts: RoleFacts) -> Iterator[Fault]:
    """W113: a claim that should keep outsiders out is named, but with values that let them in."""
    for demand in facts.profile.demands:
        for placed in facts.patterns:
            if placed.key not in demand.keys or _another_narrows(facts, placed):
                continue
            for place, value in placed.placed_values:
                single = only_wildcards(placed.condition, value)
                admitted = _admitted(placed, value, demand.examples)
                if not single and not admitted:
                    continue
                what = demand.wildcard_admits if single else f"{quoted(admitted)} too"
                yield Fault(
                    place,
                    f"{quoted(value)} names {placed.key} and admits {what}",
                    "list the values that are meant under StringEqual, or drop the condition",
                )
                break


def _another_narrows(facts: RoleFacts, placed: PlacedCondition) -> bool:
    """Return whether another condition on the same key lists the values that are meant."""
    return any(other.operator.exact for other in facts.on({placed.key}) if other is not placed)


def _admitted(placed: PlacedCondition, value: str, examples: tuple[str, ...]) -> str:
    """The first of *examples* that the pattern *value* matches without being it, or empty."""
    if literal_prefix(value) == value:
        return ""
    alone = Condition(placed.operator, placed.key, (value,))
    return next(filter(alone.accepts, examples), "")


def short_refs(facts: RoleFacts) -> Iterator[Fault]:
    """W105: a short ref does not tell a branch and a tag of one name apart."""
    if facts.profile.short_ref is None or facts.only("sub", _TYPE_IN_SUB):
        return
    claim, told_by = facts.profile.short_ref
    if not keys(*told_by).isdisjoint(facts.narrowed):
        return
    for placed in facts.on(keys(claim)):
        yield Fault(
            placed.place,
            f"on {facts.profile.display_name} a tag called {quoted(placed.values[0])} has the same "
            f"{claim} as the branch",
            f"add {yaml('StringEqual', **{told_by[0]: 'branch'})}, or compare {told_by[-1]} instead",
        )


def one_form_of_sub(facts: RoleFacts) -> Iterator[Fault]:
    """W107: a rename changes the form of GitHub's `sub`, and only one form is compared."""
    renamed, own = facts.profile.owner.renamed_sub, facts.profile.looks_like
    if renamed is None or all(own and own.search(issuer.iss) for issuer in facts.issuers):
        return
    begins = facts.profile.owner.sub_begins
    for placed in facts.on(_SUB):
        with_ids = {
            bool(renamed[0].match(value) or "@" in value.partition("/")[0])
            for value in placed.values
            if value.startswith(begins)
        }
        if len(with_ids) != 1:
            continue
        other = "repo:OWNER/NAME:…" if with_ids == {True} else "repo:OWNER@ID/NAME@ID:…"
        yield Fault(
            placed.place,
            f"GitHub writes this subject in two forms, and this one does not match {other}",
            f"compare {yaml('StringEqual', repository_id='<id>', ref='refs/heads/main')} "
            "instead, or list both forms",
        )


def nobody_in_particular(facts: RoleFacts) -> Iterator[Fault]:
    """W114: nothing says whose tokens are meant, so everybody at the issuer is admitted."""
    if _says_enough(facts) or _says_something_else(facts):
        return
    yield Fault(
        facts.block,
        f"nothing says who: everybody who has a token of {quoted(facts.issuers[0].iss)} is admitted",
        f"add {yaml('StringEqual', **dict([facts.profile.owner.pin]))}",
    )


def unknown_public_issuer(facts: RoleFacts) -> Iterator[Fault]:
    """W115: an issuer of which nothing is known could let anybody sign up."""
    if facts.profile.name != GENERIC or _says_enough(facts) or not _says_something_else(facts):
        return
    if not _on_the_internet(facts.issuers[0].iss):
        return
    yield Fault(
        facts.block,
        f"{quoted(facts.issuers[0].iss)} is on the internet, nothing is known about it, and no "
        "condition pins a subject: who may sign up there, and set these claims?",
        f"add {yaml('StringEqual', sub='<the subject>')} or a group, or write the issuer's provider",
    )


def _says_enough(facts: RoleFacts) -> bool:
    """Return whether the Role says who, or T001, T002 or T004 refuses it."""
    if not facts.issuers or facts.shared is not None:
        return True
    return says_who(facts) or any(rests_on_free_values(facts))


def _says_something_else(facts: RoleFacts) -> bool:
    """Return whether a narrowing condition says more than how a job runs, if not who is meant."""
    if not facts.profile.ci:
        # An administrator of an identity provider can add claims of any name. What the profile
        # lists and does not count as an owner says nothing about who somebody is.
        weak = (
            facts.rule_keys.weak
            | facts.rule_keys.ids
            | facts.rule_keys.groups
            | facts.rule_keys.people
        )
        return any(
            placed.narrows
            and placed.key not in weak
            and not facts.profile.lists_claim(placed.condition.path[0])
            for placed in facts.conditions
        )
    return any(
        not placed.pattern or all(map(literal_prefix, placed.values))
        for placed in facts.on(facts.rule_keys.code_paths)
    )


_PRIVATE = (".internal", ".local", ".localhost", ".lan", ".home.arpa", ".intranet", ".corp", ".svc")


def _on_the_internet(iss: str) -> bool:
    host = urlsplit(iss).hostname or ""
    try:
        return ip_address(host).is_global
    except ValueError:
        return "." in host and not host.endswith(_PRIVATE)


def unchecked_people(facts: RoleFacts) -> Iterator[Fault]:
    """W116: people are told by a name that the issuer may not have checked, or that changes."""
    if any(pin.key in facts.rule_keys.ids for pin in facts.pins):
        return
    for claim, checked_by in facts.profile.verified_by.items():
        for placed in facts.on(keys(claim)):
            if checked_by and _is_true(facts, checked_by):
                continue
            add = f"add {yaml('StringEqual', **{checked_by: 'true'})}, or " if checked_by else ""
            yield Fault(
                placed.place,
                f"people can change their {claim}"
                + (", and nobody may have checked it" if checked_by else ""),
                f"{add}compare {facts.profile.owner.pin[0]}",
            )


def _is_true(facts: RoleFacts, claim: str) -> bool:
    return any(placed.values == ("true",) for placed in facts.on(keys(claim)))


_PLACEHOLDER = re.compile(
    r"\$\{[^}]*\}|\$\([^)]*\)|\{\{.*\}\}|\$\[\[.*\]\]|<[A-Za-z][^<>]*>|%[A-Z_]+%"
)
_UNSEEN: Mapping[str, str] = MappingProxyType(
    {
        "\u00a0": "a no-break space",
        "\u00ad": "a soft hyphen",
        "\u200b": "a zero-width space",
        "\u200c": "a zero-width non-joiner",
        "\u200d": "a zero-width joiner",
        "\u2060": "a word joiner",
        "\ufeff": "a byte order mark",
        "\u2018": "a curly quote",
        "\u2019": "a curly quote",
        "\u201c": "a curly quote",
        "\u201d": "a curly quote",
        "\n": "a line end",
        "\r": "a carriage return",
        "\t": "a tab",
    }
)
_ANY_UNSEEN = re.compile(f"[{''.join(_UNSEEN)}]")
# Of a value that holds nothing else the rule has nothing to say. Most values are looked at once.
_USUAL = re.compile(r"[!-#&-;=-z|}~]*")


def unseen_characters(facts: RoleFacts) -> Iterator[Fault]:
    """W117: a value holds what nobody sees, or a placeholder that nobody filled."""
    if _USUAL.fullmatch("".join(["".join(placed.values) for placed in facts.conditions])):
        return
    for placed in facts.conditions:
        for place, value in placed.placed_values:
            if fault := _unseen(value):
                yield Fault(place, *fault)


def _unseen(value: str) -> tuple[str, str] | None:
    if found := _ANY_UNSEEN.search(value):
        what = _UNSEEN[found[0]]
        return f"{quoted(value)} holds {what}, so no token has this value", "type it anew"
    if value != value.strip():
        return f"{quoted(value)} has a space at an end, so no token has this value", "drop it"
    if _PLACEHOLDER.search(value):
        return (
            f"{quoted(value)} holds a placeholder that was not filled, so no token has this value",
            "write the value, or fill the placeholder before the documents are read",
        )
    return None
