"""
The certificate of the admission webhook, and the CA that an API server trusts it by.

Each certificate has a CA of its own, made with it. The CA's key signs that one certificate and is
then forgotten: there is no key by which somebody could make another certificate that API servers
would trust. Both end at the same time.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from ipaddress import ip_address

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFETIME = timedelta(days=90)
_BACKDATED = timedelta(hours=1)
"""The clock of an API server may be behind ours by so much."""
_PREFIXES = ("", "previous-")
"""Prefixes of the Secret's keys for the newest generation, and for the one before."""
_PEM_CHARS = 64 * 1024


@dataclass(frozen=True, slots=True)
class Generation:
    """A certificate with its key and its CA, each in PEM."""

    ca: bytes
    certificate: bytes
    key: bytes = field(repr=False)
    begins: datetime
    expires: datetime
    names: frozenset[str]
    """The DNS names and IP addresses that it is for."""

    def usable(self, names: Collection[str], now: datetime) -> bool:
        """Return whether it is valid *now*, for all of *names*."""
        return self.begins <= now < self.expires and self.names.issuperset(names)


def planned(
    found: Sequence[Generation],
    names: Collection[str],
    now: datetime,
    lifetime: timedelta = LIFETIME,
) -> tuple[Generation, ...]:
    """
    Return the generations to keep, the newest first: one or two.

    A new one is made when the newest has less than a third of *lifetime* left, or if *found* has
    none that can be used. The one before is kept as long as it is valid.
    """
    usable = [generation for generation in found if generation.usable(names, now)]
    if usable and usable[0].expires - now >= lifetime / 3:
        return tuple(usable[: len(_PREFIXES)])
    return made(names, now, lifetime), *usable[:1]


def bundle(generations: Iterable[Generation]) -> bytes:
    """Return the CAs of *generations* as one PEM text."""
    return b"".join(generation.ca for generation in generations)


def made(names: Collection[str], now: datetime, lifetime: timedelta = LIFETIME) -> Generation:
    """Make a new generation, valid for *lifetime* from *now*."""
    ca_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    # Two CAs of one name could be told apart by their keys alone.
    ca_name = _name(f"federation-admission-ca-{x509.random_serial_number():x}"[:64])
    own_name = _name("federation-admission")
    validity = now - _BACKDATED, now + lifetime
    alternatives = x509.SubjectAlternativeName([_general_name(name) for name in sorted(names)])
    extensions = [*_OF_A_SERVER, (alternatives, False)]
    ca = _certificate((ca_name, ca_name), ca_key, ca_key, validity, _OF_A_CA)
    certificate = _certificate((own_name, ca_name), key, ca_key, validity, extensions)
    return _generation(ca, certificate, key)


def to_secret(generations: Sequence[Generation]) -> dict[str, str]:
    """Return *generations* as the data of a Secret."""
    data: dict[str, str] = {}
    for prefix, generation in zip(_PREFIXES, generations, strict=False):
        parts = {"ca.crt": generation.ca, "tls.crt": generation.certificate}
        for name, pem in {**parts, "tls.key": generation.key}.items():
            data[prefix + name] = base64.b64encode(pem).decode("ascii")
    return data


def from_secret(data: Mapping[str, object]) -> tuple[Generation, ...]:
    """Return the generations in the *data* of a Secret. What cannot be used is left out."""
    found = (_of_secret(data, prefix) for prefix in _PREFIXES)
    return tuple(generation for generation in found if generation is not None)


def _of_secret(data: Mapping[str, object], prefix: str) -> Generation | None:
    try:
        ca, own, key = (
            _decoded(data.get(prefix + name)) for name in ("ca.crt", "tls.crt", "tls.key")
        )
        authority = x509.load_pem_x509_certificate(ca)
        certificate = x509.load_pem_x509_certificate(own)
        private = serialization.load_pem_private_key(key, password=None)
        # One that does not belong to the others would fail each handshake.
        certificate.verify_directly_issued_by(authority)
        if not isinstance(private, ec.EllipticCurvePrivateKey):
            return None
        if private.public_key() != certificate.public_key():
            return None
        return _generation(authority, certificate, private)
    except _BROKEN:
        return None


_BROKEN = (
    ValueError,
    TypeError,
    InvalidSignature,
    UnsupportedAlgorithm,
    x509.ExtensionNotFound,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)
"""The errors that cryptography raises for input that it cannot read."""


def _decoded(value: object) -> bytes:
    if not isinstance(value, str) or len(value) > _PEM_CHARS:
        raise ValueError("not a text, or too long")
    try:
        return base64.b64decode(value, validate=True)
    except binascii.Error as error:
        raise ValueError("not base64") from error


def _generation(
    ca: x509.Certificate, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey
) -> Generation:
    extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    names = extension.value.get_values_for_type(x509.DNSName)
    addresses = extension.value.get_values_for_type(x509.IPAddress)
    return Generation(
        ca=ca.public_bytes(serialization.Encoding.PEM),
        certificate=certificate.public_bytes(serialization.Encoding.PEM),
        key=key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
        begins=max(ca.not_valid_before_utc, certificate.not_valid_before_utc),
        expires=min(ca.not_valid_after_utc, certificate.not_valid_after_utc),
        names=frozenset({*names, *map(str, addresses)}),
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


_OF_A_CA: Sequence[tuple[x509.ExtensionType, bool]] = (
    (x509.BasicConstraints(ca=True, path_length=0), True),
    (_key_usage(signs_certificates=True), True),
)
_OF_A_SERVER: Sequence[tuple[x509.ExtensionType, bool]] = (
    (x509.BasicConstraints(ca=False, path_length=None), True),
    (_key_usage(signs_certificates=False), True),
    (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
)


def _certificate(
    names: tuple[x509.Name, x509.Name],
    key: ec.EllipticCurvePrivateKey,
    signs: ec.EllipticCurvePrivateKey,
    validity: tuple[datetime, datetime],
    extensions: Iterable[tuple[x509.ExtensionType, bool]],
) -> x509.Certificate:
    """Return a certificate of *key*, signed by *signs*. *names* are the subject's and the issuer's."""
    (subject, issuer), (begins, expires) = names, validity
    own = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(signs.public_key())
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(expires)
        .add_extension(own, critical=False)
        .add_extension(authority, critical=False)
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    return builder.sign(signs, hashes.SHA256())
