"""
Write new files, all of them or none, and never over one that is there.

They are made with `O_EXCL`, which follows no link at the end of a path.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from federation.client import ClientError
from federation.text import printable


def write_new(folder: Path, texts: Mapping[Path, str]) -> None:
    """
    Write each text to its path below *folder*.

    Raises: ClientError if one of them is there already. Then nothing was written.
    """
    taken = [path for path in texts if os.path.lexists(folder / path)]
    if taken:
        raise _taken(folder, taken)
    written: list[Path] = []
    try:
        for path, text in texts.items():
            place = folder / path
            place.parent.mkdir(parents=True, exist_ok=True)
            with place.open("x", encoding="utf-8") as file:
                written.append(place)
                file.write(text)
    except OSError as error:
        for place in written:
            place.unlink(missing_ok=True)
        if isinstance(error, FileExistsError):  # it was made in this moment
            raise _taken(folder, [Path(str(error.filename)).relative_to(folder)]) from error
        raise ClientError(
            f"{error.filename} cannot be written: {error.strerror}.",
            "Nothing was written. Give another folder with --into.",
        ) from error


def _taken(folder: Path, paths: list[Path]) -> ClientError:
    names = ", ".join(printable(str(folder / path)) for path in paths)
    verb = "are" if len(paths) > 1 else "is"
    return ClientError(
        f"{names} {verb} there already. Nothing was written.",
        "Move it away, or print what would be written with --print. With --only documents or --only"
        " workflow, just these files are written.",
    )
