"""
A stand-in for `faas-cli deploy`, for machines without the real one.

It reads gateway, login and function from where faas-cli reads them, and sends the same requests:
`PUT /system/functions`, and after a 404 the same body as `POST`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx2
import yaml


def main(arguments: list[str], environ: Mapping[str, str]) -> int:
    """Run `faas-cli deploy`, and return its exit code."""
    if arguments != ["deploy"]:
        print("the stand-in knows `faas-cli deploy` only", file=sys.stderr)  # noqa: T201
        return 2
    stack = yaml.safe_load(Path("stack.yaml").read_text("utf-8"))
    gateway = environ.get("OPENFAAS_URL", "http://127.0.0.1:8080").lower().rstrip("/")
    headers = {"Authorization": f"Bearer {saved_token(gateway, environ)}"}
    for name, function in stack["functions"].items():
        body = {
            "service": name,
            "image": function["image"],
            "namespace": function.get("namespace", ""),
            "labels": {},
            "annotations": {},
        }
        url = f"{gateway}/system/functions"
        answer = httpx2.put(url, json=body, headers=headers, timeout=60)
        if answer.status_code == 404:
            answer = httpx2.post(url, json=body, headers=headers, timeout=60)
        if answer.status_code not in {200, 202}:
            print(f"Unexpected status: {answer.status_code}, message: {answer.text}")  # noqa: T201
            return 1
        print(f"Deployed. {answer.status_code} {name}")  # noqa: T201
    return 0


def saved_token(gateway: str, environ: Mapping[str, str]) -> str:
    """The saved login for exactly this *gateway*, empty without one."""
    in_ci = environ.get("CI") in {"true", "1"}
    folder = environ.get("OPENFAAS_CONFIG") or (
        ".openfaas" if in_ci else f"{environ['HOME']}/.openfaas"
    )
    file = Path(folder) / "config.yml"
    if not file.exists():
        return ""
    saved: list[dict[str, Any]] = yaml.safe_load(file.read_text("utf-8"))["auths"]
    return next((str(one["token"]) for one in saved if one["gateway"] == gateway), "")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
