"""Certificates that are in memory, given to a library that reads them from files only."""

from __future__ import annotations

import os
import ssl
import sys
import tempfile
from pathlib import Path
from typing import IO


def load_certificate(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    """
    Show *certificate* in every handshake of *context* from now on. Both are PEM.

    Nobody else can read the file, and it is gone afterwards. Where the system has that, it is in
    memory: a restricted pod has no folder to write to. Raises: ssl.SSLError.
    """
    if sys.platform == "linux":
        with os.fdopen(os.memfd_create("federation-certificate"), "wb") as file:
            _load(context, certificate, key, file, Path(f"/proc/self/fd/{file.fileno()}"))
    else:
        with tempfile.NamedTemporaryFile() as file:
            _load(context, certificate, key, file, Path(file.name))


def _load(
    context: ssl.SSLContext, certificate: bytes, key: bytes, file: IO[bytes], path: Path
) -> None:
    file.write(certificate + b"\n" + key)
    file.flush()
    context.load_cert_chain(path, password="")  # without one, a terminal would be asked
