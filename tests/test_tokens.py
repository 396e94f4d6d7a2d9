"""The broker's own tokens: their claims, and which of them it accepts."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import sys
import tracemalloc
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from federation.claims import Claims
from federation.documents.model import Role
from federation.documents.resources import Resource
from federation.errors import Reason, Refusal
from federation.jose import jws
from federation.jose.jws import MAX_TOKEN_BYTES
from federation.policy.index import DENY_ONLY, PolicyNames
from federation.policy.roles import Admission
from federation.state.memory import MemoryStore
from federation.tokens import mint
from federation.tokens.signing_keys import SigningKey, SigningKeys, read_pem
from federation.tokens.verify import (
    _REMEMBERED_BYTES,
    AccessTokens,
    Bearer,
    FunctionBearer,
    _entry_bytes,
    is_own,
    is_revoked,
    names,
    parent_of,
    verify,
    verify_signed,
)
from tests.harness import builders as built
from tests.harness.broker import BrokenStore
from tests.harness.builders import NOW, good, issuer
from tests.harness.clock import Clock
from tests.harness.issuer import base64url, compact

URL = "https://gateway.example.com"
KEY = SigningKey.generate()
OTHER = SigningKey.generate()
KEYS = SigningKeys((KEY,))

PROTOCOL = (
    *("nonce", "at_hash", "c_hash", "s_hash", "auth_time", "azp", "sid", "acr", "amr"),
    *("typ", "events", "scope", "client_id", "cnf", "act", "may_act"),
)


def minutes(*expiries: int | None, of_issuer: int = 15) -> Admission:
    """An admission by one Role for each of *expiries*."""
    roles = [
        replace(
            built.pinned(f"role-{place}", repository_id="1"),
            token_expiry=None if expiry is None else timedelta(minutes=expiry),
        )
        for place, expiry in enumerate(expiries)
    ]
    return Admission.of(issuer(token_expiry=timedelta(minutes=of_issuer)), roles)


def access(admission: Admission | None = None, /, **changes: Any) -> dict[str, object]:
    """The claims of an access token for a valid subject token with *changes*."""
    claims = good(**changes)
    return dict(
        mint.access_claims(claims, admission or minutes(None), issuer_url=URL, now=NOW, jti="ours")
    )


def token(
    claims: Mapping[str, object] | None = None,
    *,
    key: SigningKey = KEY,
    header: Mapping[str, object] | None = None,
    without: str = "",
) -> str:
    """An access token as the broker mints it, with faults."""
    members = {"alg": "ES256", "kid": key.kid, "typ": "at+jwt", **(header or {})}
    kept = {name: value for name, value in members.items() if value is not None}
    said = {name: value for name, value in (claims or access()).items() if name != without}
    return compact(kept, said, lambda message: es256(key, message))


def es256(key: SigningKey, message: bytes) -> bytes:
    """An ES256 signature, made by another library than the one under test."""
    return bytes(jwt.get_algorithm_by_name("ES256").sign(message, key.private))


def bearer(
    text: str, *, keys: SigningKeys = KEYS, store: MemoryStore | None = None, now: float = NOW
) -> Bearer:
    """The bearer of the token *text*."""
    memory = store or MemoryStore(Clock(NOW))
    return asyncio.run(verify(jws.parse(text), keys, memory, issuer_url=URL, now=now))


class AllRevokedBut(MemoryStore):
    """A store in which all tokens are revoked but some."""

    def __init__(self, *live: str) -> None:
        super().__init__(Clock(NOW))
        self.live = live

    async def revoked(self, jti: str) -> bool:
        return jti not in self.live


def refused(text: str, **how: Any) -> Reason:
    """The reason why the token *text* is refused."""
    with pytest.raises(Refusal) as caught:
        bearer(text, **how)
    return caught.value.reason


class TestSigningKey:
    def test_the_thumbprint_is_that_of_rfc_7638_by_an_independent_reading(self) -> None:
        jwk = KEY.jwk
        canonical = '{"crv":"P-256","kty":"EC","x":"%s","y":"%s"}' % (jwk["x"], jwk["y"])  # noqa: UP031  braces
        digest = hashlib.sha256(canonical.encode()).digest()
        assert KEY.kid == base64.urlsafe_b64encode(digest).decode().rstrip("=")

    def test_the_thumbprint_of_a_known_key_is_known(self) -> None:
        # The P-256 key of RFC 7517, appendix A.1; its thumbprint as RFC 7638 defines it.
        x = "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4"
        y = "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"
        d = "870MB6gfuTJ4HtUnUvYMyJpr5eUZNP4Bk43bVdj3eAE"
        private: Any = jwt.algorithms.ECAlgorithm.from_jwk(
            {"kty": "EC", "crv": "P-256", "x": x, "y": y, "d": d}
        )
        assert SigningKey.of(private).kid == "cn-I_WNMClehiVp51i_0VpOENW1upEerA8sEam5hn-s"

    def test_coordinates_keep_their_leading_zeros(self) -> None:
        # One key in 256 has one; RFC 7518, section 6.2.1.2 wants all 32 octets.
        low = next(
            key
            for scalar in range(1, 4000)
            if (key := ec.derive_private_key(scalar, ec.SECP256R1()))
            .public_key()
            .public_numbers()
            .x
            >> 248
            == 0
        )
        jwk = SigningKey.of(low).jwk
        assert len(base64.urlsafe_b64decode(jwk["x"] + "=")) == 32
        assert jwt.PyJWK.from_dict(dict(jwk)).key.public_numbers() == (
            low.public_key().public_numbers()
        )

    def test_a_jwk_holds_nothing_private(self) -> None:
        assert set(KEY.jwk) == {"kty", "crv", "x", "y", "kid", "alg", "use"}

    def test_a_key_and_all_keys_hide_themselves(self) -> None:
        secret = f"{KEY.private.private_numbers().private_value:x}"
        assert secret not in repr(KEYS)
        assert "private" not in repr(KEY).lower()

    @pytest.mark.parametrize("form", ["SEC1", "PKCS8"])
    def test_pem_is_read_in_both_forms(self, form: str) -> None:
        pem = KEY.private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL
            if form == "SEC1"
            else serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        assert read_pem(pem).kid == KEY.kid

    @pytest.mark.parametrize(
        "pem",
        [
            pytest.param(b"", id="empty"),
            pytest.param(b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----", id="bad"),
            pytest.param(
                ec.generate_private_key(ec.SECP384R1()).private_bytes(
                    serialization.Encoding.PEM,
                    serialization.PrivateFormat.PKCS8,
                    serialization.NoEncryption(),
                ),
                id="another curve",
            ),
            pytest.param(
                KEY.private.private_bytes(
                    serialization.Encoding.PEM,
                    serialization.PrivateFormat.PKCS8,
                    serialization.BestAvailableEncryption(b"secret"),
                ),
                id="encrypted",
            ),
            pytest.param(
                KEY.public.public_bytes(
                    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
                ),
                id="public",
            ),
        ],
    )
    def test_what_holds_no_p256_key_is_refused_without_being_quoted(self, pem: bytes) -> None:
        with pytest.raises(ValueError, match=r"it holds no|its key is not") as caught:
            read_pem(pem)
        assert "BEGIN" not in str(caught.value)

    def test_no_keys_at_all_are_no_signing_keys(self) -> None:
        with pytest.raises(ValueError, match="at least one"):
            SigningKeys(())


class TestAccessClaims:
    def test_the_broker_sets_issuer_audience_subject_roles_and_times(self) -> None:
        claims = access(minutes(None), jti="theirs")
        assert claims["iss"] == claims["aud"] == URL
        assert claims["sub"] == "fed:repo:octo-org/octo-repo:ref:refs/heads/main"
        assert claims["fed:iss"] == built.GITHUB
        assert claims["fed:jti"] == "theirs"
        assert (claims["policy"], claims["role"]) == (["deploy"], ["role-0"])
        assert (claims["iat"], claims["nbf"]) == (NOW, NOW)
        assert claims["exp"] == NOW + 15 * 60
        assert claims["jti"] == "ours"

    def test_other_claims_are_copied_as_they_are(self) -> None:
        nested = {"kubernetes.io": {"pod": {"name": "x"}}, "list": [1, True, None, "a"], "n": 5}
        claims = access(**nested)
        assert {name: claims[name] for name in nested} == nested
        assert claims["repository"] == "octo-org/octo-repo"

    @pytest.mark.parametrize("claim", PROTOCOL)
    def test_protocol_claims_are_dropped(self, claim: str) -> None:
        assert claim not in access(**{claim: "x"})

    @pytest.mark.parametrize("claim", ["policy", "role", "function", "iat", "nbf", "exp", "jti"])
    def test_a_subject_token_cannot_set_the_brokers_own_claims(self, claim: str) -> None:
        hostile = access(**{claim: ["admin"]})
        assert hostile.get(claim) != ["admin"]

    @pytest.mark.parametrize("claim", ["fed:iss", "fed:jti", "fed:sub", "fed:", "fed:admin"])
    def test_claims_that_begin_with_fed_are_not_copied(self, claim: str) -> None:
        claims = access(jti="theirs", **{claim: "https://evil.example"})
        assert "https://evil.example" not in claims.values()

    def test_a_subject_token_without_jti_leaves_no_fed_jti(self) -> None:
        assert "fed:jti" not in access(jti=built.ABSENT, **{"fed:jti": "forged"})

    @pytest.mark.parametrize(
        ("of_issuer", "of_roles", "least"),
        [
            pytest.param(15, (None,), 15, id="only the issuer says"),
            pytest.param(15, (5,), 5, id="the Role caps"),
            pytest.param(15, (60,), 15, id="a Role never lengthens"),
            pytest.param(30, (None, 20, 10), 10, id="the least of several Roles"),
        ],
    )
    def test_the_shortest_expiry_counts(
        self, of_issuer: int, of_roles: tuple[int | None, ...], least: int
    ) -> None:
        claims = access(minutes(*of_roles, of_issuer=of_issuer))
        assert claims["exp"] == NOW + least * 60

    def test_policies_of_several_roles_are_united_without_repeats(self) -> None:
        roles: list[Role] = [
            built.role("a", policy=["x", "y"], principal={"jwt:sub": "s"}),
            built.role("b", policy=["y", "z"], principal={"jwt:sub": "s"}),
        ]
        assert access(Admission.of(issuer(), roles))["policy"] == ["x", "y", "z"]


class TestSigning:
    def test_the_header_says_es256_kid_and_type_and_nothing_else(self) -> None:
        signed = mint.sign(Claims(access()), KEY)
        assert jws.parse(signed.token).header == {"alg": "ES256", "kid": KEY.kid, "typ": "at+jwt"}
        assert signed.expires == NOW + 15 * 60

    def test_a_function_tokens_type_is_jwt_which_no_access_token_has(self) -> None:
        signed = mint.sign(Claims(access()), KEY, mint.FUNCTION_TOKEN_TYPE)
        assert jws.parse(signed.token).header["typ"] == "JWT"

    def test_another_library_accepts_every_signature(self) -> None:
        for _ in range(20):  # r or s has a leading zero now and then
            signed = mint.sign(Claims(access()), KEY)
            jwt.decode(
                signed.token,
                KEY.public,
                algorithms=["ES256"],
                audience=URL,
                options={"verify_exp": False, "verify_nbf": False, "verify_iat": False},
            )

    def test_a_minted_token_hides_itself(self) -> None:
        signed = mint.sign(Claims(access()), KEY)
        assert signed.token not in repr(signed)
        assert signed.token.split(".")[2] not in repr(signed)

    def test_the_largest_token_that_is_signed_is_the_largest_that_is_read(self) -> None:
        room = MAX_TOKEN_BYTES - len(mint.sign(Claims(access(note="")), KEY).token)
        claims = Claims(access(note="x" * (room * 3 // 4)))
        signed = mint.sign(claims, KEY)
        assert MAX_TOKEN_BYTES - 2 <= len(signed.token) <= MAX_TOKEN_BYTES
        assert jws.parse(signed.token).claims == claims
        with pytest.raises(Refusal) as caught:
            mint.sign(Claims(access(note="x" * (room * 3 // 4 + 3))), KEY)
        assert caught.value.reason is Reason.TOKEN_TOO_LARGE

    def test_text_of_any_script_comes_through(self) -> None:
        signed = mint.sign(Claims(access(environment="prodücción 🚀 \u2028")), KEY)
        assert jws.parse(signed.token).claims["environment"] == "prodücción 🚀 \u2028"


class TestFunctionClaims:
    def test_they_hold_what_a_watchdog_reads_and_whose_token_it_was(self) -> None:
        claims = mint.function_claims(
            Claims(access()), permissions=["dev:env"], audience=["dev:env"], now=NOW, jti="f"
        )
        assert claims == {
            "iss": URL,
            "sub": "fed:repo:octo-org/octo-repo:ref:refs/heads/main",
            "aud": [URL],
            "iat": NOW,
            "exp": NOW + 15 * 60,
            "jti": "f",
            "fed:iss": built.GITHUB,
            "function": {"permissions": ["dev:env"], "audience": ["dev:env"]},
        }

    def test_they_end_with_the_access_token_however_late_they_are_made(self) -> None:
        claims = mint.function_claims(
            Claims(access()), permissions=["dev:*"], audience=[], now=NOW + 14 * 60, jti="f"
        )
        assert claims["exp"] == NOW + 15 * 60


def none_of(text: str) -> str:
    return text.rpartition(".")[0] + "."


def hmac_with(secret: bytes) -> Callable[[bytes], bytes]:
    return lambda message: hmac.digest(secret, message, "sha256")


def with_a_zero(signature: bytes) -> bytes:
    """The same two numbers in one byte more."""
    return signature[:32] + b"\0" + signature[32:]


PUBLIC_PEM = KEY.public.public_bytes(
    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
)


class TestVerify:
    def test_a_minted_token_is_accepted(self) -> None:
        minted = mint.sign(Claims(access(minutes(None, 5))), KEY)
        known = bearer(minted.token)
        assert known.policies == ("deploy",)
        assert known.roles == ("role-0", "role-1")
        assert (known.jti, known.expires) == ("ours", NOW + 300)
        assert known.claims["repository"] == "octo-org/octo-repo"

    def test_every_published_key_is_accepted(self) -> None:
        assert bearer(token(key=OTHER), keys=SigningKeys((KEY, OTHER))).jti == "ours"

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            pytest.param(token(access() | {"iss": "https://else"}), Reason.UNTRUSTED_ISSUER,
                         id="another issuer"),
            pytest.param(token(access() | {"iss": URL + "/"}), Reason.UNTRUSTED_ISSUER,
                         id="our URL with a slash"),
            pytest.param(token(without="iss"), Reason.UNTRUSTED_ISSUER, id="no issuer"),
            pytest.param(token(key=OTHER), Reason.UNKNOWN_KEY, id="a key that is not ours"),
            pytest.param(token(key=OTHER, header={"kid": KEY.kid}), Reason.BAD_SIGNATURE,
                         id="our kid, another key"),
            pytest.param(token(header={"kid": None}), Reason.UNKNOWN_KEY, id="no kid"),
            pytest.param(token(header={"kid": [KEY.kid]}), Reason.UNKNOWN_KEY, id="kid is a list"),
            pytest.param(token(header={"kid": {"a": 1}}), Reason.UNKNOWN_KEY, id="kid an object"),
            pytest.param(token(header={"alg": "none"}), Reason.UNSUPPORTED_ALGORITHM,
                         id="alg none, signed"),
            pytest.param(token(header={"alg": "es256"}), Reason.UNSUPPORTED_ALGORITHM,
                         id="alg in small letters"),
            pytest.param(token(header={"alg": ["ES256"]}), Reason.UNSUPPORTED_ALGORITHM,
                         id="alg is a list"),
            pytest.param(token(header={"alg": None}), Reason.UNSUPPORTED_ALGORITHM, id="no alg"),
            pytest.param(token(header={"crit": ["exp"], "exp": 1}), Reason.UNSUPPORTED_ALGORITHM,
                         id="crit"),
            pytest.param(
                compact({"alg": "HS256", "kid": KEY.kid, "typ": "at+jwt"}, access(),
                        hmac_with(PUBLIC_PEM)),
                Reason.UNSUPPORTED_ALGORITHM, id="HS256 keyed with the public key"),
            pytest.param(
                compact({"alg": "ES256", "kid": KEY.kid, "typ": "at+jwt"}, access(),
                        hmac_with(PUBLIC_PEM)),
                Reason.BAD_SIGNATURE, id="an HMAC called ES256"),
            pytest.param(
                compact({"alg": "ES256", "kid": KEY.kid, "typ": "at+jwt"}, access(),
                        lambda _: bytes(64)),
                Reason.BAD_SIGNATURE, id="r and s are zero"),
            pytest.param(
                compact({"alg": "ES256", "kid": KEY.kid, "typ": "at+jwt"}, access(),
                        lambda _: b"\xff" * 64),
                Reason.BAD_SIGNATURE, id="r and s beyond the order"),
            pytest.param(
                compact({"alg": "ES256", "kid": KEY.kid, "typ": "at+jwt"}, access(),
                        lambda message: es256(KEY, message)[:-1]),
                Reason.BAD_SIGNATURE, id="a byte short"),
            pytest.param(
                compact({"alg": "ES256", "kid": KEY.kid, "typ": "at+jwt"}, access(),
                        lambda message: b"\0" + es256(KEY, message)),
                Reason.BAD_SIGNATURE, id="a byte long"),
            pytest.param(
                compact({"alg": "ES256", "kid": KEY.kid, "typ": "at+jwt"}, access(),
                        lambda message: with_a_zero(es256(KEY, message))),
                Reason.BAD_SIGNATURE, id="s with a zero before it"),
            pytest.param(token(header={"typ": "JWT"}), Reason.WRONG_AUDIENCE, id="typ JWT"),
            pytest.param(token(header={"typ": None}), Reason.WRONG_AUDIENCE, id="no typ"),
            pytest.param(token(header={"typ": ["at+jwt"]}), Reason.WRONG_AUDIENCE,
                         id="typ is a list"),
            pytest.param(token(access() | {"aud": [URL]}), Reason.WRONG_AUDIENCE,
                         id="aud as function tokens have it"),
            pytest.param(token(access() | {"aud": "https://else"}), Reason.WRONG_AUDIENCE,
                         id="another audience"),
            pytest.param(token(without="aud"), Reason.WRONG_AUDIENCE, id="no audience"),
            pytest.param(token(without="exp"), Reason.MALFORMED_TOKEN, id="no exp"),
            pytest.param(token(without="nbf"), Reason.MALFORMED_TOKEN, id="no nbf"),
            pytest.param(token(without="jti"), Reason.MALFORMED_TOKEN, id="no jti"),
            pytest.param(token(access() | {"exp": "9999999999"}), Reason.MALFORMED_TOKEN,
                         id="exp is text"),
            pytest.param(token(access() | {"exp": NOW}), Reason.MALFORMED_TOKEN,
                         id="exp is a fraction"),
            pytest.param(token(access() | {"jti": 5}), Reason.MALFORMED_TOKEN, id="jti a number"),
            pytest.param(token(access() | {"nbf": NOW}), Reason.MALFORMED_TOKEN,
                         id="nbf is a fraction"),
            pytest.param(token(access() | {"nbf": "0"}), Reason.MALFORMED_TOKEN, id="nbf is text"),
        ],
    )  # fmt: skip
    def test_it_is_refused(self, text: str, reason: Reason) -> None:
        assert refused(text) is reason

    def test_no_signature_at_all_is_malformed(self) -> None:
        with pytest.raises(Refusal) as caught:
            jws.parse(none_of(token(header={"alg": "none"})))
        assert caught.value.reason is Reason.MALFORMED_TOKEN

    def test_a_changed_payload_is_a_bad_signature(self) -> None:
        header, payload, signature = token().split(".")
        changed: dict[str, object] = json.loads(base64.urlsafe_b64decode(payload + "==")) | {
            "policy": ["admin"]
        }
        forged = f"{header}.{base64url(json.dumps(changed).encode())}.{signature}"
        assert refused(forged) is Reason.BAD_SIGNATURE

    def test_a_function_token_is_not_an_access_token(self) -> None:
        claims = mint.function_claims(
            Claims(access()), permissions=["dev:*"], audience=[], now=NOW, jti="f"
        )
        minted = mint.sign(claims, KEY, mint.FUNCTION_TOKEN_TYPE)
        assert refused(minted.token) is Reason.WRONG_AUDIENCE

    def test_it_is_good_until_the_second_it_expires_and_not_after(self) -> None:
        ends = NOW + 15 * 60
        assert bearer(token(), now=ends - 1).jti == "ours"
        assert refused(token(), now=ends) is Reason.EXPIRED

    def test_a_token_of_the_future_is_not_valid_yet(self) -> None:
        assert refused(token(), now=NOW - 60) is Reason.NOT_YET_VALID

    def test_the_clocks_of_replicas_may_differ_by_30_seconds(self) -> None:
        assert bearer(token(), now=NOW - 30).jti == "ours"
        assert refused(token(), now=NOW - 31) is Reason.NOT_YET_VALID

    def test_a_revoked_token_is_refused(self) -> None:
        store = MemoryStore(Clock(NOW))
        asyncio.run(store.revoke("ours", NOW + 900))
        assert refused(token(), store=store) is Reason.REVOKED

    def test_a_token_ends_with_no_other_token(self) -> None:
        assert bearer(token(), store=AllRevokedBut("ours")).jti == "ours"

    def test_no_token_is_accepted_while_the_store_cannot_answer(self) -> None:
        assert refused(token(), store=BrokenStore(Clock(NOW))) is Reason.STATE_UNAVAILABLE

    def test_only_signature_and_issuer_count_for_verify_signed(self) -> None:
        late = token(access() | {"exp": 5, "aud": "x"}, header={"typ": "JWT"})
        assert verify_signed(jws.parse(late), KEYS, issuer_url=URL)["exp"] == 5

    def test_a_token_is_own_only_by_the_exact_url(self) -> None:
        assert is_own(jws.parse(token()), URL)
        assert not is_own(jws.parse(token(access() | {"iss": [URL]})), URL)


WRONG_LISTS: list[object] = [None, "dev:f", {"dev:f": 1}, [5], ["f"]]
WRONG_CLAIMS: list[tuple[str, object]] = [
    *((claim, built.ABSENT) for claim in ("jti", "exp", "iat", "sub", "function")),
    *((claim, None) for claim in ("jti", "exp", "iat", "sub", "function")),
    *(("jti", 5), ("jti", ["f"]), ("sub", 5), ("sub", ["fed:x"])),
    *(("exp", "9999999999"), ("exp", NOW), ("iat", "0"), ("iat", NOW)),
    *(("function", []), ("function", "dev:f"), ("function", {"audience": ["dev:f"]})),
    *(("function", {"permissions": wrong}) for wrong in WRONG_LISTS),
    *(("function", {"permissions": ["dev:f"], "audience": wrong}) for wrong in WRONG_LISTS),
]


class TestVerifyFunctionTokens:
    """A function token is verified whole, as an access token is, before it may call anything."""

    @staticmethod
    def token(**changes: object) -> str:
        """A function token as the broker mints it, with other *changes* to its claims."""
        claims = mint.function_claims(
            Claims(access()), permissions=["dev:f"], audience=["dev:*"], now=NOW, jti="f"
        )
        changed = {**claims, **changes}
        kept = {name: value for name, value in changed.items() if value is not built.ABSENT}
        return mint.sign_jws(kept, KEY, "JWT")

    @staticmethod
    def holder(text: str, store: MemoryStore | None = None) -> Bearer | FunctionBearer:
        clock = Clock(NOW)
        tokens = AccessTokens(URL, store or MemoryStore(clock), clock)
        return asyncio.run(tokens.holder(text, KEYS))

    def refused(self, text: str, store: MemoryStore | None = None) -> Reason:
        with pytest.raises(Refusal) as caught:
            self.holder(text, store)
        return caught.value.reason

    def test_it_opens_the_functions_that_both_lists_name(self) -> None:
        holder = self.holder(self.token())
        assert isinstance(holder, FunctionBearer)
        assert (holder.jti, holder.begins, holder.expires) == ("f", NOW, NOW + 900)
        assert holder.opens("dev", "f")
        assert not holder.opens("dev", "g")
        assert not holder.opens("prod", "f")
        narrower = self.holder(
            self.token(function={"permissions": ["dev:*"], "audience": ["dev:f"]})
        )
        assert isinstance(narrower, FunctionBearer)
        assert narrower.opens("dev", "f")
        assert not narrower.opens("dev", "g")

    def test_it_opens_each_function_that_a_list_names(self) -> None:
        holder = self.holder(self.token(function={"permissions": ["dev:f", "dev:g"]}))
        assert isinstance(holder, FunctionBearer)
        assert holder.opens("dev", "f")
        assert holder.opens("dev", "g")

    def test_a_byte_that_is_no_text_is_a_malformed_token(self) -> None:
        assert self.refused("\udcff.a.b") is Reason.MALFORMED_TOKEN

    def test_without_an_audience_its_permissions_alone_count(self) -> None:
        for function in ({"permissions": ["dev:f"]}, {"permissions": ["dev:f"], "audience": []}):
            holder = self.holder(self.token(function=function))
            assert isinstance(holder, FunctionBearer)
            assert holder.opens("dev", "f")
            assert not holder.opens("dev", "g")

    @pytest.mark.parametrize(("claim", "value"), WRONG_CLAIMS)
    def test_claims_of_another_type_are_refused(self, claim: str, value: object) -> None:
        assert self.refused(self.token(**{claim: value})) is Reason.MALFORMED_TOKEN

    @pytest.mark.parametrize("aud", [URL, [URL, URL], [URL, "x"], ["x"], [], None, built.ABSENT])
    def test_its_audience_is_a_list_of_the_broker_alone(self, aud: object) -> None:
        assert self.refused(self.token(aud=aud)) is Reason.WRONG_AUDIENCE

    def test_it_begins_at_most_30_seconds_from_now(self) -> None:
        assert self.holder(self.token(iat=int(NOW) + 30)).jti == "f"
        assert self.refused(self.token(iat=int(NOW) + 31)) is Reason.NOT_YET_VALID

    @pytest.mark.parametrize("live", [("f",), ("ours",), ()])
    def test_it_ends_with_itself_and_with_the_access_token_that_it_was_traded_for(
        self, live: tuple[str, ...]
    ) -> None:
        traded = self.token(**{"fed:parent": "ours"})
        assert self.refused(traded, AllRevokedBut(*live)) is Reason.REVOKED
        assert self.holder(traded, AllRevokedBut("f", "ours")).jti == "f"

    def test_one_for_a_ci_token_ends_with_itself_alone(self) -> None:
        assert self.holder(self.token(), AllRevokedBut("f")).jti == "f"
        assert self.refused(self.token(), AllRevokedBut()) is Reason.REVOKED

    def test_the_evidence_about_another_audience_is_the_type(self) -> None:
        for text, typ in ((self.token(aud="x"), "JWT"), (token(access() | {"aud": "x"}), "at+jwt")):
            with pytest.raises(Refusal) as caught:
                self.holder(text)
            assert caught.value.evidence == {"typ": typ}

    def test_it_is_no_access_token(self) -> None:
        async def story() -> Reason:
            tokens = AccessTokens(URL, MemoryStore(Clock(NOW)), Clock(NOW))
            with pytest.raises(Refusal) as caught:
                await tokens.bearer(self.token(), KEYS)
            assert caught.value.evidence == {"typ": "JWT"}
            return caught.value.reason

        assert asyncio.run(story()) is Reason.WRONG_AUDIENCE


class TestRemembered:
    """A verified token is remembered, but what can change is checked each time."""

    @staticmethod
    def tokens() -> tuple[AccessTokens, MemoryStore, Clock]:
        clock = Clock(NOW)
        store = MemoryStore(clock)
        return AccessTokens(URL, store, clock), store, clock

    @staticmethod
    def signed(**changes: object) -> str:
        """An access token with *changes* to its claims."""
        return token(access() | changes)

    @staticmethod
    def twice(
        known: AccessTokens,
        between: Callable[[], Awaitable[None]] | None = None,
        keys: SigningKeys = KEYS,
    ) -> Reason | None:
        """The reason why a token is refused after it was accepted once, None if it is not."""

        async def story() -> Reason | None:
            text = token()
            await known.bearer(text, KEYS)
            if between is not None:
                await between()
            try:
                await known.bearer(text, keys)
            except Refusal as refusal:
                return refusal.reason
            return None

        return asyncio.run(story())

    def test_it_is_known_again(self) -> None:
        known, _, _ = self.tokens()
        assert self.twice(known) is None

    def test_it_is_read_once_for_each_set_of_keys(self) -> None:
        known, _, _ = self.tokens()

        async def story() -> None:
            text = token()
            first = await known.holder(text, KEYS)
            assert await known.holder(text, KEYS) is first
            again = SigningKeys((KEY, OTHER))
            second = await known.holder(text, again)
            assert second is not first
            assert await known.holder(text, again) is second

        asyncio.run(story())

    def test_it_expires(self) -> None:
        known, _, clock = self.tokens()

        async def a_quarter_passes() -> None:
            clock.advance(900)

        assert self.twice(known, a_quarter_passes) is Reason.EXPIRED

    def test_it_is_revoked(self) -> None:
        known, store, _ = self.tokens()

        async def revoke() -> None:
            await store.revoke("ours", NOW + 900)

        assert self.twice(known, revoke) is Reason.REVOKED

    def test_its_key_is_dropped(self) -> None:
        known, _, _ = self.tokens()
        assert self.twice(known, keys=SigningKeys((OTHER,))) is Reason.UNKNOWN_KEY

    def test_a_refused_token_is_not_remembered_as_good(self) -> None:
        known, _, _ = self.tokens()

        async def story() -> None:
            for _ in range(2):
                with pytest.raises(Refusal):
                    await known.bearer(token(key=OTHER), KEYS)

        asyncio.run(story())

    @pytest.mark.parametrize(
        ("count", "claims"),
        [
            # A list costs three bytes of JSON, and over sixty in Python.
            pytest.param(100, {"x": [[]] * 3_000}, id="many lists"),
            # Each star is a search of its own, and another if case does not count.
            pytest.param(15, {"function": {"permissions": ["D:" + "F*" * 4_000]}}, id="many stars"),
        ],
    )
    def test_the_memory_of_tokens_is_bounded_by_their_size(
        self, count: int, claims: dict[str, object]
    ) -> None:
        sign = TestVerifyFunctionTokens.token if "function" in claims else self.signed
        large = [sign(**claims, jti=str(number)) for number in range(count)]
        known, _, _ = self.tokens()

        async def story() -> int:
            tracemalloc.start()
            for text in large:
                await known.holder(text, KEYS)
            grown, _ = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            return grown

        assert asyncio.run(story()) < 17 * 2**20

    def test_tokens_take_sixteen_mebibytes_and_the_one_used_longest_ago_makes_room(self) -> None:
        assert _REMEMBERED_BYTES == 16_777_216
        # A thousand functions count as a mebibyte.
        functions = {"permissions": ["d:f"] * 500, "audience": ["d:g"] * 500}
        texts = [
            TestVerifyFunctionTokens.token(function=functions, jti=str(number))
            for number in range(17)
        ]
        known, _, _ = self.tokens()

        async def story() -> None:
            first, *others = [await known.holder(text, KEYS) for text in texts[:15]]
            assert await known.holder(texts[0], KEYS) is first
            for text in texts[15:]:
                await known.holder(text, KEYS)
            assert await known.holder(texts[0], KEYS) is first
            assert await known.holder(texts[1], KEYS) is not others[0]

        asyncio.run(story())

    def test_a_token_takes_its_claims_and_a_kibibyte_and_more_for_each_pattern_and_star(
        self,
    ) -> None:
        deep: list[object] = ["a", {"key": [1.5]}]
        claims = Claims({"sub": "x", "deep": deep})
        parts = [claims, "sub", "x", "deep", deep, "a", {"key": [1.5]}, "key", [1.5], 1.5]
        held = sum(map(sys.getsizeof, parts))
        access_token = Bearer(claims, PolicyNames(("p",)), ("r",), "ours", 0, 900)
        assert _entry_bytes((KEYS, access_token)) == 1024 + held
        named, starred = (Resource("d:f"), Resource("d:g")), (Resource("d*:*f*"),)
        for permissions, audience, kibibytes in (
            ((), (), 1),
            (named, (), 1 + 2),
            ((), named, 1 + 2),
            (starred, (), 1 + 4),
            (named, starred, 1 + 2 + 4),
        ):
            function_token = FunctionBearer(claims, permissions, audience, "f", 0, 900, "")
            assert _entry_bytes((KEYS, function_token)) == kibibytes * 1024 + held


# What a narrowed token and a function token say of where they come from


def function_of(claims: Mapping[str, object], parent: str | None) -> dict[str, object]:
    made = mint.function_claims(
        Claims(claims), permissions=["dev:f"], audience=[], now=NOW, jti="f", parent=parent
    )
    return dict(made)


def test_a_function_token_names_its_parent_and_its_issuer_where_there_are_any() -> None:
    claims = access()
    assert function_of(claims, "ours")["fed:parent"] == "ours"
    assert "fed:parent" not in function_of(claims, None)
    assert function_of(claims, None)["fed:iss"] == claims["fed:iss"]
    assert "fed:iss" not in function_of({k: v for k, v in claims.items() if k != "fed:iss"}, None)


def test_only_a_narrowed_token_lists_the_policies_that_may_only_deny() -> None:
    admission = minutes(None)
    assert DENY_ONLY not in access(admission)
    for deny_only in ((), ("wall",)):
        held = PolicyNames(("deploy", *deny_only), deny_only, narrowed=True)
        assert access(replace(admission, held=held))[DENY_ONLY] == list(deny_only)


def test_the_largest_token_has_sixteen_kibibytes_and_a_larger_one_is_not_drafted() -> None:
    claims = {**access(), "note": ""}
    room = MAX_TOKEN_BYTES - len(mint.sign(Claims(claims), KEY).token)
    fits = [n for n in range(room * 3 // 4 - 4, room * 3 // 4 + 4) if _drafted(claims, n)]
    assert len(mint.sign(Claims({**claims, "note": "x" * fits[-1]}), KEY).token) <= MAX_TOKEN_BYTES
    assert not _drafted(claims, fits[-1] + 1)
    longer = mint.sign_jws({**claims, "note": "x" * (fits[-1] + 1)}, KEY, "at+jwt")
    assert len(longer) > MAX_TOKEN_BYTES


def _drafted(claims: Mapping[str, object], note: int) -> bool:
    try:
        mint.draft(Claims({**claims, "note": "x" * note}), KEY)
    except Refusal:
        return False
    return True


def test_the_refusal_of_a_token_that_is_too_large_names_its_largest_claim() -> None:
    claims = {**access(), "note": "x" * 20_000}
    with pytest.raises(Refusal) as caught:
        mint.draft(Claims(claims), KEY)
    whole = len(mint.sign_jws(claims, KEY, "at+jwt"))
    assert caught.value.evidence == {"bytes": whole, "largest_claim": "note", "its_bytes": 20_002}
    assert caught.value.public == (
        f"The token to be issued would have {whole} bytes, more than the 16384 that servers take. "
        "Its largest claim is note. It was not issued, and the subject token can still be exchanged."
    )


def test_a_draft_shows_neither_its_claims_nor_its_key() -> None:
    shown = repr(mint.draft(Claims(access()), KEY))
    assert "signing_input" not in shown
    assert "key" not in shown


@pytest.mark.parametrize("parent", [7, None, ["ours"], True])
def test_a_parent_that_is_no_text_makes_the_token_malformed(parent: object) -> None:
    with pytest.raises(Refusal) as caught:
        parent_of(Claims({"fed:parent": parent}))
    assert caught.value.reason is Reason.MALFORMED_TOKEN
    assert parent_of(Claims({"fed:parent": "ours"})) == "ours"
    assert parent_of(Claims({})) == ""


@pytest.mark.parametrize(
    ("revoked", "expected"),
    [((), False), (("own",), True), (("ours",), True), (("",), False), (("other",), False)],
)
@pytest.mark.parametrize("parent", ["ours", ""])
def test_a_token_ends_with_itself_and_with_its_parent(
    revoked: tuple[str, ...], expected: bool, parent: str
) -> None:
    async def ask() -> bool:
        store = MemoryStore(lambda: NOW)
        for jti in revoked:
            await store.revoke(jti, NOW + 60)
        return await is_revoked("own", parent, store)

    assert asyncio.run(ask()) is (expected and (parent == "ours" or "own" in revoked))


@pytest.mark.parametrize("listed", ["deploy", ["deploy", 7], [None], {"deploy": 1}, None])
def test_names_that_cannot_all_be_read_are_none_at_all(listed: object) -> None:
    with pytest.raises(Refusal) as caught:
        names(Claims({"policy": listed}), "policy")
    assert caught.value.reason is Reason.MALFORMED_TOKEN
    assert names(Claims({"policy": ["a", "b"]}), "policy") == ("a", "b")
    assert names(Claims({}), "policy") == ()


def test_a_bearer_holds_what_its_token_says_about_narrowing() -> None:
    held = PolicyNames(("deploy", "wall"), ("wall",), narrowed=True)
    for each, expected in (
        (minutes(None), PolicyNames(("deploy",))),
        (replace(minutes(None), held=held), held),
    ):
        signed = mint.sign(Claims(access(each)), KEY)

        async def read(signed: mint.Minted = signed) -> Bearer:
            store = MemoryStore(lambda: NOW)
            return await verify(jws.parse(signed.token), KEYS, store, issuer_url=URL, now=NOW)

        assert asyncio.run(read()).held == expected
