"""
Save an access token in the configuration file of faas-cli.

faas-cli looks an entry up by the gateway's URL in lower case, without a slash at its end. It
prefers a `basic` entry to a token, so such an entry for the same gateway is replaced, and
`save_token` returns that it was. All other entries and settings stay.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import yaml

from federation.client import ClientError
from federation.ownership import fault

_CONFIG_BYTES = 1024 * 1024


def config_path(environ: Mapping[str, str], here: Path, home: Path) -> Path:
    """Return the file that faas-cli reads: in OPENFAAS_CONFIG, in CI here, else at home."""
    if folder := environ.get("OPENFAAS_CONFIG"):
        return Path(folder) / "config.yml"
    in_ci = environ.get("CI", "") in {"true", "1"}
    return (here if in_ci else home) / ".openfaas" / "config.yml"


def gateway_name(url: str) -> str:
    """Return *url* in the form in which faas-cli looks an entry up."""
    return url.lower().rstrip("/")


def saved_entries(path: Path, url: str) -> list[tuple[str, str]]:
    """
    Return `auth` and token of each entry for the gateway at *url*.

    Raises: ClientError if the file exists and is not a configuration of faas-cli.
    """
    ours, _ = _divided(_read(path), path, gateway_name(url))
    return [(str(entry.get("auth", "")), str(entry.get("token", ""))) for entry in ours]


def remove_token(path: Path, url: str, token: str) -> bool:
    """
    Remove the entry for the gateway at *url* if it holds *token*. False if there is none.

    Raises: ClientError if the file exists and is not a configuration of faas-cli.
    """
    config = _read(path)
    ours, others = _divided(config, path, gateway_name(url))
    kept = [entry for entry in ours if entry.get("token") != token]
    if kept == ours:
        return False
    _write(path, {**config, "auths": [*others, *kept]})
    return True


def save_token(path: Path, url: str, token: str) -> list[str]:
    """
    Save *token* for the gateway at *url* in the file *path*, which only its owner can read.

    Returns the `auth` of each entry that was replaced, such as `basic`.
    Raises: ClientError if the file exists and is not a configuration of faas-cli.
    """
    gateway = gateway_name(url)
    config = _read(path)
    ours, others = _divided(config, path, gateway)
    new = {"gateway": gateway, "auth": "oauth2", "token": token}
    _write(path, {**config, "auths": [*others, new]})
    return [str(entry.get("auth", "")) for entry in ours]


def _divided(
    config: Mapping[str, object], path: Path, gateway: str
) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    """The entries for *gateway*, and all others."""
    entries = config.get("auths") or []
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise _foreign(path)
    ours = [e for e in entries if gateway_name(str(e.get("gateway", ""))) == gateway]
    return ours, [entry for entry in entries if entry not in ours]


def _read(path: Path) -> dict[str, object]:
    try:
        with path.open("rb") as file:
            content = file.read(_CONFIG_BYTES + 1)
        if len(content) > _CONFIG_BYTES:  # what is cut off would be lost with the next write
            raise ValueError("it is larger than 1 MiB")
        config = yaml.safe_load(content)
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
        # mkstemp makes the file 0600. The rename replaces the old file whole, or a link itself.
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".config-")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                yaml.safe_dump(dict(config), file, sort_keys=False)
            Path(temporary).replace(path)
        finally:
            Path(temporary).unlink(missing_ok=True)
    except OSError as error:
        raise ClientError(f"faas-cli's configuration cannot be written: {fault(error)}.") from error


def _foreign(path: Path) -> ClientError:
    return ClientError(
        f"{path} is there, but is not a configuration of faas-cli.",
        "Move it away, or set OPENFAAS_CONFIG to another folder.",
    )
