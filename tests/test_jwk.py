"""JSON Web Keys: which can be used, for what, and why the others cannot."""

from __future__ import annotations

import time
from typing import Any

import pytest
from cryptography.exceptions import UnsupportedAlgorithm

from federation.jose.jwk import MAX_KEYS, PRIVATE_MEMBERS, Key, KeySet, parse_key, parse_key_set
from tests.harness.issuer import FakeKey, base64url

RSA, P256, P384, ED = (
    FakeKey(name, alg)
    for name, alg in (("rsa", "RS256"), ("p256", "ES256"), ("p384", "ES384"), ("ed", "EdDSA"))
)
KINDS = {"RSA": RSA, "P-256": P256, "P-384": P384, "Ed25519": ED}
FITTING = {
    "RSA": {"RS256", "PS256"},
    "P-256": {"ES256"},
    "P-384": {"ES384"},
    "Ed25519": {"EdDSA"},
}
MESSAGE = b"header.payload"


def rsa_of(bits: int, exponent: int = 65537) -> dict[str, object]:
    """An RSA key with a modulus of *bits*."""
    n = (1 << (bits - 1)) | 1
    length = (bits + 7) // 8
    e = exponent.to_bytes((exponent.bit_length() + 7) // 8, "big")
    return {"kty": "RSA", "n": base64url(n.to_bytes(length, "big")), "e": base64url(e)}


def why(jwk: object) -> str:
    """The reason why *jwk* cannot be used."""
    with pytest.raises(ValueError, match=r".") as caught:
        parse_key(jwk)
    return str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_a_key_has_its_kind_its_kid_and_its_algorithm(kind: str) -> None:
    published = KINDS[kind]
    key = parse_key(published.jwk())
    assert (key.kind, key.kid, key.alg) == (kind, published.kid, published.alg)
    bare = parse_key(published.jwk(kid=None, alg=None, use=None))
    assert (bare.kind, bare.kid, bare.alg) == (kind, None, None)
    assert bare.public == key.public


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("alg", ["RS256", "PS256", "ES256", "ES384", "EdDSA"])
def test_a_key_verifies_with_the_algorithms_of_its_kind_alone(kind: str, alg: str) -> None:
    published = KINDS[kind]
    key = parse_key(published.jwk(alg=None))
    assert key.fits(alg) is (alg in FITTING[kind])
    if key.fits(alg):
        signature = published.sign(MESSAGE, alg)
        assert key.verifies(alg, MESSAGE, signature)
        assert not key.verifies(alg, MESSAGE + b"x", signature)
        assert not key.verifies(alg, MESSAGE, signature[:-1])
        assert not key.verifies(alg, MESSAGE, b"")
    else:
        assert not key.verifies(alg, MESSAGE, published.sign(MESSAGE))


def test_a_key_that_is_published_for_one_algorithm_verifies_with_no_other() -> None:
    key = parse_key(RSA.jwk(alg="RS256"))
    assert key.verifies("RS256", MESSAGE, RSA.sign(MESSAGE, "RS256"))
    assert not key.fits("PS256")
    assert not key.verifies("PS256", MESSAGE, RSA.sign(MESSAGE, "PS256"))


class Failing:
    """A public key on whose signatures the library raises an error."""

    key_size = 2048

    def __init__(self, error: Exception) -> None:
        self.error = error

    def verify(self, *_: object) -> None:
        raise self.error


@pytest.mark.parametrize(
    "error", [ValueError("x"), TypeError("x"), OverflowError("x"), UnsupportedAlgorithm("x")]
)
def test_a_signature_on_which_the_library_raises_is_not_good(error: Exception) -> None:
    public: Any = Failing(error)
    assert Key(public, "RSA").verifies("RS256", MESSAGE, b"x") is False


@pytest.mark.parametrize("alg", ["none", "HS256", "ES256K", "", "rs256"])
def test_no_key_fits_an_algorithm_that_is_not_listed(alg: str) -> None:
    assert not any(parse_key(each.jwk(alg=None)).fits(alg) for each in KINDS.values())
    assert not parse_key(RSA.jwk(alg=None)).verifies(alg, MESSAGE, b"")


@pytest.mark.parametrize(
    ("jwk", "reason"),
    [
        pytest.param(7, "not an object", id="a number"),
        pytest.param([RSA.jwk()], "not an object", id="a list"),
        pytest.param(RSA.jwk(kid=7), "its kid is not a string", id="kid is a number"),
        pytest.param(RSA.jwk(kid="x" * 257), "its kid is too long", id="kid too long"),
        pytest.param(RSA.jwk(alg=["RS256"]), "its alg is not a string", id="alg is a list"),
        pytest.param(RSA.jwk(alg="RSA-OAEP"), "its alg is RSA-OAEP", id="alg for encryption"),
        pytest.param(RSA.jwk(alg="HS256"), "its alg is HS256", id="alg of a secret"),
        pytest.param(
            RSA.jwk(alg="ES256"), "its alg is ES256, but it is a key for RSA", id="alg of another"
        ),
        pytest.param(
            P256.jwk(alg="ES384"), "its alg is ES384, but it is a key for P-256", id="alg of P-384"
        ),
        pytest.param(RSA.jwk(use="enc"), "its use is not sig", id="for encryption"),
        pytest.param(
            RSA.jwk(key_ops=["sign"]), "its key_ops do not hold verify", id="only for signing"
        ),
        pytest.param(
            RSA.jwk(key_ops="verify"), "its key_ops do not hold verify", id="key_ops is a text"
        ),
        pytest.param(
            RSA.jwk(key_ops={"verify": 1}), "its key_ops do not hold verify", id="an object"
        ),
        pytest.param(
            RSA.jwk(d="AQAB"),
            "it holds a private or symmetric key, which is no secret any more",
            id="a private key",
        ),
        pytest.param(
            {"kty": "oct", "k": "AAAA"},
            "it holds a private or symmetric key, which is no secret any more",
            id="a symmetric key",
        ),
        pytest.param({"kty": "RSA"}, "it lacks n, e", id="RSA without members"),
        pytest.param(RSA.jwk(e=None), "it lacks e", id="RSA without exponent"),
        pytest.param({"kty": "EC"}, "it lacks crv, x, y", id="EC without members"),
        pytest.param(P256.jwk(y=None), "it lacks y", id="EC without y"),
        pytest.param({"kty": "OKP"}, "it lacks crv, x", id="OKP without members"),
        pytest.param(rsa_of(2047), "RSA key of 2047 bits, not 2048 to 8192", id="2047 bits"),
        pytest.param(rsa_of(8193), "RSA key of 8193 bits, not 2048 to 8192", id="8193 bits"),
    ],
)
def test_the_reason_why_a_key_cannot_be_used(jwk: object, reason: str) -> None:
    assert why(jwk) == reason


@pytest.mark.parametrize(
    "jwk",
    [
        pytest.param({}, id="empty"),
        pytest.param({"kty": "RSA", "n": 5, "e": "AQAB"}, id="modulus is a number"),
        pytest.param({**rsa_of(2048), "e": 65537}, id="exponent is a number"),
        pytest.param({**rsa_of(2048), "e": "A" * 12}, id="exponent of more than 64 bits"),
        pytest.param({**rsa_of(2048), "kty": "rsa"}, id="kty in lower case"),
        pytest.param(P256.jwk(crv="secp256k1", alg=None), id="another curve"),
        pytest.param(P256.jwk(crv="P-384", alg=None), id="the wrong curve"),
        pytest.param(P256.jwk(x=P256.jwk()["y"]), id="not on the curve"),
        pytest.param(P256.jwk(x=7), id="x is a number"),
        pytest.param(P256.jwk(y=7), id="y is a number"),
        pytest.param(ED.jwk(crv="X25519", alg=None), id="a key to agree on keys"),
        pytest.param(ED.jwk(x=7), id="Ed25519 whose x is a number"),
        pytest.param(ED.jwk(x="AAAA"), id="Ed25519 that is too short"),
    ],
)
def test_what_describes_no_key_is_refused(jwk: object) -> None:
    assert why(jwk)


def test_another_type_of_key_is_refused_with_the_types_that_are_taken() -> None:
    assert why({"kty": "XX"}).startswith("not an RSA, P-256, P-384")


def test_a_reason_is_one_line_without_controls_whatever_the_key_says() -> None:
    assert why(RSA.jwk(alg='RS\n256"')) == "its alg is RS%0A256%22"


def test_these_members_make_a_key_a_secret() -> None:
    # RFC 7518, sections 6.2.2, 6.3.2 and 6.4.1.
    assert set(PRIVATE_MEMBERS) == {"d", "p", "q", "dp", "dq", "qi", "oth", "k"}


def test_rsa_keys_have_2048_to_8192_bits_and_exponents_of_64() -> None:
    for jwk in (rsa_of(2048), rsa_of(8192), rsa_of(2048, 2**63 + 1)):
        assert parse_key(jwk).kind == "RSA"
    assert len(str(rsa_of(2048, 2**63 + 1)["e"])) == 11


def test_a_kid_has_at_most_256_characters() -> None:
    assert parse_key(RSA.jwk(kid="x" * 256)).kid == "x" * 256
    key_set = parse_key_set(
        {"keys": [RSA.jwk(use="enc", kid="x" * length) for length in (256, 257)]}
    )
    assert set(key_set.skipped) == {"x" * 256, "#1"}


@pytest.mark.parametrize("operations", [["verify"], ["sign", "verify"], ("verify",)])
def test_a_key_for_verifying_may_have_other_uses(operations: object) -> None:
    assert parse_key(RSA.jwk(key_ops=operations)).fits("RS256")


@pytest.mark.parametrize(
    "document", [{}, {"keys": []}, {"keys": {}}, {"keys": None}, {"keys": "k"}]
)
def test_a_set_without_a_list_of_keys_is_refused(document: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"^no list of keys, or an empty one$"):
        parse_key_set(document)


def test_an_unusable_key_is_named_by_its_kid_or_by_its_place_and_spoils_no_other() -> None:
    unusable = [RSA.jwk(use="enc"), 7, RSA.jwk(kid=5), RSA.jwk(kid=None, use="enc")]
    key_set = parse_key_set({"keys": [*unusable, P256.jwk()]})
    assert [key.kid for key in key_set.keys] == ["p256"]
    assert key_set.skipped == {
        "rsa": "its use is not sig",
        "#1": "not an object",
        "#2": "its kid is not a string",
        "#3": "its use is not sig",
    }


def test_a_kid_of_one_character_names_a_key_and_an_empty_one_does_not() -> None:
    key_set = parse_key_set({"keys": [RSA.jwk(use="enc", kid=kid) for kid in ("k", "")]})
    assert set(key_set.skipped) == {"k", "#1"}


def test_keys_that_a_document_pins_are_read_as_published_ones_are() -> None:
    assert [key.kid for key in parse_key_set({"keys": (RSA.jwk(),)}).keys] == ["rsa"]


def test_the_reasons_for_unusable_keys_are_bounded() -> None:
    skipped = parse_key_set({"keys": [7] * 5000}).skipped
    assert len(skipped) <= 102
    assert skipped["#more"] == f"{MAX_KEYS - 100} more keys cannot be used"


def test_a_set_shows_its_keys_and_its_reasons_once() -> None:
    assert repr(parse_key_set({"keys": [7]})) == "KeySet(keys=(), skipped={'#0': 'not an object'})"


def test_two_different_keys_with_one_kid_are_both_unusable() -> None:
    other = FakeKey("rsa", which=1)
    key_set = parse_key_set({"keys": [RSA.jwk(), P256.jwk(), other.jwk()]})
    assert [key.kid for key in key_set.keys] == ["p256"]
    assert key_set.skipped == {"rsa": "two different keys have this kid"}
    assert not key_set.publishes("rsa")
    assert key_set.find("rsa", "RS256") is None


@pytest.mark.parametrize(
    ("one", "other", "ambiguous"),
    [
        pytest.param("RS256", "RS256", True, id="the same"),
        pytest.param(None, None, True, id="any and any"),
        pytest.param("RS256", None, True, id="one and any"),
        pytest.param(None, "RS256", True, id="any and one"),
        pytest.param("RS256", "PS256", False, id="one and another"),
        pytest.param(None, "ES256", False, id="of another kind"),
    ],
)
def test_two_keys_may_have_one_kid_if_no_algorithm_fits_both(
    one: str | None, other: str | None, ambiguous: bool
) -> None:
    second = P256.jwk(kid="k") if other == "ES256" else FakeKey("k", which=1).jwk(alg=other)
    key_set = parse_key_set({"keys": [RSA.jwk(kid="k", alg=one), second]})
    assert len(key_set.keys) == (0 if ambiguous else 2)
    assert bool(key_set.skipped) is ambiguous
    if not ambiguous:
        assert [key_set.find("k", key.alg or "RS256") for key in key_set.keys] == [*key_set.keys]


def test_keys_without_a_kid_are_never_ambiguous() -> None:
    bare = [RSA.jwk(kid=None), FakeKey(None, which=1).jwk()]
    assert len(parse_key_set({"keys": bare}).keys) == 2


def test_a_key_without_a_kid_is_the_one_meant_where_no_key_has_the_tokens_kid() -> None:
    named, bare = parse_key(RSA.jwk()), parse_key(FakeKey(None, which=1).jwk())
    assert KeySet((named, bare)).find("other", "RS256") == bare
    assert KeySet((named, bare)).find("rsa", "RS256") == named
    assert KeySet((named,)).find("other", "RS256") is None
    assert not KeySet((bare,)).publishes(None), "what is not there names no key"
    another = parse_key(FakeKey(None, which=2).jwk())
    assert KeySet((named, bare, another)).find("other", "RS256") is None


def test_a_key_under_two_kids_is_the_first_of_them() -> None:
    two = tuple(parse_key(RSA.jwk(kid=kid)) for kid in ("a", "b"))
    assert KeySet(two).find(None, "RS256") == two[0]


def test_one_key_that_is_published_twice_is_one_key() -> None:
    key_set = parse_key_set({"keys": [RSA.jwk(), RSA.jwk()]})
    assert len(key_set.keys) == 1
    assert not key_set.skipped


def test_a_set_of_several_hundred_keys_is_used_whole() -> None:
    published = [ED.jwk(kid=f"k{number}") for number in range(MAX_KEYS + 1)]
    assert parse_key_set({"keys": published[:MAX_KEYS]}).skipped == {}
    key_set = parse_key_set({"keys": published})
    assert [key.kid for key in key_set.keys] == [f"k{number}" for number in range(MAX_KEYS)]
    told = f"only the first {MAX_KEYS} of {MAX_KEYS + 1} keys are read"
    assert key_set.skipped == {f"#{MAX_KEYS}": told}
    assert key_set.find(f"k{MAX_KEYS - 1}", "EdDSA") is not None


@pytest.mark.parametrize(
    "published",
    [
        [RSA.jwk()] * MAX_KEYS,
        [{**ED.jwk(), "kid": "one", "x": base64url(bytes([n % 256, n // 256] * 16))} for n in range(9000)],
        [{**RSA.jwk(kid=f"k{n}")} for n in range(MAX_KEYS)],
    ],
    ids=["one key again and again", "one kid again and again", "other kids"],
)  # fmt: skip
def test_no_set_of_keys_takes_long(published: list[dict[str, object]]) -> None:
    began = time.process_time()
    parse_key_set({"keys": published})
    assert time.process_time() - began < 1


def test_a_kid_and_an_algorithm_choose_the_key() -> None:
    key_set = parse_key_set({"keys": [each.jwk() for each in KINDS.values()]})

    def found(kid: str | None, alg: str) -> str | None:
        key = key_set.find(kid, alg)
        return key.kid if isinstance(key, Key) else None

    assert found("rsa", "RS256") == "rsa"
    assert found("rsa", "ES256") is None
    assert found("other", "RS256") is None
    assert found(None, "ES384") == "p384"
    assert found(None, "PS256") is None
    assert key_set.publishes("rsa")
    assert not key_set.publishes("other")
    assert not key_set.publishes(None)


def test_without_a_kid_nothing_is_guessed_between_two_keys() -> None:
    key_set = parse_key_set({"keys": [RSA.jwk(), FakeKey("other", which=1).jwk()]})
    assert key_set.find(None, "RS256") is None
    assert key_set.find("other", "RS256") is not None
