"""The style sheet and the icon. They hold nothing about anybody, so browsers may keep them."""

from __future__ import annotations

from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

_FOLDER = Path(__file__).parents[1] / "static"
_KEPT = {"Cache-Control": "public, max-age=300"}


async def style(_request: Request) -> Response:
    """Return the style sheet."""
    return Response(_read("style.css"), media_type="text/css", headers=_KEPT)


async def icon(_request: Request) -> Response:
    """Return the icon that browsers show beside the title."""
    return Response(_read("icon.svg"), media_type="image/svg+xml", headers=_KEPT)


def _read(name: str) -> bytes:
    return (_FOLDER / name).read_bytes()  # a few KiB that the system keeps in memory
