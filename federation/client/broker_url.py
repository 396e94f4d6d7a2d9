"""
The broker's URL as people give it: without what is often copied along with it.

White space at its ends and the path of an endpoint are dropped, and the slip is named.
"""

from __future__ import annotations

_ENDPOINTS = ("/oauth/token", "/oauth/revoke", "/.well-known/openid-configuration")


def broker_url(given: str) -> tuple[str, str]:
    """Return the URL that was meant by *given*, without a slash at its end, and what was dropped."""
    trimmed = given.strip()
    slips = [] if trimmed == given else ["white space around it"]
    url = trimmed.rstrip("/")
    for endpoint in _ENDPOINTS:
        if url.endswith(endpoint) and url != endpoint:
            url = url.removesuffix(endpoint).rstrip("/")
            slips.append(f"{endpoint} at its end")
    return url, " and ".join(slips)
