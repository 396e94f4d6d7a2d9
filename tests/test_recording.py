"""The audit event of a request is recorded before its response, whatever happens."""

from __future__ import annotations

import asyncio

import pytest

from federation.audit.event import Standing, Trail
from federation.audit.recording import Recording
from federation.errors import HttpError, Reason, Refusal
from tests.harness.broker import FakeJournal
from tests.harness.builders import NOW


class Teapot(HttpError):
    status = 418


def run(
    journal: FakeJournal,
    error: BaseException | None,
    *,
    audited: bool = True,
    status: int = 0,
    standing: Standing = Standing.ADMITTED,
) -> None:
    """A request that is answered with *status*, or ends with *error*."""

    async def request() -> None:
        trail = Trail("r", "POST", "/", NOW, standing)
        async with Recording(journal, trail, audited=audited) as recording:
            recording.check()
            if status:
                await recording.record(status)
            if error is not None:
                raise error

    asyncio.run(request())


def test_an_error_is_recorded_with_its_status_sentence_and_evidence() -> None:
    journal = FakeJournal()
    with pytest.raises(Teapot):
        run(journal, Teapot("I am one.", evidence={"got": "coffee"}))
    (event,) = journal.events
    assert (event.response_code, event.reason) == (418, None)
    assert event.custom_message == 'I am one. Evidence: {"got":"coffee"}'


def test_the_reason_of_a_refusal_is_recorded() -> None:
    journal = FakeJournal()
    with pytest.raises(Refusal):
        run(journal, Refusal(Reason.EXPIRED))
    assert [(e.response_code, e.reason) for e in journal.events] == [(400, Reason.EXPIRED)]


def test_an_unexpected_exception_is_recorded_without_its_text() -> None:
    journal = FakeJournal()
    with pytest.raises(KeyError):
        run(journal, KeyError("hunter2"))
    (event,) = journal.events
    assert (event.response_code, event.reason) == (500, Reason.SERVER_ERROR)
    assert "hunter2" not in str(event)


def test_an_error_that_cannot_be_recorded_is_replaced_by_the_journals_refusal() -> None:
    journal = FakeJournal()
    journal.failure = Refusal(Reason.AUDIT_UNAVAILABLE)
    with pytest.raises(Refusal) as refused:
        run(journal, Teapot("I am one."))
    assert refused.value.reason is Reason.AUDIT_UNAVAILABLE
    assert isinstance(refused.value.__context__, Teapot), "the log shows both"


def test_an_unexpected_exception_stays_itself_if_it_cannot_be_recorded() -> None:
    journal = FakeJournal()
    journal.failure = Refusal(Reason.AUDIT_UNAVAILABLE)
    with pytest.raises(KeyError):
        run(journal, KeyError("a bug"))


@pytest.mark.parametrize("error", [Teapot("I am one."), KeyError("a bug")])
def test_a_request_leaves_one_event_also_if_it_fails_after_its_response_began(
    error: Exception,
) -> None:
    journal = FakeJournal()
    with pytest.raises(type(error)):
        run(journal, error, status=200)
    assert [event.response_code for event in journal.events] == [200]


@pytest.mark.parametrize("error", [Teapot("I am one."), KeyError("a bug")])
def test_a_request_that_is_not_audited_needs_no_journal(error: Exception) -> None:
    journal = FakeJournal()
    journal.failure = journal.failed = Refusal(Reason.AUDIT_UNAVAILABLE)
    with pytest.raises(type(error)):
        run(journal, error, audited=False)
    run(journal, None, audited=False, status=200)
    assert journal.events == []


def test_what_cannot_be_recorded_is_known_before_it_is_done() -> None:
    journal = FakeJournal()
    journal.failed = Refusal(Reason.AUDIT_UNAVAILABLE)
    with pytest.raises(Refusal):
        run(journal, None)


def test_a_cancelled_request_is_not_held_up_by_the_journal() -> None:
    journal = FakeJournal()
    with pytest.raises(asyncio.CancelledError):
        run(journal, asyncio.CancelledError())
    assert journal.events == []


@pytest.mark.parametrize("error", [None, Teapot("I am one."), KeyError("a bug")])
def test_a_request_of_somebody_unknown_makes_no_event(error: Exception | None) -> None:
    journal = FakeJournal()
    journal.failure = journal.failed = Refusal(Reason.AUDIT_UNAVAILABLE)
    if error is None:
        run(journal, None, status=200, standing=Standing.UNKNOWN)
    else:
        with pytest.raises(type(error)):
            run(journal, error, standing=Standing.UNKNOWN)
    assert journal.events == []


def test_only_the_event_of_somebody_admitted_is_owed() -> None:
    journal = FakeJournal()
    run(journal, None, status=200, standing=Standing.OUTSIDER)
    run(journal, None, status=200, standing=Standing.ADMITTED)
    assert [event.owed for event in journal.events] == [False, True]


def test_a_journal_that_cannot_take_what_is_owed_does_not_concern_an_outsider() -> None:
    journal = FakeJournal()
    journal.failed = Refusal(Reason.AUDIT_UNAVAILABLE)
    run(journal, None, status=200, standing=Standing.OUTSIDER)
    assert [event.response_code for event in journal.events] == [200]
