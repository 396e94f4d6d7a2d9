"""
The docs agree with the code, as far as a program can tell.

Every name that the code gives to users is in `docs/`. Snippets are parsed or run, and the output
that the docs show is compared. Every link leads somewhere.
"""

from __future__ import annotations

import ast
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import pairwise, takewhile
from pathlib import Path
from typing import NamedTuple

import click
import pytest
import yaml
from click.testing import CliRunner

from federation.cli import main
from federation.config import Settings, flag, variable
from federation.documents.assemble import assemble
from federation.documents.codes import Code
from federation.documents.model import ACTION_SETS
from federation.documents.parse import parse
from federation.documents.rules.lint import CODES
from federation.errors import Reason, Severity
from federation.policy.conditions import ALIASES, Operator

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *(ROOT / "examples").glob("*.md")])
SHOWS_WHAT_IS_REFUSED = {"lint.md", "documents.md"}
WHOLE_SETS = ["README.md", "docs/quickstart.md"]


def label(value: object) -> str:
    return str(value.relative_to(ROOT)) if isinstance(value, Path) else str(value)


@cache
def page(path: str) -> str:
    return (ROOT / path).read_text("utf-8")


@cache
def all_docs() -> str:
    return "\n".join(path.read_text("utf-8") for path in DOCS.rglob("*.md"))


class Block(NamedTuple):
    """A fenced block and the prose between the block before and this one."""

    language: str
    text: str
    before: str = ""


def blocks(markdown: str) -> list[Block]:
    parts = re.split(r"^```(\w*)\n(.*?)^```$", markdown, flags=re.DOTALL | re.MULTILINE)
    return [Block(parts[n + 1], parts[n + 2], parts[n]) for n in range(0, len(parts) - 1, 3)]


def section(markdown: str, title: str) -> str:
    """The text under the heading *title*, empty if there is none."""
    found = re.search(
        rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", markdown, re.DOTALL | re.MULTILINE
    )
    return found[1] if found else ""


# Every name is in the docs.


@pytest.mark.parametrize("field", Settings.model_fields)
def test_every_setting_has_a_row_with_its_option_and_its_variable(field: str) -> None:
    assert f"\n| `{flag(field)}` | `{variable(field)}` | " in page("docs/deploy.md")


@pytest.mark.parametrize("action", ACTION_SETS)
def test_every_action_is_in_the_docs(action: str) -> None:
    assert f"`{action}`" in page("docs/permissions.md")


@pytest.mark.parametrize(
    "operator", [*(o for o in Operator if o is not Operator.PRINCIPAL), *ALIASES]
)
def test_every_operator_is_in_the_docs(operator: str) -> None:
    assert f"`{operator}`" in all_docs()


@pytest.mark.parametrize("code", sorted({*CODES, *(code.value for code in Code)}))
def test_every_code_of_a_problem_is_in_the_docs(code: str) -> None:
    assert re.search(rf"\b{code}\b", all_docs())


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_has_a_section_with_its_words_its_status_and_what_to_do(
    reason: Reason,
) -> None:
    told = section(page("docs/refusals.md"), reason)
    opening = "No policies found for subject:" if reason is Reason.NO_ROLE_ADMITS else None
    assert f"> {opening or reason.sentence}" in told
    assert f"HTTP {_status(reason)}" in told
    assert "**Do:** " in told


def _status(reason: Reason) -> int:
    if reason is Reason.SERVER_ERROR:
        return 500
    if reason.startswith("too_many_"):
        return 429
    return 503 if reason.temporary else 400


def test_no_reason_is_described_that_does_not_exist() -> None:
    titles = re.findall(r"^## (.*)$", page("docs/refusals.md"), re.MULTILINE)
    assert titles == [reason.value for reason in Reason]


def log_messages() -> set[str]:
    """Each literal message that a log of `federation/` gets as a warning or an error."""
    return {
        call.args[0].value
        for path in (ROOT / "federation").rglob("*.py")
        for call in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(call, ast.Call)
        and _warns(call.func)
        and call.args
        and isinstance(call.args[0], ast.Constant)
        and isinstance(call.args[0].value, str)
    }


def _warns(function: ast.expr) -> bool:
    """`….warning`, `….error`, or `log`, a variable that is one of them."""
    if isinstance(function, ast.Name):
        return function.id == "log"
    levels = {"warning", "error", "exception", "critical"}
    return isinstance(function, ast.Attribute) and function.attr in levels


@pytest.mark.parametrize("message", sorted(log_messages()))
def test_every_warning_and_error_of_the_log_is_in_the_docs(message: str) -> None:
    pages = (
        "docs/monitoring.md",
        "docs/troubleshooting.md",
        "docs/kubernetes.md",
        "docs/dashboard.md",
    )
    assert any(message in page(path) for path in pages)


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command by its words, those of groups included."""
    with click.Context(main) as context:
        for name in main.list_commands(context):
            yield from _with_parts(name, main.get_command(context, name))


def _with_parts(name: str, command: click.Command | None) -> Iterator[tuple[str, click.Command]]:
    assert command is not None
    yield name, command
    if isinstance(command, click.Group):
        for part, inner in command.commands.items():
            yield from _with_parts(f"{name} {part}", inner)


COMMANDS = dict(commands())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_section_with_each_of_its_options(name: str) -> None:
    told = section(page("docs/cli.md"), name.partition(" ")[0])
    assert f"federation {name}" in told
    for parameter in COMMANDS[name].params:
        if isinstance(parameter, click.Option):
            assert f"`{parameter.opts[0]}`" in told


def test_commands_stand_in_the_order_of_the_help() -> None:
    told, order = page("docs/cli.md"), main.list_commands(click.Context(main))
    assert re.findall(r"^\| \[([a-z-]+)\]\(#\1\)", told, re.MULTILINE) == order
    assert re.findall(r"^## (.+)$", told, re.MULTILINE) == order


# Snippets work.


@pytest.mark.parametrize("path", PAGES, ids=label)
def test_yaml_and_json_in_the_docs_can_be_read(path: Path) -> None:
    for block in blocks(path.read_text("utf-8")):
        if block.language == "yaml":
            list(yaml.safe_load_all(block.text))
        if block.language == "json":
            json.loads(block.text)


@pytest.mark.parametrize(
    "path", [path for path in PAGES if path.name not in SHOWS_WHAT_IS_REFUSED], ids=label
)
def test_documents_in_the_docs_have_no_error_of_shape(path: Path) -> None:
    for text in documents(path.read_text("utf-8")):
        problems = parse(path.name, text.encode()).problems
        assert not [str(p) for p in problems if p.severity is Severity.ERROR]


@pytest.mark.parametrize("path", WHOLE_SETS)
def test_whole_sets_in_the_docs_would_be_adopted_without_a_warning(path: str) -> None:
    (text,) = (each for each in documents(page(path)) if "kind: RuleTest" not in each)
    assembled = assemble([parse(path, text.encode())])
    assert not [str(problem) for problem in assembled.problems]
    assert assembled.catalog is not None


def test_the_rule_test_of_the_readme_passes_by_the_documents_of_the_readme(
    tmp_path: Path,
) -> None:
    (tmp_path / "all.yaml").write_text("---\n".join(documents(page("README.md"))), "utf-8")
    done = CliRunner().invoke(main, ["test", str(tmp_path)])
    assert (done.exit_code, done.output) == (0, "1 rule test: 1 passed\n")


def documents(markdown: str) -> list[str]:
    return [b.text for b in blocks(markdown) if b.language == "yaml" and "apiVersion:" in b.text]


def shell_lines(markdown: str) -> Iterator[str]:
    """Every line of shell, in blocks of shell and in the jobs of CI systems."""
    for block in blocks(markdown):
        if block.language in {"sh", "bash"}:
            yield from re.sub(r"\\\n", " ", block.text).splitlines()
        elif block.language == "yaml" and "apiVersion:" not in block.text:
            for text in _strings(yaml.safe_load(block.text)):
                yield from text.splitlines()


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _strings(inner)


def words_of_federation(line: str) -> list[str] | None:
    """The words after `federation` where *line* calls it, also within `NAME=$(…)`, up to a pipe."""
    within = re.fullmatch(r"\w+=\$\((.*)\)", line.strip())
    try:
        first, *rest = shlex.split(within[1] if within else line, comments=True)
    except ValueError:
        return None
    words = list(takewhile(lambda word: word[0:1] not in {">", "<", "|"}, rest))
    return words if first.rpartition("/")[2] == "federation" else None


@pytest.mark.parametrize("path", PAGES, ids=label)
def test_every_call_of_the_command_in_the_docs_is_one_it_understands(path: Path) -> None:
    for line in shell_lines(path.read_text("utf-8")):
        if words := words_of_federation(line):
            assert_understood(words)


def assert_understood(words: list[str]) -> None:
    name, *rest = words
    while name in COMMANDS and isinstance(COMMANDS[name], click.Group):
        name, rest = f"{name} {rest[0]}", rest[1:]
    command = COMMANDS[name]
    given, left, _ = command.make_parser(click.Context(command)).parse_args(rest)
    needed = {p.name for p in command.params if isinstance(p, click.Option) and p.required}
    assert needed <= given.keys(), words
    takes_arguments = any(isinstance(p, click.Argument) for p in command.params)
    assert takes_arguments or not left, words
    ours = [word for word in rest if word.startswith(("examples/", "tests/"))]
    assert all((ROOT / word).exists() for word in ours), words


def shown_outputs() -> Iterator[tuple[str, str]]:
    for path in sorted(DOCS.glob("*.md")):
        found = blocks(path.read_text("utf-8"))
        for call, told in pairwise(found):
            if told.language == "text" and told.before.strip() in {"prints", "ends with"}:
                yield " ".join(call.text.replace("\\\n", " ").split()), told.text


@pytest.mark.parametrize(("call", "told"), list(shown_outputs()))
def test_what_the_docs_show_is_what_is_printed(
    call: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    words = words_of_federation(call)
    assert words
    printed = CliRunner().invoke(main, words, catch_exceptions=False).output
    assert _lines(printed)[-len(_lines(told)) :] == _lines(told)


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().splitlines()]


@pytest.mark.e2e
def test_the_demo_prints_what_the_readme_shows() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "federation", "demo"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    printed = " ".join(done.stdout.split())
    (shown,) = [b.text for b in blocks(page("README.md")) if b.text.startswith("==>")]
    for part in re.split(r"\n\n|^ *\.\.\.$|\n", _unwrapped(shown), flags=re.MULTILINE):
        assert " ".join(part.split()) in printed


def _unwrapped(shown: str) -> str:
    """Lines that the README broke are whole again."""
    return re.sub(r"\n    (?=repo:|match:|\(dev)", " ", shown)


def targets() -> set[str]:
    return set(re.findall(r"^([a-z0-9-]+):", page("Makefile"), re.MULTILINE))


@pytest.mark.parametrize("path", PAGES, ids=label)
def test_every_make_target_in_the_docs_exists(path: Path) -> None:
    text = path.read_text("utf-8")
    named = set(re.findall(r"`make ([a-z0-9-]+)`", text))
    named |= set(re.findall(r"^make ([a-z0-9-]+)", "\n".join(shell_lines(text)), re.MULTILINE))
    assert named <= targets()


# Links lead somewhere, and every decision is linked.


@pytest.mark.parametrize("path", PAGES, ids=label)
def test_every_link_within_the_project_leads_somewhere(path: Path) -> None:
    text = path.read_text("utf-8")
    broken = [link for link in links(text) if not leads_somewhere(path, link)]
    assert not broken


@pytest.mark.parametrize("path", sorted((DOCS / "decisions").glob("*.md")), ids=label)
def test_every_decision_is_in_the_list_of_the_architecture_page(path: Path) -> None:
    listed = page("docs/architecture.md").partition("\n## Decisions\n")[2]
    assert f"decisions/{path.name}" in links(listed)


def links(markdown: str) -> Iterable[str]:
    prose = re.sub(r"^```.*?^```$|`[^`\n]*`", "", markdown, flags=re.DOTALL | re.MULTILINE)
    found = re.findall(r"\]\(([^)\s]+)\)", prose)
    return [link for link in found if not re.match(r"[a-z]+:", link)]


def leads_somewhere(path: Path, link: str) -> bool:
    file, _, anchor = link.partition("#")
    target = (path.parent / file).resolve() if file else path
    if not target.exists() or not target.is_relative_to(ROOT):
        return False
    return not anchor or anchor in anchors(target.read_text("utf-8"))


def anchors(markdown: str) -> set[str]:
    """The anchors of all headings, as forges make them."""
    prose = re.sub(r"^```.*?^```$", "", markdown, flags=re.DOTALL | re.MULTILINE)
    titles = re.findall(r"^#{1,6} (.*)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
