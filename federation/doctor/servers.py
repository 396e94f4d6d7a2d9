"""
The servers that the settings name: upstream, shared state and webhook.

Each is asked by the connection that the broker would use. The webhook gets no byte of HTTP.
"""

from __future__ import annotations

import os
import time
from contextlib import aclosing
from pathlib import Path

from federation.app import parts
from federation.audit.webhook import NotDelivered
from federation.config import Settings
from federation.doctor.advice import for_connection, host_of
from federation.doctor.finding import SPENT, Finding, evidence_of, fail, ok, split, warn
from federation.errors import Refusal
from federation.gateway.upstream_health import password_problem, upstream_problem
from federation.outbound import Outbound

_REDIS = "see docs/deploy.md, section Redis"


async def upstream(settings: Settings, outbound: Outbound) -> list[Finding]:
    """Say whether the gateway is well and takes the password. Raises: SettingsRefused."""
    behind = parts.upstream(settings, outbound)
    if behind is None or settings.upstream is None:
        return [ok("upstream", "none: the broker only exchanges tokens")]
    try:
        problem = await upstream_problem(behind) or await password_problem(behind)
    finally:
        await behind.aclose()
    if problem:
        said, remedy = split(problem, f"see what it answers: curl -v {settings.upstream}/healthz")
        return [warn("upstream", f"{settings.upstream}: {said}", remedy)]
    auth = "with a password" if behind.auth else "without a password"
    functions = f"functions: {settings.functions}"
    return [ok("upstream", f"{settings.upstream} is well, {auth}; {functions}")]


async def shared_state(settings: Settings) -> list[Finding]:
    """Do in the shared state what an exchange does. Raises: SettingsRefused."""
    if settings.shared_state is None:
        return []
    place = host_of(settings.shared_state.get_secret_value())
    # Nothing is remembered: the broker's own memory of it belongs to the broker.
    store = parts.shared_store(settings, time.time, None, memory=Path(os.devnull))
    async with aclosing(store):
        try:
            problem = await store.unusable()
            degraded = "" if problem else await store.check()
        except Refusal as refusal:
            said, advice = split(evidence_of(refusal), _REDIS)
            return [fail("shared state", f"{place}: {said}", advice)]
    if problem:
        said, advice = split(problem, _REDIS)
        return [fail("shared state", f"{place}: {said}", advice)]
    if degraded:
        said, advice = split(degraded, "wait")
        return [warn("shared state", f"{place}: {said}", advice)]
    return [ok("shared state", f"{place}: {SPENT}")]


async def webhook(settings: Settings, outbound: Outbound) -> list[Finding]:
    """Connect to the receiver of audit events, and send nothing. Raises: SettingsRefused."""
    if settings.audit_webhook is None:
        return []
    parts.check_webhook(settings)
    receiver = parts.webhook(settings, outbound)
    url = settings.audit_webhook
    proxy = outbound.proxy_for(url)
    place = host_of(url) + (f" through {proxy}" if proxy else "")
    async with aclosing(receiver):
        try:
            await receiver.reach()
        except NotDelivered as failed:
            why = str(failed)
            said, advice = split(why, for_connection(url, proxy))
            return [warn("webhook", f"{place}: {said}", advice)]
    return [ok("webhook", f"{place}: connected; no event was sent")]
