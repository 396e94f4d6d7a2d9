"""docs/providers.md and the table in docs/cli.md are made from the code, and what stands beside works."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from federation.documents.assemble import assemble
from federation.documents.model import JwtIssuer, Role
from federation.documents.parse import parse
from federation.policy.roles import evaluate
from federation.providers.page import rewritten
from federation.providers.table import PROFILES
from tests.harness.builders import provider_of, sample

ROOT = Path(__file__).parents[1]
SAMPLES = sorted(path.stem for path in (ROOT / "tests" / "vectors" / "claims").glob("*.json"))
PAGE = (ROOT / "docs" / "providers.md").read_text("utf-8")
SECTIONS = {
    name: section
    for section in re.split(r"^## ", PAGE, flags=re.MULTILINE)
    for name in re.findall(r"<!-- facts (\S+) -->", section)
}
HAVE_NO_JOBS = {"auth0", "entra", "generic", "google", "keycloak", "okta"}


def fenced(text: str, language: str = "yaml") -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


POLICY = fenced(PAGE)[0]


def documents(section: str) -> str:
    (block,) = [b for b in fenced(section) if "kind: JwtIssuer" in b]
    return block


@pytest.mark.parametrize("page", ["docs/providers.md", "docs/claims.md", "docs/cli.md"])
def test_a_page_says_what_the_code_says(page: str) -> None:
    text = (ROOT / page).read_text("utf-8")
    again = rewritten(text, PROFILES, {name: sample(name) for name in SAMPLES})
    assert text == again, f"run: python -m federation.providers.page {page}"


def test_every_claim_of_a_sample_is_on_the_page_of_what_is_sent() -> None:
    page = (ROOT / "docs" / "claims.md").read_text("utf-8")
    for name in SAMPLES:
        title = PROFILES[provider_of(name)].display_name
        section = page.split(f"\n## {title}\n")[1].split("\n## ")[0]
        assert [claim for claim in sample(name) if f"\n| `{claim}` | " not in section] == []


def test_every_provider_has_a_section_under_its_name() -> None:
    assert SECTIONS.keys() == PROFILES.keys()
    for name, section in SECTIONS.items():
        assert section.startswith(f"{PROFILES[name].display_name}\n")


@pytest.mark.parametrize("name", SECTIONS)
def test_the_documents_of_a_section_pass_without_a_warning(name: str) -> None:
    text = f"{documents(SECTIONS[name])}---\n{POLICY}"
    assembled = assemble([parse("providers.md", text.encode())])
    assert [str(problem) for problem in assembled.problems] == []
    (issuer,) = [d for d in parse("p", text.encode()).documents if isinstance(d, JwtIssuer)]
    assert issuer.provider == name


@pytest.mark.parametrize("name", SECTIONS)
def test_the_role_of_a_section_admits_a_sample_of_the_provider_and_no_other(name: str) -> None:
    parsed = parse("providers.md", documents(SECTIONS[name]).encode())
    (role,) = [document for document in parsed.documents if isinstance(document, Role)]
    admitted = {
        provider_of(each)
        for each in SAMPLES
        if any(held.admits for held in evaluate([role], provider_of(each), sample(each)))
    }
    assert admitted == ({name} if name != "generic" else set())


@pytest.mark.parametrize("name", SECTIONS)
def test_a_section_has_a_job_and_traps(name: str) -> None:
    section = SECTIONS[name]
    assert re.search(r"^Traps:\n\n- ", section, re.MULTILINE)
    assert ("\nJob:\n" in section) is (name not in HAVE_NO_JOBS)
    if name not in HAVE_NO_JOBS:
        job = section.partition("\nJob:\n")[2].partition("\nDocuments:\n")[0]
        assert "federation" in job
        assert "faas-cli deploy" in job


def test_what_people_wrote_is_left_alone_and_a_new_provider_gets_a_section() -> None:
    page = "# P\n\n<!-- glance -->\nold\n<!-- /glance -->\n\nkept\n\n## Okta\n\n<!-- facts okta -->\nold\n<!-- /facts -->\n\nkept too\n"
    both = {name: PROFILES[name] for name in ("okta", "github")}
    made = rewritten(page, both)
    assert "\nkept\n" in made
    assert "\nkept too\n" in made
    assert "old" not in made
    assert "\n## GitHub\n\n<!-- facts github -->\n\n| fact | |\n" in made
    assert rewritten(made, both) == made
