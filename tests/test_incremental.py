"""A set that is assembled with what is known of the one before is the same as without."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.claims import Claims
from federation.documents.assemble import Assembled, Before, assemble
from federation.documents.catalog import Catalog
from federation.documents.parse import Parsed, parse
from federation.documents.rules.lint import LintedRoles
from federation.sources.files import FileSource
from federation.sources.slices import Slices, collected_young
from tests.harness.builders import GENERIC, GITHUB
from tests.harness.documents import DEPLOY, as_text, document, issuer, policy, role

WEAK = document(
    "Role",
    "weak",
    {"policy": ["deploy"], "condition": {"StringEqual": {"jwt:iss": [GITHUB], "jwt:ref": ["x"]}}},
)
ELSEWHERE = document(
    "Role",
    "elsewhere",
    {
        "policy": ["deploy", "other"],
        "condition": {"StringEqual": {"jwt:iss": [GENERIC], "jwt:repository_id": ["1"]}},
    },
)
KNOWN = [
    issuer("github", GITHUB),
    issuer("github", GITHUB, aud=["another"]),
    issuer("generic", GENERIC),
    issuer("generic", GENERIC, provider="generic"),
    DEPLOY,
    policy("other", {"action": ["Function:*"], "resource": ["dev:*"], "effect": "Deny"}),
    role("one", GITHUB),
    role("one", GITHUB, "other-branch"),
    role("two", GITHUB, "release*"),
    role("three", "https://nobody.example.com"),
    document("Role", "broken", {"policy": []}),
    WEAK,
    ELSEWHERE,
]
"""Documents that change what is wrong with each other."""
SETS = st.lists(st.sampled_from(KNOWN), max_size=9)


def text_of(documents: Sequence[dict[str, object]]) -> str:
    return as_text(*documents)


def outcome(assembled: Assembled) -> object:
    catalog = assembled.catalog
    roles = catalog and [(role, role.origin) for role in catalog.roles]
    return catalog, roles, assembled.problems, assembled.documents, candidates(catalog)


def candidates(catalog: Catalog | None) -> object:
    """The Roles that the index finds for a few tokens."""
    if catalog is None:
        return None
    tokens = [
        Claims({"iss": iss, "repository_id": id_, "repository_owner_id": owner, "ref": "x"})
        for iss in (GITHUB, GENERIC)
        for id_, owner in (("412890077", "13420041"), ("1", "2"))
    ]
    return [
        ([r.name for r in catalog.candidates(t)], [r.name for r in catalog.neighbours(t)])
        for t in tokens
    ]


@settings(deadline=None)
@given(st.lists(st.tuples(SETS, st.integers(0, 2)), min_size=2, max_size=4))
def test_what_is_known_changes_nothing(sets: list[tuple[list[dict[str, object]], int]]) -> None:
    known, before = Parsed(), Before()
    for documents, moved in sets:
        text = ("\n" * moved + text_of(documents)).encode()
        known = parse("set.yaml", text, known=known.remembered)
        made = assemble([known], before=before)
        assert outcome(made) == outcome(assemble([parse("set.yaml", text)]))
        before = Before(made.catalog or before.catalog, made.linted or LintedRoles())


def test_a_source_keeps_each_document_that_did_not_change(tmp_path: Path) -> None:
    path = tmp_path / "set.yaml"
    roles = [role(f"r{n}", GITHUB, f"b{n}") for n in range(20)]
    path.write_text(text_of([issuer("github", GITHUB), DEPLOY, *roles]))
    (tmp_path / "more.yaml").write_text(text_of([role("more", GITHUB)]))

    async def edited() -> tuple[Catalog, Catalog]:
        adopted = asyncio.Event()
        source = FileSource([tmp_path], on_change=lambda _assembled: adopted.set())
        first = source.current()
        watching = asyncio.create_task(source.watch())
        roles[7] = role("r7", GITHUB, "another")
        path.write_text(text_of([issuer("github", GITHUB), DEPLOY, *roles]))
        source.reload()
        await asyncio.wait_for(adopted.wait(), 20)
        watching.cancel()
        return first, source.current()

    first, second = asyncio.run(edited())
    same = [a is b for a, b in zip(first.roles, second.roles, strict=True)]
    assert [role.name for role, kept in zip(second.roles, same, strict=True) if not kept] == ["r7"]
    assert second == load_anew(tmp_path)


def load_anew(path: Path) -> Catalog:
    return FileSource([path]).current()


def test_problems_of_a_document_that_moved_have_its_new_line(tmp_path: Path) -> None:
    path = tmp_path / "set.yaml"
    text = text_of([issuer("github", GITHUB), DEPLOY, role("two", GITHUB, "release*")])
    path.write_text(text)

    async def moved() -> Catalog:
        adopted = asyncio.Event()
        source = FileSource([path], on_change=lambda _assembled: adopted.set())
        watching = asyncio.create_task(source.watch())
        path.write_text(f"# one line more\n{text}")
        source.reload()
        await asyncio.wait_for(adopted.wait(), 20)
        watching.cancel()
        return source.current()

    assert asyncio.run(moved()).warnings == load_anew(path).warnings


def test_a_reading_ends_soon_after_nobody_watches_any_more(tmp_path: Path) -> None:
    roles = [role(f"r{number}", GITHUB, f"b{number}") for number in range(4000)]
    text = as_text(issuer("github", GITHUB), DEPLOY, *roles)
    path = tmp_path / "set.yaml"
    path.write_text(text)

    async def stopped() -> FileSource:
        source = FileSource([path])
        path.write_text(text.replace("refs/heads", "refs/tags"))  # every Role is another
        watching = asyncio.create_task(source.watch())
        source.reload()
        await asyncio.sleep(0.05)
        watching.cancel()
        return source

    began = time.perf_counter()
    load_anew(path)
    all_of_it = time.perf_counter() - began
    source = asyncio.run(stopped())
    began = time.perf_counter()
    source._thread.shutdown()  # waits for the reading, as the end of the process does
    assert time.perf_counter() - began < all_of_it / 4


# Slices


def rests(busy: float, slices: int) -> list[float]:
    """The rests after *slices*, while other threads use *busy* cores."""
    now, slept = [0.0], list[float]()

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    rest_after = Slices(lambda: now[0], sleep, lambda: busy * now[0])
    while len(slept) < slices:
        now[0] += 0.0002
        rest_after()
    return slept


def test_work_rests_after_each_slice() -> None:
    slept = rests(busy=0, slices=3)
    assert slept == pytest.approx([0.0001] * 3)


def test_work_rests_longer_the_more_others_work() -> None:
    idle, some, much, all_of_it = (rests(busy, 100)[-1] for busy in (0, 0.1, 0.3, 1))
    assert idle < some < much < all_of_it


def test_work_goes_on_however_much_others_work() -> None:
    assert max(rests(busy=8, slices=100)) <= 0.005


def test_work_is_quick_again_once_the_others_have_nothing_to_do() -> None:
    used = iter([0.0] + [0.02 * n for n in range(20)] + [0.4] * 20)
    now, slept = [0.0], list[float]()

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    slices = Slices(lambda: now[0], sleep, lambda: next(used))
    for _ in range(41):
        now[0] += 0.001
        slices()
    assert slept[20] == 0.005
    assert slept[-1] < 0.002


def test_work_that_somebody_waits_for_is_quick_at_first_however_busy_others_are() -> None:
    now, slept = [0.0], list[float]()

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    slices = Slices(lambda: now[0], sleep, lambda: now[0], prompt_seconds=1.0)
    while now[0] < 2.0:
        now[0] += 0.0005
        slices()
    assert slept[1000] == 0.0001
    assert slept[-1] == 0.005


class Circle:
    """It refers to itself, as what a request leaves behind may do."""

    def __init__(self) -> None:
        self.me = self


def test_circles_that_requests_leave_during_a_reload_do_not_stay_for_ever() -> None:
    before = gc.get_threshold()
    with collected_young():
        early = weakref.ref(Circle())
        made: list[list[int]] = [[number] for number in range(20_000)]
        assert early() is None
        late = weakref.ref(Circle())
    assert late() is None
    assert gc.get_threshold() == before
    assert len(made) == 20_000
