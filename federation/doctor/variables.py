"""
The settings as they were understood, and variables that look like settings and are none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from federation.config import Settings, settings_reading
from federation.doctor.finding import Finding, ok, warn
from federation.text import nearest, printable

_NOT_OURS = ("FEDERATION_SERVICE_", "FEDERATION_PORT_", "FEDERATION_DASHBOARD_")
"""Variables that Kubernetes sets for a Service of this name, and the settings of the dashboard."""
_ALIKE = 0.85
_SHOWN = 10


async def understood(settings: Settings, environ: Mapping[str, str]) -> list[Finding]:
    """Say what the settings are, and which variables are none."""
    reading = settings_reading()
    given = [name for name in settings.model_fields_set if name in Settings.model_fields]
    workers = f", {settings.workers} workers" if settings.workers > 1 else ""
    said = f"{settings.url}, state in {settings.state}{workers}, {len(given)} settings given"
    if links := reading.service_links(environ):
        said += f"; {', '.join(links)} is of a Service in Kubernetes and is passed over"
    variables = [reading.variable(field) for field in reading.model.model_fields]
    return [ok("settings", said), *_misspelt(environ, variables)]


def _misspelt(environ: Iterable[str], variables: list[str]) -> Iterator[Finding]:
    odd = [
        name
        for name in sorted(environ)
        if name.startswith(("FEDERATION_", "FEDERATON_", "FEDERATION-"))
        and not name.startswith(_NOT_OURS)
        and name not in variables
    ]
    for name in odd[:_SHOWN]:
        # Others, such as those of a CI job, are none of the broker's business.
        if near := nearest(name, variables, cutoff=_ALIKE):
            yield warn(
                "settings",
                f"{printable(name)} is not a setting, so it does nothing",
                f"did you mean {near}?",
            )
