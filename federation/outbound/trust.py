"""
Which CAs are trusted: those that `SSL_CERT_FILE` and `SSL_CERT_DIR` name, or the machine's.

Every TLS client of the house takes its context from here. So a certificate is judged alike by key
fetching, the webhook, the upstream and the Kubernetes API, and on each version of Python.

Python 3.13 turns on `VERIFY_X509_STRICT` in `ssl.create_default_context`. It refuses CAs without
key identifiers, which companies and clusters often have. It is off here, as in curl and Go.
"""

from __future__ import annotations

import os
import re
import ssl
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from federation.outbound.bundles import file_fault, load_file, load_text, shown
from federation.outbound.errors import OutboundError

_FOLDER_FILES = 2000
_HASHED = re.compile(r"[0-9a-f]{8}\.[0-9]+")
"""The name of a certificate in a folder that OpenSSL looks it up by."""
_WELL_KNOWN = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Alpine, Arch
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",  # Fedora, Red Hat, Amazon Linux
    "/etc/pki/tls/certs/ca-bundle.crt",  # the same, older
    "/etc/ssl/ca-bundle.pem",  # SUSE
    "/var/lib/ca-certificates/ca-bundle.pem",  # SUSE, newer
    "/etc/ssl/cert.pem",  # Alpine, BSD
    "/usr/local/share/certs/ca-root-nss.crt",  # FreeBSD
)
"""Builds of Python that were made elsewhere look where this machine has nothing (uv, pyenv)."""


@dataclass(frozen=True, slots=True)
class TrustStore:
    """Files and folders with trusted CAs. They are read anew for each context."""

    source: str
    """Their source, for people."""
    files: tuple[Path, ...] = ()
    folders: tuple[Path, ...] = ()
    of_the_system: bool = False
    """True on macOS and Windows, which are asked because they have no such files."""

    def __str__(self) -> str:
        """Return the source of the trusted CAs, with the files."""
        paths = ", ".join(shown(path) for path in (*self.files, *self.folders))
        return f"{self.source}: {paths}" if paths else self.source

    @property
    def empty(self) -> bool:
        """True if no CA is trusted."""
        return not (self.files or self.folders or self.of_the_system)

    def context(self) -> ssl.SSLContext:
        """
        Return a context that trusts these CAs and nothing else.

        Raises: OutboundError if a file or folder cannot be used.
        """
        if self.of_the_system:
            return _of_the_system()
        context = _context()
        problems = [load_file(context, path) for path in self.files]
        problems += _load_folders(context, self.folders)
        if any(problems):
            raise OutboundError(f"{self.source}: {problem}" for problem in problems if problem)
        return context


def given_store(environ: Mapping[str, str]) -> TrustStore | None:
    """
    Return the store that `SSL_CERT_FILE` and `SSL_CERT_DIR` name, None if neither is set.

    It replaces the machine's: the operator wrote down whom to trust.
    Raises: OutboundError with every problem.
    """
    file = environ.get("SSL_CERT_FILE", "").strip()
    folders = [part for part in environ.get("SSL_CERT_DIR", "").split(os.pathsep) if part.strip()]
    stores = []
    if file:
        stores.append(TrustStore("SSL_CERT_FILE", files=(Path(file),)))
    if folders:
        stores.append(TrustStore("SSL_CERT_DIR", folders=tuple(map(Path, folders))))
    problems = []
    for store in stores:
        try:
            store.context()
        except OutboundError as error:
            problems += [f"{problem}. {_ADVICE[store.source]}" for problem in error.problems]
    if problems:
        raise OutboundError(problems)
    if not stores:
        return None
    return TrustStore(
        " and ".join(store.source for store in stores),
        tuple(path for store in stores for path in store.files),
        tuple(path for store in stores for path in store.folders),
    )


_ADVICE = {
    "SSL_CERT_FILE": (
        "Set SSL_CERT_FILE to a file with the trusted CAs in PEM, or unset it to trust the"
        " machine's own"
    ),
    "SSL_CERT_DIR": (
        "Set SSL_CERT_DIR to a folder with the trusted CAs in PEM, or unset it to trust the"
        " machine's own"
    ),
}


def machine_store(
    file: str | None = None, folder: str | None = None, bundles: Sequence[str] = _WELL_KNOWN
) -> TrustStore:
    """
    Return the machine's own store: where OpenSSL was built to look, else a well-known bundle.

    *file* and *folder* are where OpenSSL looks. The store is empty if there is none at all.
    """
    if file is None and folder is None:
        if sys.platform in {"darwin", "win32"}:
            return TrustStore("the system's trust store", of_the_system=True)
        # The compiled paths. `set_default_verify_paths` would read the variables again.
        paths = ssl.get_default_verify_paths()
        file, folder = paths.openssl_cafile, paths.openssl_capath
    files = [Path(file)] if file and _is_bundle(Path(file)) else []
    folders = [Path(folder)] if folder and _hashed(Path(folder)) else []
    if not files and not folders:
        found = next((Path(path) for path in bundles if _is_bundle(Path(path))), None)
        files = [found] if found else []
    if not files and not folders:
        return TrustStore("no trusted CA was found on this machine")
    return TrustStore("the machine's trust store", tuple(files), tuple(folders))


def trusting(ca: str | Path) -> ssl.SSLContext:
    """
    Return a context that trusts only the certificates in *ca*: PEM text, or a file.

    Raises: OutboundError.
    """
    context = _context()
    # One of them may be an intermediate CA, or the server's own certificate: somebody pinned it.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    fault = load_file(context, ca) if isinstance(ca, Path) else load_text(context, ca)
    if fault:
        raise OutboundError([fault])
    return context


def _context() -> ssl.SSLContext:
    """
    Return a context that verifies chain and name, and has no trusted CA yet.

    It is made without `create_default_context`, whose flags differ from version to version, and
    which writes the secrets of all connections to the file in `SSLKEYLOGFILE`.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def _of_the_system() -> ssl.SSLContext:
    import truststore  # noqa: PLC0415  for macOS and Windows alone

    return truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _load_folders(context: ssl.SSLContext, folders: Sequence[Path]) -> list[str]:
    """Trust what is in *folders*. Return what is wrong with them, if none holds a certificate."""
    problems = [_load_folder(context, folder) for folder in folders]
    return problems if all(problems) else []


def _load_folder(context: ssl.SSLContext, folder: Path) -> str:
    """
    Trust the certificates in *folder*, and return what is wrong with it, empty if nothing.

    OpenSSL finds a certificate by its hashed name. If no file has such a name, all are read.
    """
    try:
        names = _names(folder)
    except NotADirectoryError:
        return f"{shown(folder)} is not a folder"
    except OSError as error:
        return f"{shown(folder)}: {error.strerror}"
    if any(_HASHED.fullmatch(name) for name in names):
        context.load_verify_locations(capath=folder)
        return ""
    faults = [load_file(context, folder / name) for name in names]
    return f"{shown(folder)} holds no file with certificates in PEM" if all(faults) else ""


def _names(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in islice(entries, _FOLDER_FILES))


def _is_bundle(path: Path) -> bool:
    return not file_fault(path)


def _hashed(folder: Path) -> bool:
    try:
        return any(_HASHED.fullmatch(name) for name in _names(folder))
    except OSError:
        return False
