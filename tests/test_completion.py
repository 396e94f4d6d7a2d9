"""Words are completed in three shells, and a slip is answered with the nearest word."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner, Result

from federation.cli import main

ROOT = Path(__file__).parents[1]
CHECK_FORMATS = ["text", "json", "github", "sarif"]


def run(*arguments: str, **environ: str | None) -> Result:
    return CliRunner().invoke(main, arguments, env={"FEDERATION_DOCUMENTS": None} | environ)


def completed(*words: str) -> list[str]:
    """The completions of the last of *words*."""
    completion = ShellComplete(main, {}, "federation", "_FEDERATION_COMPLETE")
    return [item.value for item in completion.get_completions(list(words[:-1]), words[-1])]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["ch"], ["check"]),
        (["who"], ["who-can", "whoami"]),
        (["audit", "t"], ["tail"]),
        (["init", ""], ["github", "gitlab"]),
        (["check", "--f"], ["--format"]),
        (["check", "--format", ""], CHECK_FORMATS),
        (["audit", "tail", "--re"], ["--request-id", "--reason"]),
        (["--v"], ["--version"]),
        (["completion", ""], ["bash", "zsh", "fish"]),
    ],
    ids=str,
)
def test_commands_options_and_values_are_completed(words: list[str], expected: list[str]) -> None:
    assert [word for word in expected if word not in completed(*words)] == []


def test_every_command_is_offered_without_importing_one() -> None:
    code = (
        "import sys; from federation.cli import main;"
        "from click.shell_completion import ShellComplete as S;"
        "print(len(S(main, {}, 'federation', 'X').get_completions([], '')),"
        "*sorted(m for m in sys.modules if m.startswith('federation.cli.')))"
    )
    done = subprocess.run(  # noqa: S603  our own words
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    count, *imported = done.stdout.split()
    assert int(count) >= 18
    assert imported == []


def test_a_command_whose_library_is_missing_completes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing(_name: str) -> object:
        raise ModuleNotFoundError("no", name="uvicorn")

    monkeypatch.setattr("federation.cli.importlib.import_module", missing)
    assert completed("serve", "--") == completed("nonsense", "--")


@pytest.mark.parametrize(
    ("shell", "words"),
    [
        ("bash", "complete -o nosort -F _federation_completion federation"),
        ("zsh", "#compdef federation"),
        ("fish", "complete --no-files --command federation"),
    ],
)
def test_the_script_of_a_shell_is_printed_wherever_it_is_called(shell: str, words: str) -> None:
    result = run("completion", shell, PATH="/nowhere")
    assert result.exit_code == 0
    assert words in result.stdout
    assert result.stderr == ""


SESSIONS = {
    "bash": """
        eval "$(federation completion bash)"
        COMP_WORDS=(federation check --format "") COMP_CWORD=3
        _federation_completion federation check --format
        printf '%s\\n' "${COMPREPLY[@]}"
    """,
    "zsh": """
        compdef() { :; }
        compadd() { print -l -- "${(@P)@[-1]}"; }
        eval "$(federation completion zsh)"
        words=(federation check --format "") CURRENT=4
        _federation_completion
    """,
    "fish": """
        federation completion fish | source
        complete --do-complete 'federation check --format '
    """,
}


@pytest.mark.parametrize("shell", SESSIONS)
def test_a_real_shell_completes(shell: str, tmp_path: Path) -> None:
    found = shutil.which(shell)
    if found is None:
        pytest.skip(f"this machine has no {shell}")
    program = tmp_path / "federation"
    # As the installed program does: the name of the program decides the name of the variable.
    program.write_text(
        f"#!{sys.executable}\nfrom federation.cli import main\nmain(prog_name='federation')\n"
    )
    program.chmod(0o755)
    environ = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "HOME": str(tmp_path),
    }
    done = subprocess.run(  # noqa: S603  our own words
        [found, "-c", SESSIONS[shell]],
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert sorted(done.stdout.split()) == sorted(CHECK_FORMATS), done.stderr
    assert "rror" not in done.stderr


# A slip


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["chek"], "Did you mean 'federation check'?"),
        (["Explain"], "Did you mean 'federation explain'?"),
        (["who_can"], "Did you mean 'federation who-can'?"),
        (["validate"], "Did you mean 'federation check'?"),
        (["help"], "Did you mean 'federation --help'?"),
        (["version"], "Did you mean 'federation --version'?"),
        (["start"], "Did you mean 'federation serve'?"),
        (["xyzzy"], "'federation --help' lists them all."),
        (["--verson"], "Did you mean '--version'?"),
        (["check", "--strct"], "Did you mean '--strict'?"),
        (["audit", "tial"], "Did you mean 'tail'?"),
        (["init", "githup"], "Did you mean 'github'?"),
    ],
    ids=str,
)
def test_a_slip_is_wrong_use_and_names_what_was_meant(words: list[str], meant: str) -> None:
    result = run(*words)
    assert result.exit_code == 2
    assert meant in " ".join(result.stderr.split())


def test_a_word_cannot_command_the_terminal() -> None:
    result = run("x\x1b]0;owned\x07" + "y" * 10_000)
    assert result.exit_code == 2
    assert "\x1b" not in result.output
    assert len(result.output) < 500


# check without a path


def test_check_without_a_path_reads_the_setting(tmp_path: Path) -> None:
    examples = [ROOT / "examples" / "kubernetes.yaml", ROOT / "examples" / "terraform.yaml"]
    assert run("check", FEDERATION_DOCUMENTS=str(examples[0])).output == (
        "3 documents: no problems\n"
    )
    assert run("check").exit_code == 2
    assert "give a PATH or set FEDERATION_DOCUMENTS" in run("check").stderr
    missing = run("check", FEDERATION_DOCUMENTS=f"{examples[0]}{os.pathsep}{tmp_path / 'gone'}")
    assert missing.exit_code == 2
    assert "gone of FEDERATION_DOCUMENTS does not exist" in " ".join(missing.stderr.split())
