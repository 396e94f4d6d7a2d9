"""
faas-cli's own configuration: the access token where an unmodified faas-cli looks for it.

faas-cli finds an entry by the gateway's exact text, which it has lowered and stripped of a
slash at the end. A `basic` entry for the same gateway would silently win over any token, so it
is replaced, and the caller is told. Everything else in the file is kept.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import yaml

from federation.client import ClientError

__all__ = ["config_path", "gateway_name", "save_token"]

_CONFIG_BYTES = 1024 * 1024


def config_path(environ: Mapping[str, str], here: Path, home: Path) -> Path:
    """Where faas-cli keeps its configuration: as told, in the workspace in CI, else at home."""
    if folder := environ.get("OPENFAAS_CONFIG"):
        return Path(folder) / "config.yml"
    in_ci = environ.get("CI", "") in {"true", "1"}
    return (here if in_ci else home) / ".openfaas" / "config.yml"


def gateway_name(url: str) -> str:
    """*url* as faas-cli writes it when it looks for an entry."""
    return url.lower().rstrip("/")


def save_token(path: Path, url: str, token: str) -> list[str]:
    """
    faas-cli uses *token* for the gateway at *url*; the file is its owner's alone.

    Returns the ways of signing in that were replaced, such as `basic`.
    Raises: ClientError where the file is there and is not faas-cli's.
    """
    gateway = gateway_name(url)
    config = _read(path)
    entries = config.get("auths") or []
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise _foreign(path)
    ours = [e for e in entries if gateway_name(str(e.get("gateway", ""))) == gateway]
    others = [entry for entry in entries if entry not in ours]
    new = {"gateway": gateway, "auth": "oauth2", "token": token}
    _write(path, {**config, "auths": [*others, new]})
    return [str(entry.get("auth", "")) for entry in ours]


def _read(path: Path) -> dict[str, object]:
    try:
        with path.open("rb") as file:
            config = yaml.safe_load(file.read(_CONFIG_BYTES))
    except FileNotFoundError:
        return {}
    except (OSError, yaml.YAMLError, ValueError, RecursionError) as error:
        raise _foreign(path) from error
    if config is not None and not isinstance(config, dict):
        raise _foreign(path)
    return config or {}


def _write(path: Path, config: Mapping[str, object]) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".config-")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                yaml.safe_dump(dict(config), file, sort_keys=False)
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ClientError(f"faas-cli's configuration cannot be written: {error}.") from error


def _foreign(path: Path) -> ClientError:
    return ClientError(
        f"{path} is there, but is not a configuration of faas-cli.",
        "Move it away, or set OPENFAAS_CONFIG to another folder.",
    )
