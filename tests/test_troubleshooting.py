"""
docs/troubleshooting.md is complete: every message that a user can meet has an entry there.

The messages are collected from the code, so a new one fails here until it has its entry. An entry
is a heading of the third level or a cell in the first column of a table; `<br>` separates several,
and `…` in it stands for anything. It covers each message that holds its words.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from tests.harness.messages import ANY, Message, messages

PAGE = Path(__file__).parents[1] / "docs" / "troubleshooting.md"
FEWEST_LETTERS = 5
"""An entry with fewer could cover messages that it does not explain."""


@dataclass(frozen=True)
class Entry:
    """Words of the page that cover messages."""

    words: str
    explained: bool = True
    """True if the page says a cause or what to do beside it."""
    heading: bool = False
    """A heading covers a message that holds its words, a cell one that begins with them."""

    @property
    def letters(self) -> int:
        return len(re.sub(r"[\W_]", "", self.words))

    def covers(self, message: Message) -> bool:
        pattern = ".*?".join(re.escape(part.strip()) for part in self.words.split(ANY))
        find = re.search if self.heading else re.match
        return find(pattern, plain(message.text)) is not None


def plain(text: str) -> str:
    return re.sub(r"\s+", " ", text.replace("`", "").replace("\\|", "|")).strip()


@cache
def entries() -> tuple[Entry, ...]:
    text = PAGE.read_text("utf-8")
    found = [Entry(plain(t), heading=True) for t in re.findall(r"^### (.+)$", text, re.MULTILINE)]
    header = ""
    for line in text.splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        header = (header or cells[0]) if cells else ""
        if header == "message" and not cells[0].startswith(("message", "---")):
            explained = bool(cells[1] or cells[2])
            found += [Entry(plain(words), explained) for words in cells[0].split("<br>")]
    return tuple(found)


@pytest.mark.parametrize("message", messages(), ids=lambda message: message.text)
def test_every_message_that_a_user_can_meet_has_an_entry(message: Message) -> None:
    assert any(entry.covers(message) for entry in entries()), (
        f"{message.place} makes a message that docs/troubleshooting.md does not explain:"
        f" {message.text!r}. Add a row with its cause and what to do."
    )


@pytest.mark.parametrize("entry", entries(), ids=lambda entry: entry.words)
def test_each_entry_says_enough_to_be_found_and_has_an_explanation(entry: Entry) -> None:
    assert entry.letters >= FEWEST_LETTERS or entry.words.startswith("HTTP ")
    assert entry.explained


# The collection itself: a guard that finds nothing would pass.


def test_the_collection_finds_messages_in_each_part_of_the_program() -> None:
    rooms = {message.place.partition("/")[0] for message in messages()}
    assert rooms >= {"cli", "client", "config", "gateway", "issuers", "jose", "sign_on", "sources"}
    assert len(messages()) > 300


def collected(code: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> set[str]:
    from tests.harness import messages as harness

    (tmp_path / "room.py").write_text(code, "utf-8")
    ast.parse(code)
    monkeypatch.setattr(harness, "PACKAGE", tmp_path)
    return {message.text for message in harness.messages()}


@pytest.mark.parametrize(
    "code",
    [
        pytest.param("raise ClientError('Nothing works.')", id="a raised error"),
        pytest.param("def f(): return ClientError('Nothing works.', 'Do it.')", id="a made one"),
        pytest.param("class E(ClientError): pass\nraise E('Nothing works.')", id="a subclass"),
        pytest.param(
            "class E(ClientError):\n def __init__(self):\n  super().__init__('Nothing works.')",
            id="a constructor",
        ),
        pytest.param("raise click.UsageError('Nothing works.')", id="of click"),
        pytest.param("raise SettingsRefused(['Nothing works.'])", id="in a list"),
        pytest.param("why = 'Nothing works.'\nraise FetchFailed(why)", id="by a name"),
        pytest.param("raise FetchFailed('Nothing ' + 'works.')", id="put together"),
        pytest.param("raise FetchFailed(a or 'Nothing works.')", id="or"),
        pytest.param("raise FetchFailed('Nothing works.' if a else b)", id="if"),
    ],
)
def test_a_message_is_found_however_it_is_made(
    code: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert "Nothing works." in collected(code, monkeypatch, tmp_path)


def test_what_is_filled_in_is_left_open(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    code = "raise ClientError(f'{a} holds {b}.')"
    assert collected(code, monkeypatch, tmp_path) == {"… holds …."}


def test_a_new_message_is_not_covered_by_chance() -> None:
    invented = Message("The moon of gateway … is made of cheese.", "nowhere.py:1")
    assert not any(entry.covers(invented) for entry in entries())
