"""`federation explain CODE`, the pages that messages name, and a file given in place of another."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from federation.cli import main, manual
from federation.client.docs import more_on, page_at
from federation.documents.codes import Code
from federation.documents.rules.lint import CODES
from federation.errors import Reason
from federation.pages import PAGES, anchor, docs_address, page

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
ADDRESS = "https://docs.example.com/federation"
EXAMPLE = str(ROOT / "examples" / "github-repository.yaml")
HEADER, PAYLOAD = "eyJhbGciOiJSUzI1NiJ9", "eyJpc3MiOiJodHRwczovL2NpLmV4YW1wbGUifQ"
TOKEN = f"{HEADER}.{PAYLOAD}.c2ln"


def anchors(page: str) -> set[str]:
    titles = re.findall(r"^#{2,4} (.*)$", (DOCS / page).read_text("utf-8"), re.MULTILINE)
    return {anchor(title) for title in titles}


def explain(*words: str, given: str | None = None, **environ: str) -> Result:
    return CliRunner().invoke(main, ["explain", *words], input=given, env=environ)


@pytest.mark.parametrize("code", manual.codes())
def test_every_code_has_a_section_that_is_where_its_address_says(code: str) -> None:
    section = manual.about(code)
    assert section
    assert len(section.text) > 40
    name, _, place = section.page.partition("#")
    assert place in anchors(name)


def test_the_codes_are_those_that_messages_have() -> None:
    assert set(manual.codes()) == {*CODES, *Code, *Reason}


@pytest.mark.parametrize("code", ["T002", "t002"])
def test_a_code_is_explained_with_its_examples_and_its_page(code: str) -> None:
    told = explain(code)
    assert told.exit_code == 0
    assert told.output.startswith("T002 Nothing pins who owns the code\n")
    assert "Good:" in told.output
    assert "T003" not in told.output
    assert told.output.endswith("docs/lint.md#t002-nothing-pins-who-owns-the-code\n")


def test_the_page_is_named_where_the_docs_are_published() -> None:
    told = explain("expired", FEDERATION_DOCS_URL=f"{ADDRESS}/")
    assert told.output.endswith(f"\n{ADDRESS}/refusals.md#expired\n")


def test_the_last_reason_ends_with_its_own_section() -> None:
    assert "server_error" in explain("server_error").output


def test_words_of_a_message_are_looked_up() -> None:
    told = explain("Could not be  reached")
    assert told.exit_code == 0
    assert "SSL_CERT_FILE" in told.output


@pytest.mark.parametrize(
    ("words", "told"),
    [("expird", "did you mean expired?"), ("T999", "T00"), ("no such words at all", "codes are")],
)
def test_what_is_no_code_is_said_with_the_nearest(words: str, told: str) -> None:
    refused = explain(words)
    assert refused.exit_code == 1
    assert told in refused.output


def test_a_code_and_a_token_are_not_given_together() -> None:
    assert explain("T002", "--documents", EXAMPLE).exit_code == 2
    assert explain().exit_code == 2


def test_the_wheel_holds_the_pages() -> None:
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    assert all(f'"docs/{name}" = "federation/docs/{name}"' in text for name in PAGES)


def test_a_package_without_its_pages_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manual, "_PLACES", (tmp_path,))
    told = explain("T002")
    assert told.exit_code == 1
    assert "the docs are not installed" in told.output


# Addresses


@pytest.mark.parametrize(
    "address",
    ["", "docs.example.com", "ftp://a", "https://a b", "https://a#b", "https://a?b=c", 'https://"a"',
     "https://a\\b", "https://" + "a" * 600],
)  # fmt: skip
def test_what_is_no_address_of_pages_is_refused_and_hides_no_page(address: str) -> None:
    with pytest.raises(ValueError, match="must be like https://"):
        docs_address(address)
    assert page_at("lint.md", {"FEDERATION_DOCS_URL": address}) == "docs/lint.md"


def test_pages_are_below_the_address() -> None:
    assert page("lint.md", docs_address(f"{ADDRESS}/")) == f"{ADDRESS}/lint.md"


@pytest.mark.parametrize("reason", Reason)
def test_a_reason_leads_to_its_section_or_to_the_command_that_prints_it(
    reason: Reason, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert more_on(reason) == f"federation explain {reason}"
    monkeypatch.setenv("FEDERATION_DOCS_URL", ADDRESS)
    assert more_on(reason) == f"{ADDRESS}/refusals.md#{reason}"
    assert anchor(reason) in anchors("refusals.md")


def test_a_reason_of_a_newer_broker_leads_to_the_page_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert more_on("https://evil.example/#x") == ""
    monkeypatch.setenv("FEDERATION_DOCS_URL", ADDRESS)
    assert more_on("https://evil.example/#x") == f"{ADDRESS}/refusals.md"


# One file given in place of another


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (TOKEN, "a token, and not its claims; give it with --token"),
        (f"Bearer {TOKEN}\n", "a token, and not its claims"),
        (f'"{TOKEN}"', "a token, and not its claims"),
        (json.dumps({"value": TOKEN, "count": 1}), "a whole JSON answer with a token in value"),
        (json.dumps({"access_token": TOKEN}), "with a token in access_token"),
        (json.dumps({"event_id": "1", "claims": {"iss": "a"}}), "an audit event"),
        (json.dumps({"alg": "RS256", "kid": "1"}), "the header of a token"),
        ("[]", "a list"),
        ("", "it is empty"),
        ("<html>", "a web page or XML"),
        ('{"iss": "https://', "it ends too soon"),
        ("iss: a", "it is not JSON, at line 1, column 1"),
        ("{'iss': 'a'}", "it is not JSON, at line 1, column 2"),
        ("\xff", "no JSON object"),
    ],
)
def test_what_is_given_as_claims_and_is_none_has_its_own_sentence(given: str, told: str) -> None:
    refused = explain("--documents", EXAMPLE, "--claims", "-", given=given)
    assert refused.exit_code == 2
    assert told in " ".join(refused.output.split())
    assert PAYLOAD not in refused.output
    assert "Expecting" not in refused.output


def test_claims_with_a_byte_order_mark_are_read(tmp_path: Path) -> None:
    file = tmp_path / "claims.json"
    file.write_text(json.dumps({"iss": "https://ci.example"}), "utf-8-sig")
    assert explain("--documents", EXAMPLE, "--claims", str(file)).exit_code == 1


def test_claims_that_are_given_as_a_token_are_told() -> None:
    refused = explain("--documents", EXAMPLE, "--token", "-", given='{"iss": "https://ci.example"}')
    assert refused.exit_code == 2
    assert "give it with --claims" in " ".join(refused.output.split())


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (f"Bearer {TOKEN}", "begins with Bearer"),
        (json.dumps({"value": TOKEN}), "with a token in value"),
        ("ghs_16C7e42F292c6912E7710c838347Ae178B4a", "an API token"),
        ("<html>", "HTML or XML"),
    ],
)
def test_role_from_token_says_what_it_was_given(given: str, told: str) -> None:
    refused = CliRunner().invoke(main, ["role", "from-token", "-"], input=given)
    assert refused.exit_code == 2
    assert told in " ".join(refused.output.split())


# Check


def test_check_says_how_to_learn_more(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("kind: Role\n", "utf-8")
    lines = CliRunner().invoke(main, ["check", str(tmp_path)]).output.splitlines()
    assert lines[-2] == "For what D004 means, run: federation explain D004"


def test_sarif_has_the_address_of_the_page_where_there_is_one(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("kind: Role\n", "utf-8")
    words = ["check", str(tmp_path), "--format", "sarif"]
    for environ, address in (
        ({"FEDERATION_DOCS_URL": ADDRESS}, f"{ADDRESS}/documents.md#codes"),
        ({"FEDERATION_DOCS_URL": ""}, None),
    ):
        report = json.loads(CliRunner().invoke(main, words, env=environ).output)
        (rule,) = report["runs"][0]["tool"]["driver"]["rules"]
        assert rule.get("helpUri") == address
