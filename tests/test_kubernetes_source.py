"""Following objects of the Kubernetes API: whatever goes wrong, nothing is missed or half adopted."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from contextlib import asynccontextmanager
from io import StringIO
from typing import Any

import pytest

from federation.documents.catalog import Catalog
from federation.documents.kubernetes.unite import Standing, United
from federation.documents.model import JwtIssuer
from federation.documents.schema import API_VERSION
from federation.errors import Problem, Reason, Refusal
from federation.sources.kubernetes.mirror import Pace
from federation.sources.kubernetes.source import Joining, KubernetesSource
from tests.harness.broker import FakeSource, logged
from tests.harness.documents import DOCUMENTS, catalog_of
from tests.harness.fake_kube import NAMESPACE, QUICK, Answer, FakeKube, fake_kube

ISS = "https://ci.test"
ISSUER = {"iss": ISS, "aud": ["federation"], "provider": "generic"}
POLICY = {
    "statement": [{"sid": "a", "effect": "Allow", "action": ["Function:List"], "resource": ["*"]}]
}
ROLE = {
    "policy": ["viewer"],
    "condition": {"StringEqual": {"jwt:iss": [ISS], "jwt:sub": ["job"]}},
}
JOINING = Joining(quiet=0.02, longest=0.2, check_crds=0.2, recheck_crds=0.05)

Story = Callable[[FakeKube], Coroutine[None, None, None]]


def told(story: Story) -> None:
    """Run *story* with a fake API server that has three good objects."""

    async def whole() -> None:
        async with fake_kube() as kube:
            await kube.put("JwtIssuer", "ci", ISSUER)
            await kube.put("Policy", "viewer", POLICY)
            await kube.put("Role", "deployer", ROLE)
            async with asyncio.timeout(30):
                await story(kube)

    asyncio.run(whole())


@asynccontextmanager
async def following(
    kube: FakeKube, pace: Pace = QUICK, **more: Any
) -> AsyncIterator[KubernetesSource]:
    source = KubernetesSource(
        kube.connection(), pace=pace, joining=JOINING, jitter=lambda: 0.5, **more
    )
    task = asyncio.create_task(source.run())
    try:
        yield source
        assert not task.done(), task.exception()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await source.connection.aclose()


async def eventually(holds: Callable[[], object], seconds: float = 5) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it never came true"
        await asyncio.sleep(0.005)


def roles(source: KubernetesSource) -> list[str]:
    return sorted(role.name for role in source.current().roles)


def is_awaited(source: KubernetesSource) -> bool:
    return bool(source.current().awaited)


def lines(log: StringIO, *levels: str) -> list[dict[str, Any]]:
    """The lines of *log* of *levels*, by themselves all."""
    found = [json.loads(line) for line in log.getvalue().splitlines()]
    return [line for line in found if not levels or line["level"] in levels]


def failing(status: int, plural: str = "", **more: Any) -> Callable[[str, Any], None]:
    """A fault of every request for *plural*, by itself of all."""

    def fault(path: str, _params: Mapping[str, str]) -> None:
        if path.endswith(plural):
            raise Answer(status, **more)

    return fault


def fine(_path: str, _params: Mapping[str, str]) -> None:
    """No fault."""


# The first list


def test_nothing_is_adopted_before_every_kind_was_listed() -> None:
    async def story(kube: FakeKube) -> None:
        kube.fault = failing(403, "roles")
        async with following(kube) as source:
            await eventually(lambda: source.following().trouble)
            await asyncio.sleep(0.1)
            assert is_awaited(source)
            assert not source.current().issuers
            with pytest.raises(Refusal) as caught:
                source.current().check_read()
            assert caught.value.reason is Reason.DOCUMENTS_UNAVAILABLE
            kube.fault = fine
            await source.first_adopted()
            assert not is_awaited(source)
            assert roles(source) == ["deployer"]
            assert source.current().issuers.keys() == {ISS}

    told(story)


def test_files_alone_decide_upon_nobody_before_the_first_list() -> None:
    async def story(kube: FakeKube) -> None:
        kube.silent = True
        async with following(kube) as source:
            files = FakeSource(catalog_of(DOCUMENTS))
            source.unite_with(files)
            assert source.current().issuers.keys() == files.current().issuers.keys()
            assert is_awaited(source)

    told(story)


def test_a_long_list_is_read_page_by_page() -> None:
    async def story(kube: FakeKube) -> None:
        for number in range(1200):
            await kube.put("Role", f"role-{number}", ROLE)
        async with following(kube) as source:
            await source.first_adopted()
            assert len(source.current().roles) == 1201
        pages = [params["limit"] for path, params in kube.asked if path.endswith("/roles")
                 and "limit" in params]  # fmt: skip
        assert pages == ["500", "500", "500"]

    told(story)


def test_a_history_that_ends_in_the_middle_of_a_list_begins_it_anew() -> None:
    async def story(kube: FakeKube) -> None:
        for number in range(600):
            await kube.put("Role", f"role-{number}", ROLE)

        def fault(_path: str, params: Mapping[str, str]) -> None:
            if "continue" in params and kube.lists["roles"] == 1:
                raise Answer(410, "the continue token is too old")

        kube.fault = fault
        async with following(kube) as source:
            await source.first_adopted()
            assert len(source.current().roles) == 601
        assert kube.lists["roles"] == 2

    told(story)


@pytest.mark.parametrize("depth", [100, 300, 900])
def test_an_object_that_is_nested_deeply_keeps_no_other_from_being_followed(depth: int) -> None:
    async def story(kube: FakeKube) -> None:
        deep: list[object] = []
        for _ in range(depth):
            deep = [deep]
        await kube.put("Role", "deep", {**ROLE, "tokenExpiry": "5m", "unknown": deep})
        async with following(kube) as source:
            await source.first_adopted()
            await kube.put("Role", "good", ROLE)
            await eventually(lambda: "good" in roles(source))
            assert source.following().trouble == ()
            standing = source.snapshot.united.verdicts["Role", "deep"].standing
            assert standing is Standing.INVALID

    told(story)


def test_a_field_beside_the_spec_is_seen_when_it_comes_by_itself() -> None:
    async def story(kube: FakeKube) -> None:
        async with following(kube) as source:
            await source.first_adopted()
            await kube.put("Role", "deployer", ROLE, condition={"StringEqual": {}})
            await eventually(lambda: roles(source) == [])
            await kube.put("Role", "deployer", ROLE)
            await eventually(lambda: roles(source) == ["deployer"])

    told(story)


def test_a_page_that_is_too_large_is_asked_for_in_smaller_parts() -> None:
    async def story(kube: FakeKube) -> None:
        for name in "abc":
            await kube.put("Role", f"large-{name}", {**ROLE, "unknown": "x" * 12 * 2**20})
        async with following(kube) as source:
            await source.first_adopted()
            assert roles(source) == ["deployer"]
            assert len(source.snapshot.objects) == 6

    told(story)


# Changes


def test_a_change_is_live_soon() -> None:
    async def story(kube: FakeKube) -> None:
        async with following(kube) as source:
            await source.first_adopted()
            await kube.put("Role", "second", ROLE)
            await eventually(lambda: roles(source) == ["deployer", "second"], 1)
            narrower = {**ROLE, "tokenExpiry": "5m"}
            await kube.put("Role", "second", narrower)
            await eventually(lambda: any(r.token_expiry for r in source.current().roles), 1)
            await kube.delete("Role", "second")
            await eventually(lambda: roles(source) == ["deployer"], 1)
        assert kube.lists == {"jwtissuers": 1, "policies": 1, "roles": 1}

    told(story)


def test_changes_that_come_together_are_adopted_together() -> None:
    async def story(kube: FakeKube) -> None:
        adopted: list[United] = []
        async with following(kube, on_adopt=adopted.append) as source:
            await source.first_adopted()
            before = len(adopted)
            for number in range(30):
                await kube.put("Role", f"role-{number}", ROLE)
            await eventually(lambda: len(source.current().roles) == 31)
        assert len(adopted) - before <= 3

    told(story)


def test_endless_changes_do_not_hold_a_catalog_up() -> None:
    async def story(kube: FakeKube) -> None:
        async with following(kube) as source:
            await source.first_adopted()
            await kube.put("Role", "second", ROLE)
            end = time.monotonic() + 2
            while roles(source) != ["deployer", "second"]:
                assert time.monotonic() < end
                await kube.put("Policy", "restless", {**POLICY, "n": time.monotonic()})
                await asyncio.sleep(0.005)

    told(story)


def test_a_status_that_changed_makes_no_new_catalog() -> None:
    async def story(kube: FakeKube) -> None:
        async with following(kube) as source:
            await source.first_adopted()
            before = source.snapshot
            await kube.put("Role", "deployer", ROLE, status={"observedGeneration": 1})
            after = await source.changed(before)
            assert after.statuses["Role", "deployer"] == {"observedGeneration": 1}
            assert after.united is before.united
            was, now = (each.objects["Role", "deployer"] for each in (before, after))
            assert now.parsed is was.parsed
            assert now.resource_version != was.resource_version

    told(story)


@pytest.mark.parametrize(
    ("namespace", "kind"), [("other", "Role"), (NAMESPACE, "Policy"), (None, "Role")]
)
def test_an_event_of_another_namespace_or_kind_is_ignored(namespace: object, kind: str) -> None:
    async def story(kube: FakeKube) -> None:
        async with following(kube) as source:
            await source.first_adopted()
            metadata = {"name": "foreign", "namespace": namespace, "uid": "u", "generation": 1,
                        "resourceVersion": str(kube.version)}  # fmt: skip
            item = {"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": ROLE}
            await eventually(lambda: kube.watches["roles"])
            await kube.send("Role", {"type": "ADDED", "object": item})
            await kube.put("Role", "second", ROLE)
            await eventually(lambda: roles(source) == ["deployer", "second"])
            assert len(source.snapshot.objects) == 4
            assert kube.lists["roles"] == 1

    told(story)


def test_one_bad_object_does_not_stop_the_others() -> None:
    async def story(kube: FakeKube) -> None:
        async with following(kube) as source:
            await source.first_adopted()
            with logged() as log:
                await kube.put("Role", "bad", {"policy": 7})
                await kube.put("Role", "second", ROLE)
                await eventually(lambda: roles(source) == ["deployer", "second"])
            assert source.following().objects == {"Accepted": 4, "Invalid": 1}
            assert source.following().not_in_force[0].startswith("Role/bad: ")
        assert [line["object"] for line in lines(log, "warning")] == ["Role/bad"]

    told(story)


# Trouble


def relisted(kube: FakeKube, source: KubernetesSource) -> Callable[[], bool]:
    """True once Roles were listed a second time, and nothing is wrong."""
    return lambda: kube.lists["roles"] >= 2 and not source.following().trouble


async def cut(kube: FakeKube) -> None:
    kube.cut()


async def error_410(kube: FakeKube) -> None:
    status = {"kind": "Status", "code": 410, "message": "too old", "reason": "Expired"}
    await kube.send("Role", {"type": "ERROR", "object": status})


async def error_500(kube: FakeKube) -> None:
    await kube.send("Role", {"type": "ERROR", "object": {"kind": "Status", "code": 500}})


async def no_object(kube: FakeKube) -> None:
    await kube.send("Role", {"type": "ADDED", "object": None})


async def unknown_type(kube: FakeKube) -> None:
    await kube.send("Role", {"type": "RENAMED", "object": {}})


async def expired(kube: FakeKube) -> None:
    kube.forget_history()
    kube.cut()


@pytest.mark.parametrize("disturb", [cut, expired, error_410, error_500, no_object, unknown_type])
def test_after_trouble_everything_is_listed_anew(
    disturb: Callable[[FakeKube], Coroutine[None, None, None]],
) -> None:
    async def story(kube: FakeKube) -> None:
        async with following(kube) as source:
            await source.first_adopted()
            await eventually(lambda: kube.watches["roles"])
            await disturb(kube)
            await eventually(relisted(kube, source))
            await kube.put("Role", "second", ROLE)
            await eventually(lambda: roles(source) == ["deployer", "second"])

    told(story)


def test_what_was_deleted_in_an_outage_is_noticed() -> None:
    async def story(kube: FakeKube) -> None:
        await kube.put("Role", "second", ROLE)
        async with following(kube) as source:
            await source.first_adopted()
            await eventually(lambda: kube.watches["roles"])
            kube.fault = failing(503)
            kube.cut()
            await eventually(lambda: source.following().trouble)
            kube.objects["roles"].pop("second")
            kube.fault = fine
            await eventually(lambda: roles(source) == ["deployer"])

    told(story)


def test_a_silent_watch_is_asked_anew() -> None:
    async def story(kube: FakeKube) -> None:
        pace = Pace(watch=30, silence=0.1, first_pause=0.01, longest_pause=0.05)
        async with following(kube, pace) as source:
            await source.first_adopted()
            await eventually(lambda: kube.lists["roles"] >= 3)
            assert roles(source) == ["deployer"]

    told(story)


def test_a_watch_that_ends_in_order_goes_on_without_a_list() -> None:
    async def story(kube: FakeKube) -> None:
        pace = Pace(watch=1, silence=5, short_watch=0.1)
        async with following(kube, pace) as source:
            await source.first_adopted()
            await eventually(lambda: kube.watches["roles"] >= 2)
            await kube.put("Role", "second", ROLE)
            await eventually(lambda: roles(source) == ["deployer", "second"])
        assert kube.lists["roles"] == 1

    told(story)


def test_a_watch_that_ends_at_once_is_not_asked_without_end() -> None:
    async def story(kube: FakeKube) -> None:
        kube.ends_watches = True
        pace = Pace(first_pause=0.2, longest_pause=1)
        async with following(kube, pace) as source:
            await source.first_adopted()
            await asyncio.sleep(1.5)
        assert 1 <= kube.watches["roles"] <= 5

    told(story)


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 503])
def test_the_last_set_serves_while_the_api_server_refuses(status: int) -> None:
    async def story(kube: FakeKube) -> None:
        async with following(kube) as source:
            await source.first_adopted()
            await eventually(lambda: kube.watches["roles"])
            catalog = source.current()
            kube.fault = failing(status, message="not now")
            kube.cut()
            why = f"HTTP {status}: not now"
            await eventually(lambda: sum(why in t for t in source.following().trouble) >= 3)
            assert source.current() is catalog
            assert source.following().adopted
            kube.fault = fine
            await eventually(lambda: not source.following().trouble)

    told(story)


def test_retry_after_is_honoured() -> None:
    async def story(kube: FakeKube) -> None:
        asked: list[float] = []

        def fault(path: str, _params: Mapping[str, str]) -> None:
            if path.endswith("/roles"):
                asked.append(time.monotonic())
                if len(asked) == 1:
                    raise Answer(429, headers={"Retry-After": "1"})

        kube.fault = fault
        async with following(kube) as source:
            await source.first_adopted()
        assert 1 <= asked[1] - asked[0] < 1.6

    told(story)


def test_the_pauses_grow_to_a_bound_and_are_spread() -> None:
    pace = Pace(first_pause=0.2, longest_pause=15)
    longest = [pace.pause(failures, 1.0) for failures in range(1, 2000)]
    assert longest[:4] == [0.2, 0.4, 0.8, 1.6]
    assert max(longest) == 15
    assert [pace.pause(4, spread) for spread in (0.0, 0.5)] == [0.8, pytest.approx(1.2)]


def test_trouble_is_logged_when_it_lasts_and_not_each_time() -> None:
    async def story(kube: FakeKube) -> None:
        with logged() as log:
            async with following(kube) as source:
                await source.first_adopted()
                await eventually(lambda: kube.watches["roles"])
                kube.fault = failing(503, "roles")
                kube.cut()
                await asyncio.sleep(0.5)
                kube.fault = fine
                await eventually(lambda: not source.following().trouble)
        lasting = lines(log, "warning")
        assert 1 <= len(lasting) <= 3
        assert lasting[0]["event"] == (
            "Kubernetes objects cannot be followed; those read before stay in use"
        )
        assert lasting[0]["why"] == "HTTP 503: no"
        assert any(line["event"] == "Kubernetes objects are followed again" for line in lines(log))

    told(story)


def test_more_objects_than_allowed_are_not_adopted() -> None:
    async def story(kube: FakeKube) -> None:
        async with following(kube, most=4) as source:
            await source.first_adopted()
            catalog = source.current()
            await kube.put("Role", "second", ROLE)
            await eventually(lambda: source.current() is not catalog)
            catalog = source.current()
            await kube.put("Role", "third", ROLE)
            await eventually(lambda: source.following().trouble)
            assert "more than 4 documents" in source.following().trouble[0]
            assert source.current() is catalog
            await kube.delete("Role", "third")
            await eventually(lambda: not source.following().trouble)

    told(story)


def test_a_fault_of_ours_leaves_the_last_set_in_use_and_is_told() -> None:
    async def story(kube: FakeKube) -> None:
        broken: list[bool] = []

        def judge(_issuer: JwtIssuer) -> Iterable[Problem]:
            if broken:
                raise ZeroDivisionError
            return ()

        async with following(kube, judge_issuer=judge) as source:
            await source.first_adopted()
            catalog = source.current()
            with logged():
                broken.append(True)
                await kube.put("Role", "second", ROLE)
                await eventually(lambda: source.following().trouble)
            assert source.current() is catalog
            broken.clear()
            await eventually(lambda: roles(source) == ["deployer", "second"])
            assert not source.following().trouble

    told(story)


def test_a_reload_lists_everything_anew() -> None:
    async def story(kube: FakeKube) -> None:
        async with following(kube) as source:
            await source.first_adopted()
            await eventually(lambda: kube.watches["roles"])
            source.reload()
            await eventually(lambda: set(kube.lists.values()) == {2})

    told(story)


def test_the_time_of_the_last_answer_is_known() -> None:
    async def story(kube: FakeKube) -> None:
        async with following(kube) as source:
            assert source.following().last_contact_seconds is None
            await source.first_adopted()
            age = source.following().last_contact_seconds
            assert age is not None
            assert age < 2
            kube.silent = True
            kube.cut()
            await asyncio.sleep(0.3)
            later = source.following().last_contact_seconds
            assert later is not None
            assert later > 0.25

    told(story)


# CRDs that are not ours


def drop_status(kube: FakeKube) -> None:
    kube.resources.remove("policies/status")


def drop_effect(kube: FakeKube) -> None:
    statement = statement_of(kube)
    del statement["effect"]


def drop_operator(kube: FakeKube) -> None:
    del statement_of(kube)["condition"]["properties"]["StringLike"]


def drop_kind(kube: FakeKube) -> None:
    kube.openapi["components"]["schemas"].pop("com.openfaas.iam.v1.Role")


def statement_of(kube: FakeKube) -> dict[str, Any]:
    schema = kube.openapi["components"]["schemas"]["com.openfaas.iam.v1.Policy"]
    found: dict[str, Any] = schema["properties"]["spec"]["properties"]["statement"]["items"][
        "properties"
    ]
    return found


@pytest.mark.parametrize(
    ("foreign", "why"),
    [
        (drop_status, "policies/status"),
        (drop_effect, r"Policy.spec.statement[].effect"),
        (drop_operator, r"Policy.spec.statement[].condition.StringLike"),
        (drop_kind, "Role.spec.policy"),
    ],
)
def test_through_foreign_crds_nothing_is_adopted(
    foreign: Callable[[FakeKube], None], why: str
) -> None:
    async def story(kube: FakeKube) -> None:
        foreign(kube)
        async with following(kube) as source:
            await eventually(lambda: source.following().trouble)
            assert why in source.following().trouble[0]
            assert "kubectl apply" in source.following().trouble[0]
            assert is_awaited(source)
            assert not source.snapshot.objects

    with logged() as log:
        told(story)
    errors = [line["event"] for line in lines(log, "error")]
    assert errors == ["the CRDs cannot be used; nothing new is adopted"]


def test_a_map_of_any_keys_drops_nothing() -> None:
    async def story(kube: FakeKube) -> None:
        statement_of(kube)["condition"] = {"additionalProperties": {"type": "object"}}
        async with following(kube) as source:
            await source.first_adopted()

    told(story)


def test_crds_that_become_foreign_hold_the_last_set_until_they_are_mended() -> None:
    async def story(kube: FakeKube) -> None:
        async with following(kube) as source:
            await source.first_adopted()
            catalog = source.current()
            whole = kube.openapi
            kube.openapi = {"components": {"schemas": {}}}
            await kube.put("Policy", "viewer", {"statement": []})
            await eventually(lambda: source.following().trouble)
            await asyncio.sleep(0.3)
            assert source.current() is catalog
            before = kube.lists.copy()
            await kube.put("Policy", "viewer", POLICY)
            await kube.put("Role", "second", ROLE)
            kube.openapi = whole
            await eventually(lambda: roles(source) == ["deployer", "second"])
            # What was read through the foreign ones may have lost a field.
            assert all(kube.lists[plural] > number for plural, number in before.items())

    with logged():
        told(story)


def test_crds_that_are_not_there_are_waited_for() -> None:
    async def story(kube: FakeKube) -> None:
        kube.fault = failing(404)
        async with following(kube) as source:
            await eventually(lambda: source.following().trouble)
            kube.fault = fine
            await source.first_adopted()

    with logged():
        told(story)


def test_crds_that_cannot_be_looked_at_hold_changes_up() -> None:
    async def story(kube: FakeKube) -> None:
        async with following(kube) as source:
            await source.first_adopted()
            kube.fault = failing(403, API_VERSION)
            await kube.put("Role", "second", ROLE)
            await eventually(lambda: source.following().trouble)
            assert "HTTP 403" in source.following().trouble[0]
            assert roles(source) == ["deployer"]
            kube.fault = fine
            await eventually(lambda: roles(source) == ["deployer", "second"])
            assert not source.following().trouble

    told(story)


# Files beside objects


def test_files_and_objects_are_united_and_both_are_followed() -> None:
    async def story(kube: FakeKube) -> None:
        async with following(kube) as source:
            files = FakeSource(Catalog())
            source.unite_with(files)
            await source.first_adopted()
            files.catalog = catalog_of(DOCUMENTS)
            source.files_changed()
            await eventually(lambda: len(source.current().issuers) == 4)
            assert ISS in source.current().issuers
            await kube.delete("JwtIssuer", "ci")
            await eventually(lambda: ISS not in source.current().issuers)
            verdict = source.snapshot.united.verdicts["Role", "deployer"]
            assert verdict.standing is not Standing.ACCEPTED

    told(story)
