"""
Bundles of CA certificates in PEM: loaded into a TLS context, or refused with what is wrong.

OpenSSL says only that it found no certificate. A bundle is made by people: it is empty, in DER,
folded into one line, in UTF-16, or holds the private key instead.
"""

from __future__ import annotations

import os
import re
import ssl
import stat
from contextlib import suppress
from pathlib import Path

from federation.text import printable

_BUNDLE_BYTES = 16 * 1024 * 1024
_PATH_CHARS = 300
_BEGIN = re.compile(rb"-----BEGIN (?:TRUSTED |X509 )?CERTIFICATE-----")
_BEGIN_LINE = re.compile(rb"(?m)^-----BEGIN (?:TRUSTED |X509 )?CERTIFICATE-----[ \t]*\r?$")
_UTF_8_MARK = b"\xef\xbb\xbf"
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")


def load_file(context: ssl.SSLContext, path: Path) -> str:
    """Trust the certificates in the file *path*. Return what is wrong with it, empty if nothing."""
    content, fault = _read(path)
    if fault:
        return fault
    try:
        # By its path, since a block "TRUSTED CERTIFICATE" is read from files only.
        context.load_verify_locations(cafile=path)
    except OSError:  # that of TLS is one of these
        return f"{shown(path)} {_unreadable(content)}"
    return ""


def file_fault(path: Path) -> str:
    """Return why the file *path* cannot be a bundle of certificates, empty if it may be one."""
    _, fault = _read(path)
    return fault


def load_text(context: ssl.SSLContext, pem: str) -> str:
    """Trust the certificates in *pem*. Return what is wrong with it, empty if nothing."""
    # Comments between certificates may have any letters, and this way takes ASCII only.
    content = pem.encode("ascii", "replace")
    if fault := pem_fault(content):
        return fault
    try:
        context.load_verify_locations(cadata=content.decode("ascii"))
    except (OSError, ValueError):
        return _unreadable(content)
    return ""


def pem_fault(content: bytes) -> str:
    """Return why *content* cannot be a bundle of certificates in PEM, empty if it may be one."""
    begun = len(_BEGIN.findall(content))
    if begun and content.startswith(_UTF_8_MARK):
        return "begins with a byte order mark: save it as ASCII"
    if begun and len(_BEGIN_LINE.findall(content)) < begun:
        return (
            "has a certificate without its line breaks: -----BEGIN CERTIFICATE----- and"
            " -----END CERTIFICATE----- must be lines of their own, with nothing before them"
        )
    return "" if begun else _other_content(content)


def _other_content(content: bytes) -> str:
    """Say what *content* is instead of certificates in PEM."""
    if not content.strip():
        return "is empty"
    if content[:2] in _UTF_16:
        return "is in UTF-16: save it as UTF-8 or ASCII"
    if content[:1] == b"\x30" and not content[:64].isascii():
        return "is in DER, not in PEM: convert it with `openssl x509 -inform der`"
    if b"PRIVATE KEY-----" in content:
        return "holds a private key, and no certificate: write the CA's certificate"
    return "holds no certificate in PEM (-----BEGIN CERTIFICATE-----)"


def shown(path: Path) -> str:
    """Return *path*, printable."""
    return printable(str(path), _PATH_CHARS)


def _read(path: Path) -> tuple[bytes, str]:
    """Return what is in *path*, and what is wrong with it."""
    try:
        # A pipe without a writer would block, and a device would never end.
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0))
        try:
            mode, content = os.fstat(file).st_mode, b""
            if not stat.S_ISREG(mode):
                folder = "is a folder, not a file"
                return b"", f"{shown(path)} {folder if stat.S_ISDIR(mode) else 'is not a file'}"
            while len(content) <= _BUNDLE_BYTES and (piece := os.read(file, _BUNDLE_BYTES)):
                content += piece
        finally:
            os.close(file)
    except OSError as error:
        return b"", f"{shown(path)}: {error.strerror or type(error).__name__}"
    if len(content) > _BUNDLE_BYTES:
        return b"", f"{shown(path)} has more than {_BUNDLE_BYTES // 1024**2} MiB"
    fault = pem_fault(content)
    return content, f"{shown(path)} {fault}" if fault else ""


def _unreadable(content: bytes) -> str:
    """Say which certificate in *content* cannot be read."""
    starts = [mark.start() for mark in _BEGIN.finditer(content)]
    for number, start in enumerate(starts, 1):
        end = starts[number] if number < len(starts) else len(content)
        with suppress(OSError, ValueError):
            pem = content[start:end].decode("ascii", "ignore")
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=pem)
            continue
        return f"has a certificate that cannot be read: number {number} of {len(starts)}"
    return "has a certificate that cannot be read"
