"""
The URL, CA, token and client certificate for an API server, from a pod's folder or a kubeconfig.

Nothing here is remembered: each call reads the files again, since tokens and CAs are replaced
while the broker runs. No message holds anything of a file's content but names and URLs.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from federation.documents.values import loopback
from federation.text import quoted

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")

_TOKEN_BYTES = 64 * 1024
_PEM_BYTES = 1024 * 1024
_KUBECONFIG_BYTES = 1024 * 1024
_BEARER_TOKEN = re.compile(rb"[A-Za-z0-9._~+/-]+=*")  # RFC 6750, section 2.1
_URL = re.compile(r"https?://[A-Za-z0-9._\-\[\]:%]+(/[A-Za-z0-9._~%/-]*)?")

_REFUSED_OF_USERS = {
    "exec": "runs a program to get a token (exec), which the broker does not;"
    " make a kubeconfig with the token of a ServiceAccount, by tokenFile or token",
    "auth-provider": "uses an auth-provider, which the broker does not know;"
    " make a kubeconfig with the token of a ServiceAccount, by tokenFile or token",
    "username": "uses a password, which API servers no longer accept; use token or tokenFile",
    "as": "acts as somebody else (as), which the broker does not; name that user itself",
}
_REFUSED_OF_CLUSTERS = {
    "insecure-skip-tls-verify": "does not verify the API server (insecure-skip-tls-verify);"
    " set certificate-authority instead",
    "proxy-url": "uses proxy-url, which the broker does not;"
    " set HTTPS_PROXY in the broker's environment",
}


class KubeconfigRefused(Exception):
    """A kubeconfig that cannot be used, with the reason."""


class AccessUnreadable(Exception):
    """A file with the token, the CA or a certificate that cannot be read now."""


@dataclass(frozen=True, slots=True)
class Access:
    """All that a client needs to reach an API server."""

    url: str
    """Without a slash at its end."""
    ca: str | None = None
    """PEM. None: the machine's trust store."""
    token: str | None = field(default=None, repr=False)
    certificate: tuple[bytes, bytes] | None = field(default=None, repr=False)
    """The client certificate and its key, PEM."""
    server_name: str | None = None
    """The name in the API server's certificate, if it is not the host of *url*."""


def pod_access(host: str, port: str, folder: Path = SERVICE_ACCOUNT) -> Access:
    """Return the access of a pod, whose token and CA are in *folder*. Raises: AccessUnreadable."""
    literal = f"[{host}]" if ":" in host else host
    return Access(
        f"https://{literal}:{port}",
        ca=_ca_of(folder / "ca.crt"),
        token=_token_in(folder / "token"),
    )


@dataclass(frozen=True, slots=True)
class Kubeconfig:
    """One context of a kubeconfig. It is chosen once: a later `use-context` changes nothing."""

    path: Path
    context: str
    url: str

    @classmethod
    def current(cls, path: Path) -> Kubeconfig:
        """Return the current context of *path*. Raises: KubeconfigRefused, AccessUnreadable."""
        content = _kubeconfig(path)
        name = content.get("current-context")
        if not isinstance(name, str) or not name:
            raise KubeconfigRefused(
                f"{path} has no current-context; choose one: kubectl config use-context NAME"
            )
        access = _access_of(content, name, path)
        return cls(path, name, access.url)

    def access(self) -> Access:
        """Read the access again. Raises: KubeconfigRefused, AccessUnreadable."""
        access = _access_of(_kubeconfig(self.path), self.context, self.path)
        if access.url != self.url:
            raise KubeconfigRefused(
                f"{self.path} names another server now, {access.url}; restart the broker"
            )
        return access


def _kubeconfig(path: Path) -> Mapping[str, Any]:
    try:
        content = yaml.safe_load(_read(path, _KUBECONFIG_BYTES))
    except (AccessUnreadable, OSError) as error:
        raise KubeconfigRefused(str(error)) from None
    except (yaml.YAMLError, ValueError, RecursionError):
        raise KubeconfigRefused(f"{path} is not YAML") from None  # the text may hold secrets
    if not isinstance(content, dict) or content.get("kind") != "Config":
        raise KubeconfigRefused(f"{path} is not a kubeconfig: it needs kind: Config")
    return content


def _access_of(content: Mapping[str, Any], name: str, path: Path) -> Access:
    context = _entry(content, "contexts", "context", name, path)
    cluster = _entry(content, "clusters", "cluster", context.get("cluster"), path)
    user = _entry(content, "users", "user", context.get("user"), path)
    for given, refused, what in (
        (cluster, _REFUSED_OF_CLUSTERS, "cluster"),
        (user, _REFUSED_OF_USERS, "user"),
    ):
        for key, why in refused.items():
            if given.get(key):
                raise KubeconfigRefused(f"{path}: the current context's {what} {why}")
    return Access(
        _server(cluster.get("server"), path),
        ca=_given_ca(cluster, path),
        token=_given_token(user, path),
        certificate=_given_certificate(user, path),
        server_name=_text(cluster, "tls-server-name", path),
    )


def _entry(
    content: Mapping[str, Any], plural: str, kind: str, name: object, path: Path
) -> Mapping[str, Any]:
    """Return the cluster, user or context called *name*."""
    entries = content.get(plural)
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, dict) and isinstance(name, str) and entry.get("name") == name:
            found = entry.get(kind)
            if isinstance(found, dict):
                return found
    raise KubeconfigRefused(f"{path} has no {kind} {quoted(str(name), 80)}")


def _server(url: object, path: Path) -> str:
    if not isinstance(url, str) or not _URL.fullmatch(url):
        raise KubeconfigRefused(f"{path}: its server must be like https://10.0.0.1:6443")
    try:
        host, _port = urlsplit(url).hostname or "", urlsplit(url).port
    except ValueError:
        raise KubeconfigRefused(f"{path}: its server must be like https://10.0.0.1:6443") from None
    if url.startswith("http:") and not loopback(host):
        raise KubeconfigRefused(f"{path}: its server must be https; http is for loopback only")
    return url.rstrip("/")


def _given_ca(cluster: Mapping[str, Any], path: Path) -> str | None:
    if data := _data(cluster, "certificate-authority-data", path):
        return _pem(data, f"{path}: certificate-authority-data")
    if file := _file(cluster, "certificate-authority", path):
        return _ca_of(file)
    return None


def _given_token(user: Mapping[str, Any], path: Path) -> str | None:
    # The file wins, as in kubectl: it is the one that is renewed.
    if file := _file(user, "tokenFile", path):
        return _token_in(file)
    token = _text(user, "token", path)
    return _bearer(token.encode(), f"{path}: token") if token else None


def _given_certificate(user: Mapping[str, Any], path: Path) -> tuple[bytes, bytes] | None:
    parts = []
    for name in ("client-certificate", "client-key"):
        part = _data(user, f"{name}-data", path)
        file = _file(user, name, path)
        if part is None and file is not None:
            part = _read(file, _PEM_BYTES)
        parts.append(part)
    certificate, key = parts
    if (certificate is None) != (key is None):
        raise KubeconfigRefused(
            f"{path}: client-certificate and client-key need each other; set both"
        )
    return (certificate, key) if certificate is not None and key is not None else None


def _text(given: Mapping[str, Any], name: str, path: Path) -> str | None:
    value = given.get(name)
    if value is not None and not isinstance(value, str):
        raise KubeconfigRefused(f"{path}: {name} must be a text")
    return value or None


def _data(given: Mapping[str, Any], name: str, path: Path) -> bytes | None:
    text = _text(given, name, path)
    try:
        return base64.b64decode(text, validate=True) if text else None
    except (binascii.Error, ValueError):
        raise KubeconfigRefused(f"{path}: {name} is not base64") from None


def _file(given: Mapping[str, Any], name: str, path: Path) -> Path | None:
    """Return a file that the kubeconfig names; a relative one is beside the kubeconfig."""
    text = _text(given, name, path)
    return path.parent / text if text else None


def _ca_of(path: Path) -> str:
    return _pem(_read(path, _PEM_BYTES), str(path))


def _pem(data: bytes, place: str) -> str:
    if b"-----BEGIN CERTIFICATE-----" not in data or not data.isascii():
        raise AccessUnreadable(f"{place} holds no certificate in PEM")
    return data.decode("ascii")


def _token_in(path: Path) -> str:
    return _bearer(_read(path, _TOKEN_BYTES), str(path))


def _bearer(content: bytes, place: str) -> str:
    token = content.strip()
    if not _BEARER_TOKEN.fullmatch(token):
        raise AccessUnreadable(f"{place} does not hold one bearer token")
    return token.decode("ascii")


def _read(path: Path, limit: int) -> bytes:
    """Return the content of a regular file. A link is followed: projected tokens are links."""
    try:
        # A pipe without a writer would block, and a device would never end.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise AccessUnreadable(f"{path} is not a file")
            content = file.read(limit + 1)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "not a path"
        raise AccessUnreadable(f"{path} cannot be read: {why}") from None
    if len(content) > limit:
        raise AccessUnreadable(f"{path} has more than {limit} bytes")
    return content
