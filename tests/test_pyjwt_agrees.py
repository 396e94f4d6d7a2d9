"""
Our verification compared with PyJWT's, over the same good and hostile tokens.

We must refuse what PyJWT refuses. Each token is a valid one with named changes. If PyJWT accepts a
change that we refuse, the table of changes says why.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jwt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from federation.documents.model import JwtIssuer
from federation.errors import Refusal
from federation.issuers.key_ring import KeyRing
from federation.issuers.verify import check_signature, find_signer, verify
from federation.jose import jws
from federation.providers.table import LEEWAY
from tests.harness.builders import ABSENT, AUDIENCE, GENERIC, GITHUB, good, issuer
from tests.harness.issuer import FakeIssuer, FakeKey, compact

KEYS = (
    FakeKey("rsa", "RS256"),
    FakeKey("pss", "PS256", which=1),
    FakeKey("p256", "ES256"),
    FakeKey("p384", "ES384"),
    FakeKey("p521", "ES512"),
    FakeKey("rsa384", "RS384", which=2),
    FakeKey("rsa512", "RS512", which=3),
    FakeKey("pss384", "PS384", which=4),
    FakeKey("pss512", "PS512", which=5),
    FakeKey("ed", "EdDSA"),
)
ISSUERS = {
    iss: issuer(iss, jwks=FakeIssuer(iss, *KEYS).jwks(), audiences=(AUDIENCE, "second"))
    for iss in (GITHUB, GENERIC)
}


@dataclass
class Draft:
    """A token in the making."""

    header: dict[str, Any]
    claims: dict[str, Any]
    key: FakeKey
    signed_with: str | None = None
    spoil: Callable[[str], str] = field(default=lambda token: token)
    payload: bytes | None = None

    def token(self) -> str:
        header = {k: v for k, v in self.header.items() if v is not ABSENT}
        claims = {k: v for k, v in self.claims.items() if v is not ABSENT}
        payload = claims if self.payload is None else self.payload
        return self.spoil(compact(header, payload, lambda m: self.key.sign(m, self.signed_with)))


@dataclass(frozen=True)
class Change:
    """One thing done to a draft. *ours* says why only we refuse it, where that is so."""

    name: str
    apply: Callable[[Draft], None]
    ours: str = ""


def shown(value: object) -> str:
    return "absent" if value is ABSENT else repr(value)


def claim(name: str, value: object, ours: str = "") -> Change:
    return Change(f"{name}={shown(value)}", lambda d: d.claims.__setitem__(name, value), ours)


def header(name: str, value: object, ours: str = "") -> Change:
    return Change(f"{name}: {shown(value)}", lambda d: d.header.__setitem__(name, value), ours)


def spoiled(name: str, spoil: Callable[[str], str], ours: str = "") -> Change:
    return Change(name, lambda d: setattr(d, "spoil", spoil), ours)


def time_claim(name: str, offset: float) -> Change:
    """No offset lies within two seconds of a limit: the two verifiers read two clocks."""
    return Change(f"{name}={offset:+}", lambda d: d.claims.__setitem__(name, time.time() + offset))


def time_text(name: str, offset: int) -> Change:
    return Change(
        f"{name}='{offset:+}'",
        lambda d: d.claims.__setitem__(name, str(int(time.time()) + offset)),
        "a text is not a number",
    )


def on_segment(place: int, change: Callable[[str], str]) -> Callable[[str], str]:
    def spoil(token: str) -> str:
        segments = token.split(".")
        segments[place] = change(segments[place])
        return ".".join(segments)

    return spoil


def with_payload(payload: bytes) -> Callable[[Draft], None]:
    return lambda draft: setattr(draft, "payload", payload)


def doubled(draft: Draft) -> None:
    """The member `sub` twice; the last is the good one."""
    kept = {name: value for name, value in draft.claims.items() if value is not ABSENT}
    draft.payload = b'{"sub":"someone else",' + json.dumps(kept).encode()[1:]


ONE_READING = "two programs could read it as two different tokens"
OTHER_TYPES = "it says that it is something else than a proof of identity"
CI_CLAIMS = "the provider's tokens always have it"

OTHER_PARTIES: list[object] = ["other", "", 7, []]
EVENTS: list[object] = [{}, {"http://schemas.openid.net/event/backchannel-logout": {}}, None]
NOT_TIMES: list[object] = ["soon", [1], {}, float("nan")]

CHANGES: tuple[Change, ...] = (
    *(header("alg", alg) for alg in ("none", "HS256", "ES256", "PS256", "", None, 7)),
    header("alg", "RS512"),
    *(header("kid", kid) for kid in ("", "other", "rsa", "p256", "ed", "k" * 300)),
    header("kid", ABSENT),
    *(header("typ", typ) for typ in ("jwt", "at+JWT", "application/at+jwt", ABSENT)),
    *(header("typ", t, OTHER_TYPES) for t in ("logout+jwt", "dpop+jwt", "", None, 7, "JWT ")),
    *(header(name, "https://evil.example") for name in ("jku", "x5u", "cty")),
    Change("jwk: the key", lambda d: d.header.__setitem__("jwk", KEYS[0].jwk())),
    header("x5c", ["MIIB"]),
    header("crit", ["exp"]),
    header("crit", []),
    header("b64", True),
    *(claim("aud", aud) for aud in ("x", f"{AUDIENCE}/", [], ["x"], [AUDIENCE], "second", None)),
    *(claim("aud", aud) for aud in (ABSENT, 7, [7], {"a": 1}, [AUDIENCE, 7], "")),
    claim("aud", [AUDIENCE, "x"], "a CI token is meant for one"),
    *(claim("iss", iss) for iss in (ABSENT, None, 7, "", f"{GITHUB}/", "https://x.example")),
    *(claim("sub", sub) for sub in (ABSENT, None, 7, ["a"], True)),
    claim("sub", "", "an empty subject names no caller"),
    *(claim(name, v) for name in ("exp", "iat", "nbf") for v in NOT_TIMES),
    *(time_text(name, offset) for name, offset in (("iat", 0), ("nbf", 0), ("exp", 300))),
    *(claim(name, True, "a boolean is not a number") for name in ("exp", "iat", "nbf")),
    *(claim(name, ABSENT) for name in ("exp", "iat", "nbf")),
    claim("exp", None),
    claim("iat", None),
    claim("nbf", None),
    claim("exp", 10**15, "no calendar reaches there"),
    claim("nbf", -5, "no token is older than the epoch"),
    *(time_claim("exp", offset) for offset in (-3600, -40, -33, -27, 0.5, 300, 10**8)),
    *(time_claim(name, o) for name in ("iat", "nbf") for o in (-3600, 0, 27, 33, 40, 3600)),
    *(claim(name, v) for name in ("repository", "event_name") for v in ("other", 7)),
    *(claim("azp", azp) for azp in (AUDIENCE, None)),
    *(claim("azp", azp, "the token belongs to another client") for azp in OTHER_PARTIES),
    *(claim("events", events, OTHER_TYPES) for events in EVENTS),
    *(claim(name, ABSENT, CI_CLAIMS) for name in ("repository_id", "event_name")),
    claim("repository", "", CI_CLAIMS),
    Change("another key", lambda d: setattr(d, "key", FakeKey(d.key.kid, d.key.alg, which=9))),
    Change("signed with PS256", lambda d: setattr(d, "signed_with", _other_rsa(d))),
    Change("sub twice", doubled, ONE_READING),
    Change("payload is a list", with_payload(b"[1]")),
    Change("payload is text", with_payload(b"hello")),
    Change("payload is not UTF-8", with_payload(b'{"a":"\xff"}')),
    spoiled("cut signature", lambda t: t[:-4]),
    spoiled("no signature", on_segment(2, lambda _: "")),
    spoiled("signature of zeros", on_segment(2, lambda s: "A" * len(s))),
    spoiled("swapped halves", on_segment(2, lambda s: s[len(s) // 2 :] + s[: len(s) // 2])),
    spoiled("padding", lambda t: t + "=", ONE_READING),
    spoiled("padding in the middle", on_segment(2, lambda s: s[:8] + "=" + s[8:]), ONE_READING),
    spoiled("newline after", lambda t: t + "\n", ONE_READING),
    spoiled(
        "space within the signature", on_segment(2, lambda s: s[:5] + " " + s[5:]), ONE_READING
    ),
    spoiled("star within the signature", on_segment(2, lambda s: s[:5] + "*" + s[5:]), ONE_READING),
    spoiled("space within the payload", on_segment(1, lambda s: s[:5] + " " + s[5:])),
    spoiled(
        "bits beyond the last", on_segment(2, lambda s: s[:-1] + _next_letter(s[-1])), ONE_READING
    ),
    spoiled("plain base64", lambda t: t.replace("-", "+").replace("_", "/"), ONE_READING),
    spoiled("a segment more", lambda t: f"{t}.x"),
    spoiled("a segment less", lambda t: t.rpartition(".")[0]),
    spoiled(
        "header of another",
        on_segment(0, lambda _: compact({"alg": "RS256"}, {}, lambda _: b"").split(".")[0]),
    ),
)


def _other_rsa(draft: Draft) -> str:
    return {"RS256": "PS256", "PS256": "RS256"}.get(draft.key.alg, draft.key.alg)


def _next_letter(letter: str) -> str:
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return alphabet[alphabet.index(letter) ^ 1]


def drafted(iss: str, key: FakeKey, changes: Sequence[Change]) -> str:
    claims = good("github-push-main", time.time(), iss=iss)
    draft = Draft({"typ": "JWT", "alg": key.alg, "kid": key.kid}, dict(claims), key)
    for change in changes:
        change.apply(draft)
    return draft.token()


RING = KeyRing()
JWKS = {key.kid: jwt.PyJWK(dict(key.jwk())) for key in KEYS}


def ours(token: str) -> bool:
    # The keys are pinned, so nothing is waited for, and no event loop is needed.
    try:
        parsed = jws.parse(token)
        try:
            find_signer(parsed, ISSUERS, RING).send(None)
        except StopIteration as found:
            verify(check_signature(parsed, found.value), time.time())
            return True
    except Refusal:
        return False
    raise AssertionError("it waits for something")


def theirs(token: str, trusted: JwtIssuer) -> bool:
    """True if PyJWT accepts *token*, given the issuer and the key that `kid` names."""
    try:
        header = jwt.get_unverified_header(token)
        kid, alg = header.get("kid"), header.get("alg")
        key = next(key for key in KEYS if (key.kid == kid if kid else key.alg == alg))
        jwt.decode(
            token,
            JWKS[key.kid],
            algorithms=sorted(trusted.profile.algorithms & {key.alg}),
            audience=trusted.audiences,
            issuer=trusted.iss,
            leeway=LEEWAY,
            options={"require": ["exp", "iat", "sub", "aud", "iss"]},
        )
    except (jwt.PyJWTError, StopIteration, TypeError):
        return False
    return True


def compare(iss: str, key: FakeKey, changes: Sequence[Change]) -> None:
    token = drafted(iss, key, changes)
    accepted, second = ours(token), theirs(token, ISSUERS[iss])
    assert second or not accepted, "the library refuses what we accept"
    if second and not accepted:
        assert any(change.ours for change in changes) or _other_party(changes), (
            "we refuse what the library accepts, and the table gives no reason"
        )


def _other_party(changes: Sequence[Change]) -> bool:
    """True if `azp` was set to our audience and `aud` to others: it is then another client."""
    claims = {change.name.partition("=")[0] for change in changes}
    return {"azp", "aud"} <= claims


DRAWN = st.lists(st.sampled_from(CHANGES), max_size=2)
KEYED = st.one_of(
    st.tuples(st.just(GITHUB), st.just(KEYS[0])),
    st.tuples(st.just(GENERIC), st.sampled_from(KEYS)),
)


@pytest.mark.parametrize("change", CHANGES, ids=[change.name[:60] for change in CHANGES])
def test_on_each_single_change_both_agree_or_the_table_says_why(change: Change) -> None:
    compare(GITHUB, KEYS[0], [change])
    for key in KEYS:
        compare(GENERIC, key, [change])


@pytest.mark.parametrize("change", [c for c in CHANGES if c.ours], ids=lambda c: c.name[:60])
def test_changes_that_only_we_refuse_are_refused(change: Change) -> None:
    assert not ours(drafted(GITHUB, KEYS[0], [change]))


def test_both_accept_the_unchanged_token() -> None:
    for iss, key in ((GITHUB, KEYS[0]), *((GENERIC, key) for key in KEYS)):
        token = drafted(iss, key, [])
        assert ours(token)
        assert theirs(token, ISSUERS[iss])


@settings(max_examples=150, deadline=None)
@given(KEYED, DRAWN)
def test_on_combined_changes_both_agree_or_the_table_says_why(
    keyed: tuple[str, FakeKey], changes: list[Change]
) -> None:
    compare(*keyed, changes)


@settings(max_examples=150, deadline=None)
@given(KEYED, st.integers(0, 10_000), st.sampled_from(["drop", "double", "swap", "letter"]))
@example((GITHUB, KEYS[0]), 0, "drop")
def test_a_token_with_one_changed_letter_is_refused(
    keyed: tuple[str, FakeKey], place: int, how: str
) -> None:
    token = drafted(*keyed, [])
    at = place % (len(token) - 1)
    changed = {
        "drop": token[:at] + token[at + 1 :],
        "double": token[: at + 1] + token[at:],
        "swap": token[:at] + token[at + 1] + token[at] + token[at + 2 :],
        "letter": token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :],
    }[how]
    assert changed == token or not ours(changed)


@pytest.mark.e2e
@settings(max_examples=4000, deadline=None)
@given(KEYED, st.lists(st.sampled_from(CHANGES), max_size=4))
def test_on_many_combined_changes_both_agree_or_the_table_says_why(
    keyed: tuple[str, FakeKey], changes: list[Change]
) -> None:
    compare(*keyed, changes)


@pytest.mark.e2e
def test_on_two_hundred_thousand_tokens_both_agree_or_the_table_says_why() -> None:
    # To sign with RSA, or to verify on P-384, takes many times as long; they are one in twenty.
    drawn = random.Random(20_260_715)  # noqa: S311  the same tokens every time
    quick = tuple((GENERIC, key) for key in KEYS if key.alg in {"ES256", "EdDSA"})
    slow = ((GITHUB, KEYS[0]), *((GENERIC, key) for key in KEYS if (GENERIC, key) not in quick))
    for case in range(200_000):
        iss, key = drawn.choice(quick if case % 20 else slow)
        compare(iss, key, drawn.sample(CHANGES, drawn.choice((0, 1, 1, 2, 3))))
