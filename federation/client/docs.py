"""The address of the docs, for messages of the client and the command line."""

from __future__ import annotations

import os
from collections.abc import Mapping

from federation.errors import Reason
from federation.pages import REFUSALS, docs_address, page

VARIABLE = "FEDERATION_DOCS_URL"


def page_at(name: str, environ: Mapping[str, str]) -> str:
    """
    Return where the page *name* is: under `FEDERATION_DOCS_URL`, or its path within the project.

    A variable that is no address counts as unset: it must not hide the message that names the page.
    """
    try:
        return page(name, docs_address(environ.get(VARIABLE, "")))
    except ValueError:
        return page(name)


def more_on(reason: str) -> str:
    """
    Return where a CI author reads more about *reason*, which a broker named: an address, or the
    command that prints it. A path within the project is of no use in a job.
    """
    known = {each.value: each.page for each in Reason}
    found = page_at(known.get(reason, REFUSALS), os.environ)
    if "://" in found:
        return found
    return f"federation explain {reason}" if reason in known else ""
