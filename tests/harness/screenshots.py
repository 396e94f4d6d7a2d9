"""
Pictures of the dashboard's pages for `docs/`, made by a real browser at a real dashboard.

`python -m tests.harness.screenshots [FOLDER]` writes them, by default into `docs/screenshots`. Each
is a PNG of few colours, so that all together stay small.
"""

from __future__ import annotations

import struct
import sys
import tempfile
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tests.harness.browser import chromium_running, person_in
from tests.harness.dashboard_stage import Stage, stage_for
from tests.harness.oidc_provider import oidc_provider_running

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

_FOLDER = Path(__file__).parents[2] / "docs" / "screenshots"
_COLOURS = 64
_SIGNATURE = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Shot:
    """A picture of the page at *path*."""

    name: str
    path: str
    scheme: Literal["light", "dark"] = "light"
    width: int = 1000
    height: int = 720
    scroll_to: str = ""
    session: bool = True
    """Whether Alice has signed in."""


SHOTS = (
    Shot("welcome", "/", height=420, session=False),
    Shot("refused", "/auth/callback?state=foreign", height=420, session=False),
    Shot("signed-out", "/auth/signed-out", height=420, session=False),
    Shot("you", "/"),
    Shot("functions", "/functions?namespace=dev", height=600),
    Shot("function", "/functions/dev/figlet", height=820),
    Shot("scaling", "/functions/dev/figlet/scaling", height=420),
    Shot("delete", "/functions/dev/figlet/delete", height=420),
    Shot("invoke", "/functions/dev/figlet/invoke", height=640),
    Shot("logs", "/functions/dev/figlet/logs", scheme="dark", height=560),
    Shot("events", "/events?outcome=refused", height=560),
    Shot("why", "the newest refusal", height=900, scroll_to="#answer-heading"),
    Shot("documents", "/documents", height=620),
    Shot("document", "/documents/Role/deployer"),
    Shot("what-if", "/what-if?sample=github+main", scheme="dark"),
    Shot("who-can", "/who-can?action=Function:Create&resource=dev:figlet"),
    Shot("telephone", "/functions/dev/figlet", width=360, height=720),
)


def main(folder: Path) -> None:
    """Write every picture into *folder*."""
    folder.mkdir(parents=True, exist_ok=True)
    with staged() as stage, chromium_running() as browser:
        for shot in SHOTS:
            (folder / f"{shot.name}.png").write_bytes(fewer_colours(taken(browser, stage, shot)))


@contextmanager
def staged() -> Iterator[Stage]:
    """A dashboard that has something to show."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with (
            oidc_provider_running(folder / "provider") as provider,
            stage_for(folder, provider) as stage,
        ):
            stage.deploy("figlet", "registry.example.com/figlet:1.4.2")
            for job in ("feature", "stranger", "feature"):
                stage.refuse(job)
            for path in ("", "hello", "banner", "status"):
                stage.directly("POST", f"/function/figlet.dev/{path}")
            yield stage


def taken(browser: Browser, stage: Stage, shot: Shot) -> bytes:
    """The picture, as Chromium writes it."""
    size = {"width": shot.width, "height": shot.height}
    with person_in(browser, color_scheme=shot.scheme, viewport=size) as person:
        if shot.session:
            person.page.goto(f"{stage.url}/auth/login")
            person.sign_in("alice")
        _open(person.page, stage, shot)
        return person.page.screenshot()


def _open(page: Page, stage: Stage, shot: Shot) -> None:
    if shot.path.startswith("/"):
        page.goto(stage.url + shot.path)
    else:
        page.goto(f"{stage.url}/events?kind=exchange&outcome=refused")
        page.click("tbody a >> nth=0")
    if shot.scroll_to:
        page.evaluate(f"document.querySelector('{shot.scroll_to}').scrollIntoView()")


# PNG (ISO/IEC 15948), as far as a browser's pictures need it


def fewer_colours(png: bytes) -> bytes:
    """The picture *png* with a palette of its most frequent colours."""
    width, height, pixels = _pixels(png)
    counted = Counter(pixels)
    palette = [colour for colour, _ in counted.most_common(_COLOURS)]
    nearest = {colour: _nearest(colour, palette) for colour in counted}
    rows = b"".join(
        b"\0" + bytes(nearest[each] for each in pixels[y * width : (y + 1) * width])
        for y in range(height)
    )
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    return b"".join(
        (
            _SIGNATURE,
            _chunk(b"IHDR", header),
            _chunk(b"PLTE", b"".join(bytes(colour) for colour in palette)),
            _chunk(b"IDAT", zlib.compress(rows, 9)),
            _chunk(b"IEND", b""),
        )
    )


def _nearest(colour: tuple[int, ...], palette: list[tuple[int, ...]]) -> int:
    def distance(place: int) -> int:
        return sum((a - b) ** 2 for a, b in zip(colour, palette[place], strict=True))

    return min(range(len(palette)), key=distance)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _pixels(png: bytes) -> tuple[int, int, list[tuple[int, ...]]]:
    """Width, height and the colours of a picture in true colour, without interlacing."""
    width, height, depth, kind = struct.unpack(">IIBB", png[16:26])
    assert (depth, kind) in {(8, 2), (8, 6)}, "the browser writes another kind of PNG"
    size = 3 if kind == 2 else 4
    data, place = bytearray(), len(_SIGNATURE)
    while place < len(png):
        length = int.from_bytes(png[place : place + 4])
        if png[place + 4 : place + 8] == b"IDAT":
            data += png[place + 8 : place + 8 + length]
        place += length + 12
    rows = _unfiltered(zlib.decompress(bytes(data)), width * size, height, size)
    return (
        width,
        height,
        [tuple(row[x : x + 3]) for row in rows for x in range(0, width * size, size)],
    )


def _unfiltered(raw: bytes, length: int, height: int, size: int) -> Iterator[bytes]:
    """The rows without their filters (section 9.2)."""
    above = bytes(length)
    for number in range(height):
        start = number * (length + 1)
        kind, row = raw[start], bytearray(raw[start + 1 : start + 1 + length])
        for x in range(length):
            left = row[x - size] if x >= size else 0
            up, corner = above[x], above[x - size] if x >= size else 0
            match kind:
                case 1:
                    row[x] = (row[x] + left) & 255
                case 2:
                    row[x] = (row[x] + up) & 255
                case 3:
                    row[x] = (row[x] + (left + up) // 2) & 255
                case 4:
                    row[x] = (row[x] + _paeth(left, up, corner)) & 255
        above = bytes(row)
        yield above


def _paeth(left: int, up: int, corner: int) -> int:
    guess = left + up - corner
    return min((left, up, corner), key=lambda each: abs(guess - each))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else _FOLDER)
