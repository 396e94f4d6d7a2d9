"""
Writes the facts of the provider table into documentation pages.

A page has marked places, such as `<!-- facts github -->`, and what stands there is made from the
profiles. `python -m federation.providers.page docs/providers.md docs/cli.md` rewrites these places
and nothing else, and adds a section for each provider that has none.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
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

_PLACE = re.compile(
    r"(<!-- (glance|systems|facts) ?([a-z0-9-]*) -->\n).*?(<!-- /\2 -->)", re.DOTALL
)


def rewritten(page: str, profiles: Mapping[str, Profile], samples: Sequence[str] = ()) -> str:
    """
    Return *page* with the facts of *profiles* in its marked places.

    *samples* are the names of sample payloads. A page that has a table of all providers gets a
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
            case _:
                profile = profiles[name]
                own = [sample for sample in samples if sample.startswith(f"{name}-")]
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
    for demand in profile.demands:
        yield f"- {demand.sentence}"
    if profile.demands:
        yield ""


def _fact_rows(profile: Profile, samples: Sequence[str]) -> Iterator[tuple[str, str]]:
    owner = profile.owner
    yield "`provider`", f"`{profile.name}`{_when_written(profile)}"
    yield "issuer, for example", f"`{profile.issuer_example}`"
    yield "strangers get tokens there too", _strangers(profile)
    yield "algorithms", _claims(sorted(profile.algorithms))
    yield "every token of a job has", _claims(profile.required)
    yield "audience", _audience(profile)
    yield "how often a token can be exchanged", "once" if profile.single_use else "many times"
    yield "the owner by id", _claims(owner.ids)
    yield "the code by id", _claims(owner.code_ids)
    yield "the owner by name", _claims((*owner.names, *owner.paths))
    yield "the owner within", _claims(owner.composed)
    yield "groups and roles", _claims(owner.groups)
    yield "the ref", _claims((*profile.ref_claims, *profile.ref_within))
    yield "the environment", _claims(profile.environment_claims)
    yield "lists", _claims(sorted(profile.lists))
    yield "how it runs, and no more", _claims(sorted(profile.circumstances))
    if how := profile.job_token:
        yield "a job's token", _sources(how)
        yield "a job is recognised by", _marks(how)
    yield "samples", _claims(samples)


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
        case ByRequest(url=url, bearer=bearer):
            return f"answer of the URL in `{url}`, asked with the secret in `{bearer}`"
        case ByCommand(command=command):
            words = " ".join(command).replace("{audience}", "AUDIENCE")
            return f"output of `{words}`"
        case ByMetadata(url=url):
            return f"answer of the metadata server `{urlsplit(url).hostname}`"
    assert_never(source)


def _marks(how: JobToken) -> str:
    if how.only_if_asked:
        return "nothing: say `--from`"
    return " or ".join(f"`{name}={value}`" if value else f"`{name}`" for name, value in how.marks)


def _claims(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _row(*cells: str) -> str:
    escaped = [cell.replace("|", "\\|") for cell in cells]
    return f"| {' | '.join(escaped)} |"


def main(pages: Sequence[str]) -> None:
    """Rewrite the files *pages*, which lie beside `tests/vectors/claims`."""
    for page in map(Path, pages):
        vectors = page.resolve().parents[1] / "tests" / "vectors" / "claims"
        samples = sorted(path.stem for path in vectors.glob("*.json"))
        text = page.read_text("utf-8")
        page.write_text(rewritten(text, federation.providers.table.PROFILES, samples), "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
