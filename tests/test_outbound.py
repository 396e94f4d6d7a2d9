"""Settings of outgoing connections in the environment: proxies, exceptions, trusted CAs."""

from __future__ import annotations

import os
import ssl
from importlib.util import find_spec
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from federation.outbound import Outbound, OutboundError, machine_store, trusting
from tests.harness.certificates import Authority

PROXY = "http://proxy.example:3128"
PASSWORD = "s3cr3t"


def problems(environ: dict[str, str]) -> list[str]:
    with pytest.raises(OutboundError) as caught:
        Outbound.of(environ)
    assert PASSWORD not in str(caught.value)
    return list(caught.value.problems)


def is_direct(url: str, no_proxy: str) -> bool:
    environ = {"HTTPS_PROXY": PROXY, "HTTP_PROXY": PROXY, "NO_PROXY": no_proxy}
    return Outbound.of(environ).proxy_for(url) is None


# NO_PROXY

DIRECT = [
    ("example.com", "https://example.com/"),
    ("example.com", "https://a.b.example.com/"),
    ("Example.COM", "https://EXAMPLE.com/"),
    ("example.com.", "https://example.com/"),
    ("example.com", "https://example.com./"),
    (".example.com", "https://a.example.com/"),
    (".example.com", "https://example.com/"),
    ("*.example.com", "https://a.example.com/"),
    ("svc,.cluster.local", "https://kubernetes.default.svc.cluster.local/"),
    ("a.example  b.example", "https://b.example/"),
    (" a.example ,\tb.example\n", "https://b.example/"),
    (",,b.example,", "https://b.example/"),
    ("intranet", "http://intranet/"),
    ("under_score.example", "https://under_score.example/"),
    ("bücher.example", "https://bücher.example/"),
    ("xn--bcher-kva.example", "https://bücher.example/"),
    ("10.1.2.3", "https://10.1.2.3:8443/"),
    ("10.0.0.0/8", "https://10.1.2.3/"),
    ("10.1.2.3/8", "https://10.200.0.1/"),
    ("fd00:10::/64", "https://[fd00:10::5]/"),
    ("[fd00:10::]/64", "https://[fd00:10::5]/"),
    ("fd00:10::5", "https://[fd00:10::5]/"),
    ("[fd00:10::5]", "https://[fd00:10::5]:8443/"),
    ("FD00:0010:0:0::5", "https://[fd00:10::5]/"),
    ("10.0.0.0/8", "https://[::ffff:10.1.2.3]/"),
    ("*", "https://anything.example/"),
    ("a.example,*", "https://[2001:db8::1]/"),
    ("example.com:8443", "https://example.com:8443/"),
    ("example.com:443", "https://example.com/"),
    ("example.com:80", "http://example.com/"),
    ("10.1.2.3:8443", "https://10.1.2.3:8443/"),
    ("[fd00::5]:8443", "https://[fd00::5]:8443/"),
    ("*:8443", "https://example.com:8443/"),
]
BY_PROXY = [
    ("", "https://example.com/"),
    ("example.com", "https://notexample.com/"),
    ("example.com", "https://example.com.evil.example/"),
    ("ample.com", "https://example.com/"),
    ("*.example.com", "https://example.com/"),
    ("a.example.com", "https://example.com/"),
    ("10.0.0.0/8", "https://11.0.0.1/"),
    ("10.0.0.0/8", "https://10.0.0.1.example/"),
    ("10.1.2.3", "https://10.1.2.30/"),
    ("fd00:10::/64", "https://[fd00:11::5]/"),
    ("example.com:8443", "https://example.com/"),
    ("[fd00::5]:8443", "https://[fd00::5]/"),
    ("fd00::5:8443", "https://[fd00::5]:8443/"),
    ("*:8443", "https://example.com/"),
    ("localhost", "https://localhost.example/"),
    ("127.0.0.1", "https://127.0.0.1.example/"),
]


@pytest.mark.parametrize(("no_proxy", "url"), DIRECT)
def test_an_exception_is_asked_directly(no_proxy: str, url: str) -> None:
    assert is_direct(url, no_proxy)
    assert not is_direct(url, "other.example, 192.0.2.0/24")


@pytest.mark.parametrize(("no_proxy", "url"), BY_PROXY)
def test_what_is_no_exception_goes_through_the_proxy(no_proxy: str, url: str) -> None:
    assert not is_direct(url, no_proxy)


@pytest.mark.parametrize(
    "url",
    ["https://localhost/", "https://LOCALHOST:1/", "https://a.localhost/", "http://127.0.0.1:8080/",
     "http://127.9.9.9/", "https://[::1]/", "https://[::ffff:127.0.0.1]/", "http://0.0.0.0:8080/",
     "http://[::]/", "http://169.254.169.254/metadata", "http://metadata.google.internal/x",
     "https://127.1/", "https://0x7f.1/", "https://2130706433/", "https://169.254.43518/"],
)  # fmt: skip
def test_this_machine_and_its_metadata_server_are_asked_directly(url: str) -> None:
    assert is_direct(url, "")


@pytest.mark.parametrize(
    "entry",
    ["10.0.0.*", "10.0.0", "10.0.0.0/33", "10.", "fd00::/200", "http://example.com", "a..example",
     "example.com:port", "example.com:0", "example.com:70000", "[fd00::5", "a*b.example", "fd00::zz",
     "10.0.0.0-10.0.0.9", "/8", ":8080", "[]:80", "*.*"],
)  # fmt: skip
def test_an_entry_that_means_nothing_is_passed_over_and_named(entry: str) -> None:
    outbound = Outbound.of({"HTTPS_PROXY": PROXY, "NO_PROXY": f"{entry},example.com"})
    assert outbound.described().exceptions == ("example.com",)
    (note,) = outbound.described().notes
    assert note.startswith(f"NO_PROXY: {entry} is no name, address or range")
    assert outbound.proxy_for("https://10.0.0.1/") == PROXY


def test_very_many_entries_cost_little() -> None:
    outbound = Outbound.of({"HTTPS_PROXY": PROXY, "NO_PROXY": "a.example," * 1_000_000})
    assert len(outbound.exceptions.entries) <= 2000
    assert outbound.proxy_for("https://b.example/") == PROXY


# Proxies


@pytest.mark.parametrize(
    ("environ", "https", "http"),
    [
        ({}, None, None),
        ({"HTTPS_PROXY": PROXY}, PROXY, None),
        ({"HTTP_PROXY": PROXY}, None, PROXY),
        ({"ALL_PROXY": PROXY}, PROXY, PROXY),
        ({"all_proxy": PROXY}, PROXY, PROXY),
        ({"ALL_PROXY": "http://all:1", "HTTPS_PROXY": PROXY}, PROXY, "http://all:1"),
        ({"https_proxy": PROXY, "HTTPS_PROXY": "http://other:1"}, PROXY, None),
        ({"https_proxy": "", "HTTPS_PROXY": PROXY}, PROXY, None),
        ({"https_proxy": " ", "HTTPS_PROXY": ""}, None, None),
        ({"HTTP_PROXY": PROXY, "REQUEST_METHOD": "GET"}, None, None),
        ({"http_proxy": PROXY, "REQUEST_METHOD": "GET"}, None, PROXY),
        ({"HTTP_PROXY": "http://x:1", "ALL_PROXY": PROXY, "REQUEST_METHOD": "GET"}, PROXY, PROXY),
        ({"HTTPS_PROXY": PROXY, "REQUEST_METHOD": "GET"}, PROXY, None),
    ],
)
def test_the_variable_that_counts(
    environ: dict[str, str], https: str | None, http: str | None
) -> None:
    outbound = Outbound.of(environ)
    assert outbound.proxy_for("https://a.example/") == https
    assert outbound.proxy_for("http://a.example/") == http


@pytest.mark.parametrize(
    ("written", "understood"),
    [
        ("proxy.example:3128", PROXY),
        ("proxy.example", "http://proxy.example:80"),
        ("HTTP://Proxy.Example:3128/", PROXY),
        (f" {PROXY}\n", PROXY),
        ("https://proxy.example", "https://proxy.example:443"),
        ("http://10.0.0.1:3128", "http://10.0.0.1:3128"),
        ("http://[fd00::1]:3128", "http://[fd00::1]:3128"),
        (f"http://user:{PASSWORD}@proxy.example:3128", PROXY),
        (f"user:{PASSWORD}@proxy.example:3128", PROXY),
        (f"http://user:{PASSWORD}@x@proxy.example:3128", PROXY),
        ("http://proxy.example:3128/proxy.pac", PROXY),
    ],
)
def test_a_proxy_may_be_written_as_curl_takes_it(written: str, understood: str) -> None:
    outbound = Outbound.of({"HTTPS_PROXY": written})
    assert outbound.proxy_for("https://a.example/") == understood
    assert PASSWORD not in repr(outbound)
    assert PASSWORD not in repr(outbound.described())


@pytest.mark.parametrize(
    ("written", "why"),
    [
        ("ftp://proxy.example", "has a scheme that is not http"),
        (f"{PASSWORD}://proxy.example", "has a scheme that is not http"),
        ("http://", "names no host"),
        ("http://:3128", "names no host"),
        ("http://pro xy:3128", "has a blank"),
        ("http://proxy\n:3128", "has a blank"),
        ("http://proxy:port", "names no host"),
        ("http://proxy:0", "has a port that is not between"),
        ("http://proxy:65536", "has a port that is not between"),
        ("http://fd00::1:3128", "names no host"),
        ("http://[fd00::zz]:3128", "names no host"),
        (f"http://user:12/{PASSWORD}@proxy.example:3128", "percent-encoded"),
        (f"http://user:12#{PASSWORD}@proxy.example:3128", "percent-encoded"),
        (f"http://user:12?{PASSWORD}@proxy.example:3128", "percent-encoded"),
        (f"http://{PASSWORD}/x@proxy.example:3128", "percent-encoded"),
        (f"http://user:{PASSWORD}%00@proxy.example", "control character"),
        (f"http://user:{PASSWORD}%ff@proxy.example", "not percent-encoded UTF-8"),
    ],
)
@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "http_proxy", "ALL_PROXY"])
def test_a_proxy_that_cannot_be_used_is_refused_at_the_start(
    variable: str, written: str, why: str
) -> None:
    (problem,) = problems({variable: written})
    assert problem.startswith(f"{variable} {why}") or why in problem
    assert problem.startswith(variable)


@pytest.mark.skipif(find_spec("socksio") is not None, reason="something speaks to it here")
@pytest.mark.parametrize("scheme", ["socks5", "socks5h", "socks4", "socks4a", "socks"])
def test_a_socks_proxy_is_refused_where_nothing_speaks_to_it(scheme: str) -> None:
    (problem,) = problems({"ALL_PROXY": f"{scheme}://user:{PASSWORD}@proxy.example:1080"})
    assert problem.startswith("ALL_PROXY is a SOCKS proxy")
    assert "set HTTPS_PROXY to a proxy that speaks HTTP" in problem


def test_a_proxy_that_counts_for_nothing_is_no_error() -> None:
    both = {"HTTPS_PROXY": PROXY, "HTTP_PROXY": PROXY}
    Outbound.of({"ALL_PROXY": "socks5://proxy.example", **both})
    Outbound.of({"ALL_PROXY": "socks5://proxy.example", "NO_PROXY": "*"})
    Outbound.of({"HTTPS_PROXY": "socks5://proxy.example", "https_proxy": PROXY})


def test_every_problem_is_told_at_once() -> None:
    told = problems(
        {"HTTPS_PROXY": "ftp://x", "HTTP_PROXY": "http://", "SSL_CERT_FILE": "/nowhere/ca.pem"}
    )
    assert [problem.split()[0].rstrip(":") for problem in told] == [
        "HTTPS_PROXY",
        "HTTP_PROXY",
        "SSL_CERT_FILE",
    ]


def test_what_was_understood_is_described() -> None:
    described = Outbound.of(
        {
            "https_proxy": f"http://user:{PASSWORD}@proxy.example:3128",
            "HTTPS_PROXY": "http://other.example",
            "NO_PROXY": ".svc 10.0.0.0/8",
        }
    ).described()
    assert [(each.scheme, each.url, each.variable) for each in described.proxies] == [
        ("https", PROXY, "https_proxy")
    ]
    assert described.exceptions == (".svc", "10.0.0.0/8")
    assert described.trust_store.startswith("the machine's trust store: /")
    assert described.notes == ("HTTPS_PROXY is passed over: https_proxy is set too, and wins",)


def test_what_other_programs_read_is_named() -> None:
    (note,) = Outbound.of({"REQUESTS_CA_BUNDLE": "/x"}).described().notes
    assert note == "REQUESTS_CA_BUNDLE is not read; set SSL_CERT_FILE to trust that bundle"


# The trust store


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


def subjects(context: ssl.SSLContext) -> int:
    return len(context.get_ca_certs())


def folded(pem: str) -> str:
    """What YAML makes of a block after `>`."""
    return " ".join(pem.split("\n"))


def test_a_file_replaces_the_machines_store(authority: Authority) -> None:
    outbound = Outbound.of({"SSL_CERT_FILE": f" {authority.certificate}\n"})
    assert subjects(outbound.context()) == 1
    assert outbound.described().trust_store == f"SSL_CERT_FILE: {authority.certificate}"


def test_files_are_read_anew_for_each_context(authority: Authority, tmp_path: Path) -> None:
    file = tmp_path / "bundle.pem"
    file.write_bytes(authority.certificate.read_bytes())
    outbound = Outbound.of({"SSL_CERT_FILE": str(file)})
    other = Authority(tmp_path / "other").certificate.read_bytes()
    file.write_bytes(file.read_bytes() + b"# K\xc3\xb6ln\n" + other)
    assert subjects(outbound.context()) == 2
    file.unlink()
    with pytest.raises(OutboundError, match=r"^SSL_CERT_FILE: .* No such file or directory$"):
        outbound.context()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (b"garbage", "holds no certificate in PEM"),
        (b"-----BEGIN PRIVATE KEY-----\nMII=\n-----END PRIVATE KEY-----\n", "holds a private key"),
        (b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n", "number 1 of 1"),
        (b"-----BEGIN CERTIFICATE-----\nMIIB\n", "number 1 of 1"),
        ("utf-16", "is in UTF-16"),
        ("der", "is in DER"),
        ("folded", "without its line breaks"),
        ("indented", "without its line breaks"),
        ("marked", "byte order mark"),
        ("second is broken", "number 2 of 2"),
    ],
)
def test_a_file_that_is_no_bundle_is_refused_with_the_reason(
    authority: Authority, tmp_path: Path, content: bytes | str, why: str
) -> None:
    pem = authority.certificate.read_text("ascii")
    if isinstance(content, str):
        content = {
            "utf-16": pem.encode("utf-16"),
            "der": x509.load_pem_x509_certificate(pem.encode()).public_bytes(
                serialization.Encoding.DER
            ),
            "folded": folded(pem).encode(),
            "indented": pem.replace("-----BEGIN", "  -----BEGIN").encode(),
            "marked": pem.encode("utf-8-sig"),
            "second is broken": (pem + pem.replace("MII", "AAA")).encode(),
        }[content]
    file = tmp_path / "bundle.pem"
    file.write_bytes(content)
    (problem,) = problems({"SSL_CERT_FILE": str(file)})
    assert problem.startswith(f"SSL_CERT_FILE: {file} ")
    assert why in problem
    assert "unset it to trust the machine's own" in problem
    with pytest.raises(OutboundError, match=why):
        trusting(file)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(16 * 1024 * 1024 + 1)
    for path, why in (
        (tmp_path / "missing", "No such file or directory"),
        (tmp_path, "is a folder, not a file"),
        (pipe, "is not a file"),
        (Path("/dev/zero"), "is not a file"),
        (large, "has more than 16 MiB"),
    ):
        (problem,) = problems({"SSL_CERT_FILE": str(path)})
        assert why in problem


@pytest.mark.parametrize("hashed", [True, False], ids=["hashed names", "other names"])
def test_a_folder_replaces_the_machines_store(
    authority: Authority, tmp_path: Path, hashed: bool
) -> None:
    folder = tmp_path / "certs"
    folder.mkdir()
    (folder / "README").write_text("not a certificate")
    (folder / ("0123abcd.0" if hashed else "company.crt")).write_bytes(
        authority.certificate.read_bytes()
    )
    outbound = Outbound.of({"SSL_CERT_DIR": f"/nowhere:{folder}"})
    # OpenSSL reads a hashed name when it meets the CA, so nothing is read yet.
    assert subjects(outbound.context()) == (0 if hashed else 1)


def test_a_folder_without_certificates_is_refused(tmp_path: Path) -> None:
    (tmp_path / "README").write_text("not a certificate")
    for written, why in (
        (tmp_path, "holds no file with certificates in PEM"),
        (tmp_path / "missing", "No such file or directory"),
        (tmp_path / "README", "is not a folder"),
    ):
        (problem,) = problems({"SSL_CERT_DIR": str(written)})
        assert problem.startswith(f"SSL_CERT_DIR: {written}")
        assert why in problem


def test_file_and_folder_are_united(authority: Authority, tmp_path: Path) -> None:
    folder = tmp_path / "certs"
    folder.mkdir()
    other = Authority(tmp_path / "other").certificate.read_bytes()
    (folder / "other.pem").write_bytes(other)
    environ = {"SSL_CERT_FILE": str(authority.certificate), "SSL_CERT_DIR": str(folder)}
    assert subjects(Outbound.of(environ).context()) == 2


def test_where_openssl_looks_comes_first(authority: Authority, tmp_path: Path) -> None:
    other = Authority(tmp_path / "other").certificate
    store = machine_store(str(authority.certificate), "/nowhere", [str(other)])
    assert store.files == (authority.certificate,)


def test_a_well_known_bundle_is_used_where_openssl_finds_nothing(
    authority: Authority, tmp_path: Path
) -> None:
    """Builds of Python that were made on another machine look in a folder of that machine."""
    empty = tmp_path / "empty.pem"
    empty.touch()
    bundles = ["/nowhere", str(empty), str(authority.certificate)]
    store = machine_store(str(empty), str(tmp_path), bundles)
    assert store.files == (authority.certificate,)
    assert subjects(store.context()) == 1


def test_a_machine_without_any_ca_is_told() -> None:
    store = machine_store("/nowhere", "/nowhere", [])
    assert store.empty
    assert str(store) == "no trusted CA was found on this machine"
    assert subjects(store.context()) == 0
