"""
Answers of a Kubernetes API server that is hostile or broken, or that holds one hostile object.

The broker may have an old set for a while. It must say so, and it must neither stop to follow, nor
use memory or time without a bound.
"""

from __future__ import annotations

import asyncio
import time
import tracemalloc
from collections.abc import Mapping
from typing import Any

import orjson
import pytest

from federation.documents.kubernetes.unite import Standing
from federation.documents.schema import API_VERSION
from federation.sources.kubernetes.json_depth import loads_shallow
from federation.sources.kubernetes.mirror import Pace
from tests.harness.broker import logged
from tests.harness.fake_kube import NAMESPACE, FakeKube
from tests.test_kubernetes_source import (
    JOINING,
    ROLE,
    eventually,
    following,
    is_awaited,
    lines,
    roles,
    told,
)

ROLES = f"/apis/{API_VERSION}/namespaces/{NAMESPACE}/roles"


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"a": value}
    return value


# One object that is nested deep


@pytest.mark.parametrize("levels", [100, 260, 900])
@pytest.mark.parametrize("part", ["spec", "status"])
def test_one_deep_object_does_not_keep_the_others_from_being_read(levels: int, part: str) -> None:
    async def story(kube: FakeKube) -> None:
        if part == "spec":
            await kube.put("Role", "deep", {**ROLE, "surprise": nested(levels)})
        else:
            await kube.put("Role", "deep", ROLE, status=nested(levels))
        async with following(kube) as source:
            await source.first_adopted()
            assert "deployer" in roles(source)
            if part == "spec":
                verdict = source.snapshot.united.verdicts["Role", "deep"]
                assert verdict.standing is Standing.INVALID
            await kube.put("Role", "later", ROLE)
            await eventually(lambda: "later" in roles(source))
            assert not source.following().trouble

    told(story)


def test_what_is_read_can_be_written_again() -> None:
    for levels in (100, 250, 300, 1000, 1100, 5000):
        text = b'{"spec":' + b'{"a":' * levels + b"1" + b"}" * (levels + 1)
        orjson.dumps(loads_shallow(text))


def test_long_strings_in_a_deep_text_take_little_memory() -> None:
    text = b'{"s":"' + b"a" * 2_000_000 + b'","x":' + b"[" * 1100 + b"]" * 1100 + b"}"
    tracemalloc.start()
    try:
        loads_shallow(text)
        _now, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 25 * len(text)


@pytest.mark.alone
def test_a_string_without_an_end_takes_time_as_long_as_it_is() -> None:
    began = time.perf_counter()
    with pytest.raises(ValueError, match="not a JSON object"):
        loads_shallow(b'{"s":"' + b'\\"' * 500_000)
    assert time.perf_counter() - began < 2


# One object that refuses everybody


def test_many_bad_objects_do_not_hide_the_one_that_refuses_everybody() -> None:
    async def story(kube: FakeKube) -> None:
        for number in range(30):
            await kube.put("JwtIssuer", f"bad-{number}", {"iss": 1})
        await kube.put("Role", "zzz", "unreadable")
        with logged() as log:
            async with following(kube) as source:
                await source.first_adopted()
                first = source.following().not_in_force[0]
        assert first.startswith("Role/zzz: ")
        assert "refuses every token" in first
        warned = [line["object"] for line in lines(log, "warning") if "object" in line]
        assert warned[0] == "Role/zzz"

    told(story)


# Answers that do not end


def test_a_list_that_goes_in_a_circle_is_trouble_and_told() -> None:
    async def story(kube: FakeKube) -> None:
        whole = kube._answer

        def answer(path: str, params: Mapping[str, str]) -> dict[str, Any]:
            page = whole(path, {**params, "continue": f"0.{kube.version}"})
            if path == ROLES:
                page["metadata"]["continue"] = "again"
            return page

        kube._answer = answer  # type: ignore[method-assign]  # this server is hostile
        async with following(kube) as source:
            await eventually(lambda: "without new objects" in str(source.following().trouble))
            assert is_awaited(source)

    told(story)


def test_a_watch_that_sends_no_whole_line_is_left() -> None:
    async def story(kube: FakeKube) -> None:
        whole = kube._watch

        async def drip(path: str, params: Mapping[str, str], writer: asyncio.StreamWriter) -> None:
            if path != ROLES or kube.watches["dripped"]:
                await whole(path, params, writer)
                return
            kube.watches["dripped"] += 1
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            while True:
                writer.write(b"1\r\n{\r\n")
                await writer.drain()
                await asyncio.sleep(0.05)

        kube._watch = drip  # type: ignore[method-assign]  # this server is hostile
        pace = Pace(watch=1, silence=0.5, first_pause=0.01, longest_pause=0.05, short_watch=0.0)
        async with following(kube, pace) as source:
            await source.first_adopted()
            await eventually(lambda: kube.watches["dripped"])
            await kube.put("Role", "later", ROLE)
            await eventually(lambda: "later" in roles(source))

    told(story)


# Answers about the CRDs


@pytest.mark.parametrize("resources", [["roles"], [1, None], [{"name": ["roles"]}], {"a": 1}, None])
def test_an_answer_about_crds_that_is_none_does_not_end_the_following(resources: Any) -> None:
    async def story(kube: FakeKube) -> None:
        with logged() as log:
            async with following(kube) as source:
                await source.first_adopted()
                good, kube.resources = kube.resources, []
                whole = kube._answer

                def answer(path: str, params: Mapping[str, str]) -> dict[str, Any]:
                    if path == f"/apis/{API_VERSION}" and not kube.resources:
                        return {"resources": resources}
                    return whole(path, params)

                kube._answer = answer  # type: ignore[method-assign]  # this server is hostile
                await eventually(lambda: source.following().trouble)
                assert roles(source) == ["deployer"]
                kube.resources = good
                await eventually(lambda: not source.following().trouble)
                await kube.put("Role", "later", ROLE)
                await eventually(lambda: "later" in roles(source))
        assert not [line for line in lines(log) if "exception" in line]

    assert JOINING.check_crds < 1
    told(story)
