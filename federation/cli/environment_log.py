"""Logs variables of the environment that a server passes over, or that look wrong, at its start."""

from __future__ import annotations

import os
from typing import Any

import structlog

from federation.config import read_outbound
from federation.config.reading import Reading


def log_environment(reading: Reading[Any] | None) -> None:
    """Say which variables of the environment mean nothing here, or something odd."""
    log = structlog.get_logger("federation")
    for name in reading.service_links(os.environ) if reading else ():
        log.info("a variable that Kubernetes wrote is no setting and is passed over", variable=name)
    for note in read_outbound().notes:
        log.warning("a variable about proxies or CAs needs a look", note=note)
