"""
Who may write a JwtIssuer in the broker's namespace cannot make the broker send its other files.

The broker sends the content of `bearerTokenFile` to an address that the same object names. So an
object of Kubernetes may only name files in the folder of the setting `bearer-token-files`. The
name is checked when the object is read, and where it leads is checked at each fetch.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import httpx2
import pytest

from federation.documents.model import JwtIssuer
from federation.documents.rules.issuer_documents import token_file_outside
from federation.errors import Refusal
from federation.issuers.key_ring import KeyRing
from tests.harness.builders import issuer
from tests.harness.clock import Clock
from tests.harness.issuer import FakeIssuer

ATTACKER = "https://keys.attacker.example"
KEY = "state/signing-keys/key.pem"


class Pod:
    """The files of a pod: a folder of projected tokens, and what the broker has beside it."""

    def __init__(self, root: Path) -> None:
        self.root, self.tokens = root, root / "tokens"
        for folder in (self.tokens, root / "tokens-of-others", root / "state" / "signing-keys"):
            folder.mkdir(parents=True)
        # A password, which would pass for a token. A whole key would not.
        (root / KEY).write_text("the-key-of-the-broker")
        (root / "tokens-of-others" / "api").write_text("token-of-another")
        self.renew("token-of-the-cluster")

    def renew(self, token: str) -> None:
        """Write the token as the kubelet does: a new folder, and a link to it that is replaced."""
        folder = self.tokens / f"..{len(list(self.tokens.iterdir()))}"
        folder.mkdir()
        (folder / "api").write_text(token)
        new, data = self.tokens / "..data_tmp", self.tokens / "..data"
        new.symlink_to(folder.name)
        new.rename(data)
        if not (self.tokens / "api").is_symlink():
            (self.tokens / "api").symlink_to("..data/api")

    def link(self, name: str, target: str) -> str:
        """Make a link in the folder of tokens, and return its path."""
        path = self.tokens / name
        path.symlink_to(target)
        return str(path)


@pytest.fixture
def pod(tmp_path: Path) -> Pod:
    return Pod(tmp_path)


def named(path: str) -> JwtIssuer:
    """An object of Kubernetes that names the file *path*."""
    return issuer(ATTACKER, bearer_token_file=path, from_kubernetes=True)


def refused(path: str, folder: Path | None) -> bool:
    """True if the object is refused when it is read."""
    problems = list(token_file_outside(named(path), folder))
    assert all((p.code, p.field) == ("D027", "spec.bearerTokenFile") for p in problems)
    return bool(problems)


class Fetched:
    """What a broker sent that was asked for a key of each of the *issuers*, and why it failed."""

    def __init__(self, folder: Path | None, *issuers: JwtIssuer) -> None:
        self.fake = FakeIssuer(ATTACKER)
        self.sent: set[str | None] = set()
        self.failure = ""
        asyncio.run(self._ask(folder, issuers))

    async def _ask(self, folder: Path | None, issuers: tuple[JwtIssuer, ...]) -> None:
        transport = httpx2.MockTransport(self._answer)
        ring = KeyRing(
            lambda _: httpx2.AsyncClient(transport=transport), Clock(), token_folder=folder
        )
        for each in issuers:
            try:
                await ring.key(each, "k1", "RS256")
            except Refusal:
                self.failure = ring.status()[ATTACKER].failure
        await ring.aclose()

    async def _answer(self, request: httpx2.Request) -> httpx2.Response:
        self.sent.add(request.headers.get("authorization"))
        return await self.fake.answer(request)


def test_a_projected_token_in_the_folder_is_sent_also_after_it_was_renewed(pod: Pod) -> None:
    api = str(pod.tokens / "api")
    assert not refused(api, pod.tokens)
    assert Fetched(pod.tokens, named(api)).sent == {"Bearer token-of-the-cluster"}
    pod.renew("renewed")
    assert Fetched(pod.tokens, named(api)).sent == {"Bearer renewed"}


def test_a_folder_that_is_itself_a_link_is_the_folder(pod: Pod) -> None:
    run = pod.root / "run"
    run.symlink_to("tokens")
    assert not refused(f"{run}/api", run)
    assert Fetched(run, named(f"{run}/api")).sent == {"Bearer token-of-the-cluster"}


@pytest.mark.parametrize(
    "path",
    [
        "{root}/" + KEY,
        "{root}/tokens/../" + KEY,
        "{root}/tokens/sub/../../" + KEY,
        "{root}/tokens-of-others/api",
        "{root}/tokens",
        "{root}/tokens/",
        "{root}/tokens/.",
        "/proc/self/environ",
        "/proc/self/root{root}/tokens/api",
        "/var/run/secrets/kubernetes.io/serviceaccount/token",
        "//{root}/tokens/../" + KEY,
    ],
)
def test_a_file_outside_of_the_folder_is_refused_and_would_not_be_sent(pod: Pod, path: str) -> None:
    named_so = path.format(root=pod.root)
    assert refused(named_so, pod.tokens)
    if not named_so.startswith("/proc/self/root"):  # which leads into the folder after all
        assert Fetched(pod.tokens, named(named_so)).sent == set()


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("relative", "../" + KEY),
        ("absolute", "{root}/" + KEY),
        ("folder", "../state/signing-keys"),
        ("environment", "/proc/self/environ"),
        ("descriptor", "/proc/self/fd/0"),
        ("sibling", "../tokens-of-others/api"),
    ],
)
def test_a_link_in_the_folder_that_leads_out_of_it_is_not_followed(
    pod: Pod, name: str, target: str
) -> None:
    path = pod.link(name, target.format(root=pod.root))
    path += "/key.pem" if name == "folder" else ""
    assert not refused(path, pod.tokens)  # a name says nothing about where it leads
    fetched = Fetched(pod.tokens, named(path))
    assert fetched.sent == set()
    why = f"leads out of {pod.tokens} (bearer-token-files)"
    assert fetched.failure == f"bearerTokenFile {path}: {why}"


def test_a_link_that_is_changed_after_the_object_was_read_is_not_followed(pod: Pod) -> None:
    api = pod.tokens / "api"
    assert Fetched(pod.tokens, named(str(api))).sent == {"Bearer token-of-the-cluster"}
    api.unlink()
    api.symlink_to("../" + KEY)
    assert Fetched(pod.tokens, named(str(api))).sent == set()


def test_links_in_a_circle_and_what_is_no_file_are_a_failure_and_nothing_more(pod: Pod) -> None:
    os.mkfifo(pod.tokens / "pipe")
    for path in (pod.link("round", "round"), f"{pod.tokens}/pipe", f"{pod.tokens}/..data"):
        fetched = Fetched(pod.tokens, named(path))
        assert fetched.sent == set()
        assert fetched.failure.startswith(f"bearerTokenFile {path}: ")


def test_without_the_setting_an_object_may_name_no_file(pod: Pod) -> None:
    api = str(pod.tokens / "api")
    assert refused(api, None)
    fetched = Fetched(None, named(api))
    assert fetched.sent == set()
    assert fetched.failure.endswith("the setting bearer-token-files is not set")


def test_a_document_in_a_file_may_name_any_file_and_shares_no_keys_with_an_object(
    pod: Pod,
) -> None:
    elsewhere = str(pod.root / "tokens-of-others" / "api")
    in_a_file = issuer(ATTACKER, bearer_token_file=elsewhere)
    assert Fetched(pod.tokens, in_a_file).sent == {"Bearer token-of-another"}
    fetched = Fetched(pod.tokens, in_a_file, named(elsewhere))
    assert fetched.failure.endswith("(bearer-token-files)")


def test_an_object_that_names_no_file_needs_no_setting() -> None:
    without = issuer(ATTACKER, from_kubernetes=True)
    assert list(token_file_outside(without, None)) == []
    assert Fetched(None, without).sent == {None}
