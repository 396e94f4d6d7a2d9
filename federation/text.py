"""
Text from outside, made safe to show: on one line, bounded, with nothing that a terminal obeys.

Names, claims and values come from people who may be hostile. A message that quotes one must not
let it end the line, move the cursor, or pass for another part of the message.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches

_QUOTED_CHARS = 80
_OAUTH_CHARS = 200
_WORD_CHARS = 128
_LISTED_CHARS = 500


def printable(text: str, limit: int | None = None) -> str:
    """
    *text* on one line, each character that is not printable written as a Python escape.

    With *limit* the result has at most so many characters and ends in `...` where it was cut.
    """
    cut = text if limit is None else text[: limit + 1]
    if not cut.isprintable():
        cut = "".join(
            char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
            for char in cut
        )
    return cut if limit is None or len(cut) <= limit else cut[: limit - 3] + "..."


def no_command(line: str) -> str:
    """
    *line*, printable, such that no CI runner takes it for a command.

    GitHub obeys `::name::` at the start of a line, white space aside, and `##[name]` anywhere;
    Azure Pipelines obeys `##vso[name]` anywhere. A path at the start of the line stays a path.
    """
    shown = printable(line)
    if shown.lstrip().startswith("::"):
        shown = f"./{shown}"
    return no_command_within(shown)


def no_command_within(line: str) -> str:
    """*line* with every `##[` and `##vso[` broken up."""
    return re.sub(r"##(?=\[|vso\[)", "# #", line)


def no_command_in_json(written: str) -> str:
    """Return the JSON *written* such that no CI runner finds a command. It stands for the same values."""
    return written.replace("##", "#\\u0023")


def quoted(text: str, limit: int = _QUOTED_CHARS) -> str:
    """*text* in double quotes as YAML reads it, printable, at most *limit* characters within."""
    escaped = text[: limit + 1].replace("\\", "\\\\").replace('"', '\\"')
    return f'"{printable(escaped, limit)}"'


def oauth_safe(text: str, limit: int = _OAUTH_CHARS) -> str:
    """
    *text* as an OAuth error description may hold it, at most *limit* of its characters.

    RFC 6749, section 5.2 allows printable ASCII without `"` and `\\`. Everything else is
    percent-encoded as UTF-8.
    """
    cut = text if len(text) <= limit else text[:limit] + "..."
    return re.sub(r"[^ !#-\[\]-~]", _percent_encoded, cut)


def nearest(word: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The one of *known* that *word* was probably meant to be, None where none is close."""
    if len(word) > _WORD_CHARS:
        return None
    lowered = {choice.lower(): choice for choice in known}
    close = get_close_matches(word.lower(), lowered, n=1, cutoff=cutoff)
    return lowered[close[0]] if close else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint that names the nearest of *known*, or lists all of them where none is close."""
    choices = tuple(known)
    near = nearest(word, choices)
    return f"did you mean {near}?" if near else f"known here: {', '.join(choices)}"


def listed(text: str) -> str:
    """
    A hint for *text* that lists several values in one with commas, empty if it does not.

    A long one is not written out: it may be a megabyte of commas.
    """
    if len(text) > _LISTED_CHARS:
        return "write each as a value of its own" if "," in text else ""
    parts = [part.strip() for part in text.split(",")]
    if len(parts) < 2 or not all(parts):
        return ""
    return f"write each as a value of its own: [{', '.join(map(quoted, parts))}]"


def host_and_port(host: str, port: int) -> str:
    """*host* and *port* as a URL has them: an IPv6 address stands in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def counted(number: int, thing: str) -> str:
    """*number* and *thing*, in the plural unless there is one: `1 error`, `2 errors`."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


def _percent_encoded(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match[0].encode("utf-8", "replace"))
