"""
Certificate authorities for tests, each with a certificate for a server on 127.0.0.1.

Like those of many companies, they have no key identifiers.
"""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


class Authority:
    """
    A certificate authority. Its certificate is the file `certificate`, in *folder*.

    The file `served` has a server's private key and certificate.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.certificate = folder / "ca.pem"
        self.served = folder / "server.pem"
        self._key = key = ec.generate_private_key(ec.SECP256R1())
        own = ec.generate_private_key(ec.SECP256R1())
        self._name = name = _name(f"authority {folder.name}")
        authority = _certificate(name, name, key, key, ca=True)
        server = _certificate(_name("127.0.0.1"), name, own, key, ca=False)
        pem = serialization.Encoding.PEM
        self.certificate.write_bytes(authority.public_bytes(pem))
        self.served.write_bytes(_pem(own) + server.public_bytes(pem))

    def client(self, folder: Path) -> tuple[Path, Path]:
        """The files of a client's certificate of this authority, and of its private key."""
        folder.mkdir()
        key = ec.generate_private_key(ec.SECP256R1())
        made = _certificate(_name("the broker"), self._name, key, self._key, ca=False)
        certificate, private = folder / "client.pem", folder / "client.key"
        certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
        private.touch(0o600)
        private.write_bytes(_pem(key))
        return certificate, private

    def server(self) -> ssl.SSLContext:
        """The TLS context of a server, with a certificate of this authority."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.served)
        return context


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _certificate(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    signs: ec.EllipticCurvePrivateKey,
    *,
    ca: bool,
) -> x509.Certificate:
    now = datetime.now(UTC)
    # The names are those of servers elsewhere: a client does not take them for this machine.
    names = x509.SubjectAlternativeName(
        [
            *(x509.IPAddress(ip_address(each)) for each in ("127.0.0.1", "2001:db8::1")),
            x509.DNSName("*.elsewhere.example"),
        ]
    )
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(names, critical=False)
        .sign(signs, hashes.SHA256())
    )
