"""
The pages of the loopback callback. Each is constant: nothing that a request brings is ever in one.

There is no inline script. The page for the implicit flow loads the one script there is from the
listener itself, since only a script can read the fragment of an address (RFC 6749, section 4.2.2).
"""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass
from hashlib import sha256
from types import MappingProxyType

_STYLE = (
    "body{font:1.1rem/1.5 system-ui,sans-serif;margin:4rem auto;max-width:34rem;padding:0 1rem}"
    "h1{font-size:1.5rem}"
)
_STYLE_HASH = b64encode(sha256(_STYLE.encode()).digest()).decode()
_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; frame-ancestors 'none';"
    " base-uri 'none'; form-action 'none'"
)
_SCRIPT_POLICY = _POLICY.replace("form-action 'none'", "form-action 'self'; script-src 'self'")
_HTML = "text/html; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Page:
    """An answer of the listener."""

    status: int
    body: bytes
    content_type: str = _HTML
    policy: str = _POLICY
    location: str = ""
    referrer: str = "no-referrer"

    @property
    def headers(self) -> list[tuple[str, str]]:
        """The headers. The address of a request may hold a code, so nothing keeps or sends it."""
        fixed = [
            ("Content-Type", self.content_type),
            ("Content-Length", str(len(self.body))),
            ("Cache-Control", "no-store"),
            ("Content-Security-Policy", self.policy),
            ("Cross-Origin-Opener-Policy", "same-origin"),
            ("Cross-Origin-Resource-Policy", "same-origin"),
            ("Referrer-Policy", self.referrer),
            ("X-Content-Type-Options", "nosniff"),
            ("X-Frame-Options", "DENY"),
            ("Connection", "close"),
        ]
        return [*fixed, ("Location", self.location)] if self.location else fixed


def redirect(location: str) -> Page:
    """A redirect that is always followed by GET, so that no code is sent on."""
    return Page(303, b"", location=location)


def _page(
    status: int,
    title: str,
    text: str,
    more: str = "",
    *,
    policy: str = _POLICY,
    referrer: str = "no-referrer",
) -> Page:
    html = (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{title}</title><style>{_STYLE}</style></head>"
        f"<body><main><h1>{title}</h1><p>{text}</p></main>{more}</body></html>"
    )
    return Page(status, html.encode(), policy=policy, referrer=referrer)


SIGNED_IN = _page(200, "Signed in", "You can close this page and go back to the terminal.")
FAILED = _page(200, "Not signed in", "The sign-in failed. The terminal says why.")
UNFINISHED = _page(200, "Not finished", "The sign-in goes on. The terminal says how it ends.")
FOREIGN = _page(
    400,
    "Not this sign-in",
    "This answer does not belong to the sign-in that is waiting. It was not used, and the sign-in"
    " goes on. If you came here by signing in, start again in the terminal.",
)
OPENED_TWICE = _page(
    400,
    "Opened twice",
    "The address of this sign-in was opened twice. Somebody else may have opened it, so the"
    " sign-in has ended. Start again in the terminal.",
)
NOT_FOUND = _page(404, "Nothing here", "The sign-in uses another address.")
WRONG_METHOD = _page(405, "Not allowed", "The sign-in is answered in another way.")
WRONG_HOST = _page(421, "Wrong host", "The sign-in uses another address.")
MALFORMED = _page(400, "Not understood", "This request cannot be read.")

SCRIPT_PATH = "/oauth/fragment.js"
FRAGMENT_PATH = "/oauth/fragment"
FRAGMENT = _page(
    200,
    "Signing in",
    "One moment. If nothing happens, allow this page to run its script.",
    f'<script src="{SCRIPT_PATH}"></script>',
    policy=_SCRIPT_POLICY,
    # With no-referrer a browser would say `Origin: null` when this page posts. A fragment is never
    # in a referrer.
    referrer="same-origin",
)
_SCRIPT = f"""\
"use strict";
const form = document.createElement("form");
form.method = "post";
form.action = "{FRAGMENT_PATH}";
for (const [name, value] of new URLSearchParams(location.hash.slice(1))) {{
  const field = document.createElement("input");
  field.type = "hidden";
  field.name = name;
  field.value = value;
  form.append(field);
}}
history.replaceState(null, "", location.pathname);
document.body.append(form);
HTMLFormElement.prototype.submit.call(form);
"""
SCRIPT = Page(200, _SCRIPT.encode(), "text/javascript; charset=utf-8")

REASONS = MappingProxyType(
    {
        200: b"OK",
        303: b"See Other",
        400: b"Bad Request",
        404: b"Not Found",
        405: b"Method Not Allowed",
        421: b"Misdirected Request",
    }
)
