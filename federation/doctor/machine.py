"""
The process and its machine: versions, user, rights, proxies and trusted CAs.

Capabilities come from `/proc`, so on a system without it they are not told.
"""

from __future__ import annotations

import os
import platform
import resource
import ssl
from collections.abc import Mapping
from pathlib import Path

from federation import __version__
from federation.doctor.finding import Finding, ok, split, warn
from federation.outbound import Outbound
from federation.ownership import ROOT_UID

_NET_BIND_SERVICE = 1 << 10  # capabilities(7)
_FEW_FILES = 1024
_CORRECT_IT = "correct the variable, or unset it"


async def program() -> list[Finding]:
    """Say which versions run."""
    versions = f"federation {__version__}, Python {platform.python_version()}"
    return [ok("program", f"{versions}, {ssl.OPENSSL_VERSION}")]


async def process() -> list[Finding]:
    """Say as which user this runs, and with which rights."""
    uid, status = os.geteuid(), _proc_status()
    told = [f"uid {uid}, gid {os.getegid()}"]
    if "CapEff" in status:
        told.append(_capabilities(int(status["CapEff"], 16)))
    if status.get("NoNewPrivs") == "1":
        told.append("no_new_privs")
    if os.statvfs("/").f_flag & os.ST_RDONLY:
        told.append("read-only root")
    said = ", ".join(told)
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
    if uid == ROOT_UID:
        return [
            warn(
                "process",
                f"{said}: root",
                "run the broker as a user of its own; if it is one, run this command as that user",
            )
        ]
    if files != resource.RLIM_INFINITY and files < _FEW_FILES:
        return [
            warn(
                "process",
                f"{said}: at most {files} open files",
                f"raise the limit (LimitNOFILE=, ulimit -Hn) to {_FEW_FILES} or more",
            )
        ]
    return [ok("process", said)]


def _proc_status() -> Mapping[str, str]:
    try:
        lines = Path("/proc/self/status").read_text("ascii", errors="replace").splitlines()
    except OSError:
        return {}
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _capabilities(bits: int) -> str:
    if not bits:
        return "no capabilities"
    if bits == _NET_BIND_SERVICE:
        return "capability net_bind_service"
    return f"capabilities 0x{bits:x}"


async def outbound_understood(outbound: Outbound) -> list[Finding]:
    """Say which proxies, exceptions and CAs connections to other machines use."""
    described = outbound.described()
    proxies = [f"{each.scheme} by {each.url} ({each.variable})" for each in described.proxies]
    told = ", ".join(proxies) or "none: every machine is asked directly"
    if proxies and described.exceptions:
        told += f"; except {', '.join(described.exceptions)}"
    notes = [warn("environment", *split(note, _CORRECT_IT)) for note in described.notes]
    return [ok("proxies", told), ok("trust store", described.trust_store), *notes]
