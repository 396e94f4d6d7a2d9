"""
Writes the facts of the provider table into documentation pages.

A page has marked places, such as `<!-- facts github -->`, and what stands there is made from the
profiles. `python -m federation.providers.page docs/providers.md docs/claims.md docs/cli.md` rewrites
these places and nothing else, and adds a section for each provider that has none.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import starmap
from pathlib import Path
from typing import assert_never
from urllib.parse import urlsplit

# The table imports every module of this folder, so it is not ready when it imports this one.
import federation.providers.table
from federation.providers.profile import (
    ByCommand,
    ByMetadata,
    ByRequest,
    InFile,
    InVariable,
    JobToken,
    Profile,
    TokenSource,
)
from federation.providers.sent import Payloads, sent

_PLACE = re.compile(
    r"(<!-- (glance|systems|facts|sent) ?([a-z0-9-]*) -->\n).*?(<!-- /\2 -->)", re.DOTALL
)


def rewritten(page: str, profiles: Mapping[str, Profile], samples: Payloads | None = None) -> str:
    """
    Return *page* with the facts of *profiles* in its marked places.

    *samples* are sample payloads by name. A page that has a table of all providers gets a
    section for each that it lacks. Raises: KeyError for the facts of an unknown provider.
    """
    if "<!-- glance -->" in page:
        lacking = [each for each in profiles.values() if f"<!-- facts {each.name} -->" not in page]
        page += "".join(map(_new_section, lacking))

    def filled(place: re.Match[str]) -> str:
        opening, kind, name, closing = place.groups()
        match kind:
            case "glance":
                lines = _glance(profiles.values())
            case "systems":
                lines = _systems(profiles.values())
            case "sent":
                lines = sent(profiles.values(), samples or {})
            case _:
                profile = profiles[name]
                own = [sample for sample in samples or () if sample.startswith(f"{name}-")]
                lines = _facts(profile, own)
        return opening + "".join(line + "\n" for line in lines) + closing

    return _PLACE.sub(filled, page)


def _new_section(profile: Profile) -> str:
    return f"\n## {profile.display_name}\n\n<!-- facts {profile.name} -->\n<!-- /facts -->\n"


def _glance(profiles: Iterable[Profile]) -> Iterator[str]:
    yield "| provider | written as | strangers get tokens there too | pins that survive a rename | audience | taken |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for profile in profiles:
        anchor = re.sub(r"[^\w\- ]", "", profile.display_name.lower()).replace(" ", "-")
        yield _row(
            f"[{profile.display_name}](#{anchor})",
            f"`{profile.name}`",
            _strangers(profile),
            _claims((*profile.owner.ids, *profile.owner.code_ids)) or "none",
            _audience(profile).partition(";")[0],
            "once" if profile.single_use else "many times",
        )


def _systems(profiles: Iterable[Profile]) -> Iterator[str]:
    yield "| `--from` | recognised by | where the job's ID token is |"
    yield "| --- | --- | --- |"
    for profile in profiles:
        if how := profile.job_token:
            yield _row(f"`{profile.name}`", _marks(how), _sources(how))


def _facts(profile: Profile, samples: Sequence[str]) -> Iterator[str]:
    yield ""
    yield "| fact | |"
    yield "| --- | --- |"
    for fact, value in _fact_rows(profile, samples):
        if value:
            yield _row(fact, value)
    yield ""
    if profile.free:
        yield "| claim that proves nothing by itself | because |"
        yield "| --- | --- |"
        for claim, why in profile.free.items():
            yield _row(f"`{claim}`", why)
        yield ""
    if listed := sorted(profile.scalars | profile.lists | profile.objects):
        yield "| claim | its values |"
        yield "| --- | --- |"
        for claim in listed:
            yield _row(f"`{claim}`", _values(profile, claim))
        yield ""
    if notes := list(_notes(profile)):
        yield from (f"- {note}" for note in notes)
        yield ""


def _fact_rows(profile: Profile, samples: Sequence[str]) -> Iterator[tuple[str, str]]:
    owner = profile.owner
    yield "`provider`", f"`{profile.name}`{_when_written(profile)}"
    yield "issuer, for example", f"`{profile.issuer_example}`"
    yield "strangers get tokens there too", _strangers(profile)
    yield "algorithms", _claims(sorted(profile.algorithms))
    yield "never an issuer", "; ".join(f"`{iss}`: {why}" for iss, why in profile.no_issuers.items())
    yield "every token of a job has", _claims(profile.required)
    yield "a token without them is refused as", f"`{profile.lacking}`" if profile.required else ""
    yield "claims that tell the provider", _claims(profile.telling)
    yield "so does a `sub` that begins", _expression(profile.telling_sub)
    yield "audience", _audience(profile)
    yield "how often a token can be exchanged", "once" if profile.single_use else "many times"
    yield "the owner by id", _claims(owner.ids)
    yield "the code by id", _claims(owner.code_ids)
    yield "the owner by name", _claims((*owner.names, *owner.paths))
    yield "the owner within", _claims(owner.composed)
    yield "an owner, but not of the code", _claims(owner.other_paths)
    yield (
        "the program that asked (says nothing where people sign in to it)",
        _claims(owner.programs),
    )
    yield "groups and roles", _claims(owner.groups)
    yield "people name themselves in", ", ".join(starmap(_checked, profile.verified_by.items()))
    yield "the ref", _claims((*profile.ref_claims, *profile.ref_within))
    yield "restricts the ref, for example", _claims(": ".join(pair) for pair in profile.ref_example)
    yield "a file and the ref that it is from", _claims(profile.file_refs)
    yield "the environment", _claims(profile.environment_claims)
    yield (
        "what people write instead",
        ", ".join(f"`{wrong}` for `{right}`" for wrong, right in profile.misnamed.items()),
    )
    yield "Roles are looked up by", _claims(profile.selective)
    yield "about a person", _claims(sorted(profile.personal))
    yield "how it runs, and no more", _claims(sorted(profile.circumstances))
    if how := profile.job_token:
        yield "a job's token", _sources(how)
        yield "a job is recognised by", _marks(how)
    yield "samples", _claims(samples)


def _expression(expression: re.Pattern[str] | None) -> str:
    return f"`{expression.pattern}` (a regular expression)" if expression else ""


def _checked(claim: str, by: str) -> str:
    return f"`{claim}` (checked if `{by}`)" if by else f"`{claim}` (not checked)"


def _values(profile: Profile, claim: str) -> str:
    """The form of the values of *claim*, and when tokens have it."""
    shape = profile.shapes.get(claim)
    if claim in profile.lists:
        form = "a list"
    elif claim in profile.objects:
        form = "an object"
    else:
        form = shape.words if shape else "any"
    if shape and shape.begins:
        form += f"; begins with {_or(shape.begins)}"
    return f"{form}; only if {profile.only_if[claim]}" if claim in profile.only_if else form


def _notes(profile: Profile) -> Iterator[str]:
    """Sentences about claims that depend on one another."""
    for demand in profile.demands:
        yield demand.sentence + (
            f" Such are {_claims(demand.examples)}." if demand.examples else ""
        )
        yield (
            f"A pattern on {_or(demand.claims)} that is only wildcards admits "
            f"{demand.wildcard_admits}."
        )
    for both in profile.names:
        where = f"; {both.where}" if both.where else ""
        yield f"A rename changes {_or(both.names)}. Compare {_or(both.ids)} instead{where}."
    for pair in profile.never_together:
        values = _or(sorted(pair.values))
        yield f"If `{pair.claim}` is {values}, `{pair.other}` begins with `{pair.begins}`."
    if profile.environment_replaces_ref:
        yield "If the job names an environment, `sub` names that and no ref."
    if profile.open_environments:
        yield "A job on any branch can name an environment that has no protection rules."
    if profile.short_ref:
        claim, told_by = profile.short_ref
        yield f"A branch and a tag of one name have the same `{claim}`. Compare {_or(told_by)} too."
    if profile.fork_told_by:
        yield f"Only `{profile.fork_told_by}` tells a fork's job from one's own."


def _when_written(profile: Profile) -> str:
    if profile.issuers is None:
        return ", always written" if profile.name != "generic" else ", for every unknown issuer"
    if profile.looks_like or profile.name == "gitlab":
        return ", written for an installation of one's own; known by the issuer elsewhere"
    return ", known by the issuer"


def _strangers(profile: Profile) -> str:
    if federation.providers.table.shared(profile.issuer_example):
        return "**yes**"
    return f"at {_claims(profile.shared_hosts)}" if profile.shared_hosts else "no"


def _audience(profile: Profile) -> str:
    if profile.audience_fixed:
        return "cannot be chosen"
    several = "; `aud` may list others too" if profile.audience_list else ""
    return ("the job chooses it" if profile.job_token else "set at the issuer") + several


def _sources(how: JobToken) -> str:
    return "; else ".join(map(_source, how.sources))


def _source(source: TokenSource) -> str:
    match source:
        case InVariable(names=names):
            return f"variable {' or '.join(f'`{name}`' for name in names)}"
        case InFile(path=path, named_by=variable):
            named = f", or the one that `{variable}` names" if variable else ""
            return f"file `{path}`{named}"
        case ByRequest(url=url, bearer=bearer, member=member, method=method):
            sent = f"{source.scheme} ${bearer}".strip()
            asked = f"`{method}` of the URL in `{url}` with `{source.query}`"
            return (f"`{member}` in the answer to {asked} and `Authorization: {sent}`").replace(
                "{audience}", "AUDIENCE"
            )
        case ByCommand(command=command):
            words = " ".join(command).replace("{audience}", "AUDIENCE")
            return f"output of `{words}`"
        case ByMetadata(url=url, headers=headers):
            sent = _claims(map(": ".join, headers))
            return (
                f"answer of the metadata server `{urlsplit(url).hostname}` to a request with {sent}"
            )
    assert_never(source)


def _marks(how: JobToken) -> str:
    if how.only_if_asked:
        return "nothing: say `--from`"
    return " or ".join(f"`{name}={value}`" if value else f"`{name}`" for name, value in how.marks)


def _claims(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _or(names: Iterable[str]) -> str:
    return " or ".join(f"`{name}`" for name in names)


def _row(*cells: str) -> str:
    escaped = [cell.replace("|", "\\|") for cell in cells]
    return f"| {' | '.join(escaped)} |"


def main(pages: Sequence[str]) -> None:
    """Rewrite the files *pages*, which lie beside `tests/vectors/claims`."""
    for page in map(Path, pages):
        vectors = page.resolve().parents[1] / "tests" / "vectors" / "claims"
        files = sorted(vectors.glob("*.json"), key=lambda file: file.stem)
        samples = {file.stem: json.loads(file.read_text("utf-8")) for file in files}
        text = page.read_text("utf-8")
        page.write_text(rewritten(text, federation.providers.table.PROFILES, samples), "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
