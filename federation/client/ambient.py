"""
Get this CI job's ID token, wherever its CI system keeps it.

The provider table says how to tell the jobs of each system, and where they find their token
(`JobToken`). If a job has none, the error names the system and what to add to the job.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from federation.client import ClientError
from federation.client.http import Sender
from federation.client.token_sources import Job, Missing, token_from
from federation.providers.profile import InVariable, JobToken, Profile
from federation.providers.table import PROFILES

_ANYWHERE = InVariable(names=("FEDERATION_ID_TOKEN",))
"""Used wherever the CI system itself gives no token."""
_EVENT_BYTES = 16 * 1024 * 1024

SYSTEMS: Mapping[str, JobToken] = {
    name: profile.job_token for name, profile in PROFILES.items() if profile.job_token
}
"""The sources of a job's token, for each provider that has jobs."""


def subject_token(
    environ: Mapping[str, str], audience: str, sender: Sender, *, provider: str | None = None
) -> str:
    """
    Return an ID token of this job for *audience*.

    With *provider*, get it as that provider's jobs do, and in no other way.
    Raises: ClientError if this is not a CI job, or if the job may not get an ID token.
    """
    profile = PROFILES[provider] if provider else _recognised(environ)
    if profile:
        sender.trace(f"CI system: {profile.display_name}, {_told_by(profile, environ, provider)}")
    job = Job(profile.display_name if profile else "", environ, audience, sender)
    missing = []
    for source in SYSTEMS[profile.name].sources if profile else ():
        found = token_from(source, job)
        if not isinstance(found, Missing):
            return found
        missing.append(found.what)
    if provider is None and not isinstance(found := token_from(_ANYWHERE, job), Missing):
        return found
    if profile is None:
        raise _no_system()
    how = SYSTEMS[profile.name]
    if alike := next((each for each in how.look_alikes if _is_set(environ, *each.mark)), None):
        raise ClientError(f"This {alike.name} job {' and '.join(missing)}.", alike.advice)
    raise ClientError(
        f"This {profile.display_name} job {' and '.join(missing)}.",
        _advice(how, environ).format(audience=audience),
    )


def _recognised(environ: Mapping[str, str]) -> Profile | None:
    """The provider whose job this is. Raises: ClientError if it could be a job of several."""
    marked = [
        name for name, how in SYSTEMS.items() if any(_is_set(environ, *mark) for mark in how.marks)
    ]
    implied = {other for name in marked for other in SYSTEMS[name].also_marked_as}
    marked = [name for name in marked if name not in implied]
    systems = [name for name in marked if not SYSTEMS[name].platform] or marked
    if len(systems) > 1:
        raise ClientError(
            f"This could be a job of {_listed(systems, 'or of')}.",
            f"Say which: {' or '.join(f'--from {name}' for name in systems)}.",
        )
    return PROFILES[systems[0]] if systems else None


def _told_by(profile: Profile, environ: Mapping[str, str], provider: str | None) -> str:
    if provider:
        return f"as --from {provider} says"
    marks = [name for name, value in SYSTEMS[profile.name].marks if _is_set(environ, name, value)]
    return f"recognised by {marks[0]}"


def _is_set(environ: Mapping[str, str], name: str, value: str) -> bool:
    return environ.get(name) == value if value else bool(environ.get(name))


def _no_system() -> ClientError:
    asked = [name for name, how in SYSTEMS.items() if how.only_if_asked]
    known = [name for name in SYSTEMS if name not in asked]
    return ClientError(
        f"No CI identity was found: this is no job of {_listed(known, 'or')}.",
        "Run it in one, or give a token with --token FILE. "
        f"For the identity of a machine, say {' or '.join(f'--from {name}' for name in asked)}.",
    )


def _listed(names: list[str], last: str) -> str:
    shown = [PROFILES[name].display_name for name in names]
    return f"{', '.join(shown[:-1])} {last} {shown[-1]}"


def _advice(how: JobToken, environ: Mapping[str, str]) -> str:
    return how.fork_advice if how.fork_advice and _from_fork(environ) else how.advice


def _from_fork(environ: Mapping[str, str]) -> bool:
    # A pull_request_target job runs as the base repository. It may get a token even for a fork.
    event_name = environ.get("GITHUB_EVENT_NAME", "")
    if event_name == "pull_request_target" or not event_name.startswith("pull_request"):
        return False
    try:
        with Path(environ.get("GITHUB_EVENT_PATH", "")).open("rb") as file:
            event = json.loads(file.read(_EVENT_BYTES))
        return bool(
            event["pull_request"]["head"]["repo"]["full_name"] != event["repository"]["full_name"]
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False
