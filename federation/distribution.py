"""
The name under which the program is published, and the commands that install its extras.

The distribution is not called `federation`: on PyPI that name belongs to a different project, and
a message that told people to install it would have a stranger's code run.
"""

from __future__ import annotations

__all__ = ["DISTRIBUTION", "how_to_install"]

DISTRIBUTION = "federation-broker"
"""The name on PyPI. The import package and the command are called `federation`."""


def how_to_install(*extras: str) -> str:
    """A sentence with the commands that add *extras*, from PyPI and in a checkout."""
    wanted = f"[{','.join(extras)}]"
    return f"Run: pip install '{DISTRIBUTION}{wanted}' (in a checkout: pip install '.{wanted}')"
