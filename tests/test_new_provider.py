"""
A provider is added by one file and its sample payload: every command then knows it.

The test does it in a copy of the package, in processes of their own.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import federation

ROOT = Path(__file__).parents[1]

PROVIDER = r'''
"""Acme CI: one issuer for all customers."""

import re
from types import MappingProxyType

from federation.providers.profile import (
    DIGITS,
    Demand,
    InVariable,
    JobToken,
    OwnerClaims,
    Profile,
)


def _of_stranger(claims):
    return claims.get("trigger") != "push"


PROFILE = Profile(
    name="acme",
    display_name="Acme CI",
    issuers=re.compile(r"https://ci\.acme\.example"),
    issuer_example="https://ci.acme.example",
    shared_hosts=("ci.acme.example",),
    required=("customer_id", "job"),
    scalars=frozenset({"iss", "sub", "customer_id", "customer", "job", "trigger", "branch"}),
    shapes=MappingProxyType({"customer_id": DIGITS}),
    owner=OwnerClaims(ids=("customer_id",), pin=("customer_id", "<id of the customer>")),
    selective=("customer_id", "sub"),
    free=MappingProxyType({"job": "every customer can have a job called so"}),
    circumstances=frozenset({"trigger", "branch"}),
    demands=(
        Demand(
            applies=_of_stranger,
            claims=("trigger",),
            sentence="Strangers can cause this job, so a Role must name jwt:trigger.",
            wildcard_admits="every trigger",
        ),
    ),
    ref_claims=("branch",),
    ref_example=(("branch", "main"),),
    job_token=JobToken(
        marks=(("ACME_CI", "yes"),),
        sources=(InVariable(names=("ACME_ID_TOKEN",)),),
        advice="Add identity: {audience} to the job.",
    ),
)
'''

SAMPLE = {
    "iss": "https://ci.acme.example",
    "aud": "https://gateway.example.com",
    "sub": "customer 7, job release",
    "iat": 1788264000,
    "exp": 1788264300,
    "customer_id": "7",
    "customer": "harbour-lab",
    "job": "release",
    "trigger": "push",
    "branch": "main",
}

DOCUMENTS = """
apiVersion: iam.openfaas.com/v1
kind: JwtIssuer
metadata: {name: acme}
spec:
  iss: https://ci.acme.example
  aud: [https://gateway.example.com]
---
apiVersion: iam.openfaas.com/v1
kind: Policy
metadata: {name: deploy}
spec:
  statement:
    - {sid: deploy, effect: Allow, action: [Function:Create], resource: ["openfaas-fn:*"]}
---
apiVersion: iam.openfaas.com/v1
kind: Role
metadata: {name: release}
spec:
  policy: [deploy]
  condition:
    StringEqual:
      jwt:iss: https://ci.acme.example
      PIN
      jwt:branch: main
"""


class Copy:
    """A copy of the package and its page, with one more provider."""

    def __init__(self, home: Path) -> None:
        (package,) = federation.__path__
        without_caches = shutil.ignore_patterns("__pycache__")
        shutil.copytree(package, home / "federation", ignore=without_caches)
        (home / "docs").mkdir()
        for page in ("providers.md", "claims.md", "cli.md"):
            shutil.copy(ROOT / "docs" / page, home / "docs")
        samples = home / "tests" / "vectors" / "claims"
        samples.mkdir(parents=True)
        (home / "federation" / "providers" / "acme.py").write_text(PROVIDER)
        self.sample = samples / "acme-push.json"
        self.sample.write_text(json.dumps(SAMPLE))
        self.home = home

    def documents(self, pin: str) -> str:
        """A file with documents whose Role has the condition *pin*."""
        file = self.home / "documents.yaml"
        file.write_text(DOCUMENTS.replace("PIN", pin))
        return str(file)

    def run(self, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
        kept = {"PATH": os.environ["PATH"], "PYTHONPATH": str(self.home), "HOME": str(self.home)}
        return subprocess.run(  # noqa: S603  our own words
            [sys.executable, "-P", *words],
            cwd=self.home,
            env=kept | environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    return Copy(tmp_path_factory.mktemp("with-acme"))


COMMAND = ("-m", "federation")


def test_check_accepts_the_tight_role_and_refuses_the_open_one(copy: Copy) -> None:
    tight = copy.run(*COMMAND, "check", "--strict", copy.documents('jwt:customer_id: "7"'))
    assert (tight.returncode, tight.stdout) == (0, "3 documents: no problems\n"), tight.stderr
    loose = copy.run(*COMMAND, "check", copy.documents("jwt:job: release"))
    assert loose.returncode == 1
    assert "T002" in loose.stdout
    assert "every customer can have a job called so" in loose.stdout
    wrong = copy.run(*COMMAND, "check", "--strict", copy.documents("jwt:customer_id: seven"))
    assert "W108" in wrong.stdout


def test_explain_admits_the_sample_and_knows_what_a_role_must_name(copy: Copy) -> None:
    documents = copy.documents('jwt:customer_id: "7"')
    words = (*COMMAND, "explain", "--documents", documents, "--claims")
    admitted = copy.run(*words, str(copy.sample))
    assert admitted.returncode == 0, admitted.stdout + admitted.stderr
    copy.home.joinpath("other.json").write_text(json.dumps(SAMPLE | {"trigger": "comment"}))
    refused = copy.run(*words, "other.json")
    assert refused.returncode == 1
    assert "Strangers can cause this job" in refused.stdout
    copy.home.joinpath("other.json").write_text(json.dumps(SAMPLE | {"job": None}))
    assert "missing_claim" in copy.run(*words, "other.json").stdout


def test_exchange_recognises_its_jobs(copy: Copy) -> None:
    told = copy.run(*COMMAND, "exchange", "--url", "https://x.example", ACME_CI="yes").stderr
    assert "This Acme CI job has no ACME_ID_TOKEN." in told
    assert "Add identity: https://x.example to the job." in told


def test_the_pages_get_its_facts_and_a_section(copy: Copy) -> None:
    pages = ("docs/providers.md", "docs/cli.md", "docs/claims.md")
    before = {page: copy.home.joinpath(page).read_text("utf-8") for page in pages}
    done = copy.run("-m", "federation.providers.page", *pages)
    assert (done.returncode, done.stderr) == (0, "")
    after = {page: copy.home.joinpath(page).read_text("utf-8") for page in pages}
    assert "| [Acme CI](#acme-ci) | `acme` | **yes** | `customer_id` |" in after[pages[0]]
    section = after[pages[0]].partition("\n## Acme CI\n")[2]
    assert "| `job` | every customer can have a job called so |" in section
    assert "| samples | `acme-push` |" in section
    assert "| `acme` | `ACME_CI=yes` | variable `ACME_ID_TOKEN` |" in after[pages[1]]
    assert "\n## Acme CI\n" in after[pages[2]]
    assert "| `customer_id` | `7` | **the owner, by id** |" in after[pages[2]]
    assert all("Acme CI" not in text for text in before.values())
