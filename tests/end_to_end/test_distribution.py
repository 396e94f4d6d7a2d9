"""
Build the sdist and the wheel as `make dist` does, and install both where no checkout is.

The demo then runs from the wheel as a new user runs it: with one line, in an empty folder.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from email.parser import HeaderParser
from pathlib import Path

import pytest

from federation import __version__
from federation.distribution import DISTRIBUTION
from tests.harness.ci_runner import ROOT

pytestmark = pytest.mark.e2e

PAGES: dict[str, str] = (
    tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["hatch"]["build"]
    ["targets"]["wheel"].get("force-include", {})
)  # fmt: skip
"""The pages of the docs and the folder of sample tokens that the wheel takes along, and where."""
_STEM = f"{DISTRIBUTION.replace('-', '_')}-{__version__}"


def tracked() -> list[str]:
    """Every file of the checkout that git knows or would add."""
    listed = _run(["git", "ls-files", "--cached", "--others", "--exclude-standard"], ROOT)
    return [name for name in listed.splitlines() if (ROOT / name).is_file()]


def clean(**more: str) -> Mapping[str, str]:
    """The environment without what would let the checkout be found."""
    hidden = ("PYTHON", "FEDERATION_", "VIRTUAL_ENV", "MAKE", "MFLAGS")
    return {name: v for name, v in os.environ.items() if not name.startswith(hidden)} | more


def _run(command: Sequence[str], place: Path, **more: str) -> str:
    ran = subprocess.run(  # noqa: S603  our own words
        command,
        cwd=place,
        env=clean(**more),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=180,
        check=False,
    )
    assert ran.returncode == 0, f"{' '.join(command)}: {ran.stdout}"
    return ran.stdout


def _copy(place: Path) -> Path:
    for name in tracked():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, place / name)
    return place


def _build(checkout: Path, tools: Path) -> Path:
    installed = tools / ".installed"
    keep = ["--old-file", str(installed)] if installed.exists() else []
    _run(["make", "dist", f"BUILD={tools}", f"PYTHON={sys.executable}", *keep], checkout)
    return checkout / "dist"


@pytest.fixture(name="folder", scope="module")
def _folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("distribution")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(name="built", scope="module")
def _built(folder: Path) -> Path:
    """The folder with the sdist and the wheel of this checkout."""
    return _build(_copy(folder / "checkout"), folder / "tools")


@pytest.fixture(name="wheel", scope="module")
def _wheel(built: Path) -> Path:
    return built / f"{_STEM}-py3-none-any.whl"


@pytest.fixture(name="sdist", scope="module")
def _sdist(built: Path) -> Path:
    return built / f"{_STEM}.tar.gz"


def test_nothing_but_the_two_files_is_built(built: Path, wheel: Path, sdist: Path) -> None:
    assert sorted(built.iterdir()) == sorted([wheel, sdist])


def test_the_same_files_give_the_same_bytes(folder: Path, built: Path) -> None:
    again = _build(_copy(folder / "elsewhere" / "again"), folder / "tools")

    def digests(place: Path) -> dict[str, str]:
        return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in place.iterdir()}

    assert digests(again) == digests(built)


def test_the_wheel_has_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    package = {name for name in tracked() if name.startswith("federation/")}
    taken = {
        name.replace(source, place, 1)
        for source, place in PAGES.items()
        for name in tracked()
        if name == source or name.startswith(f"{source}/")
    }
    assert len(taken) > len(PAGES)
    assert package | taken <= names
    assert {name.split("/")[0] for name in names} == {"federation", f"{_STEM}.dist-info"}
    assert not [name for name in names if name.endswith(".pyc")]


def test_the_sdist_has_what_is_in_the_checkout(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert names - {"PKG-INFO"} <= set(tracked())
    assert {"Makefile", "LICENSE", "docs/install.md", "tests/conftest.py"} <= names


def test_the_metadata_has_the_name_the_version_and_the_readme(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        told = archive.read(f"{_STEM}.dist-info/METADATA").decode("utf-8")
    parsed = HeaderParser().parsestr(told)
    assert (parsed["Name"], parsed["Version"]) == (DISTRIBUTION, __version__)
    assert parsed["License-Expression"] == "MIT"
    assert "# federation" in told


def test_uvx_runs_the_demo_from_the_wheel(wheel: Path, tmp_path: Path) -> None:
    """The line of README.md, with the file where the name of the distribution stands."""
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert uv, "uv is missing: run `pip install --editable '.[dist]'`"
    printed = _run(
        [
            *(uv, "tool", "run", "--isolated", "--python", sys.executable),
            *("--from", f"{wheel}[server]", "federation", "demo"),
        ],
        tmp_path,
        UV_CACHE_DIR=str(tmp_path / "cache"),
        UV_SYSTEM_CERTS="1",
        UV_NO_PROGRESS="1",
    )
    assert "All as it should be." in printed
    shutil.rmtree(tmp_path / "cache")
    assert list(tmp_path.iterdir()) == []


def test_pip_installs_the_sdist_and_the_plain_commands_work(sdist: Path, tmp_path: Path) -> None:
    _run([sys.executable, "-m", "venv", "clean"], tmp_path)
    programs = tmp_path / "clean" / "bin"
    _run([str(programs / "python"), "-m", "pip", "install", "--quiet", str(sdist)], tmp_path)
    federation = str(programs / "federation")
    assert _run([federation, "--version"], tmp_path) == f"federation, version {__version__}\n"
    assert "Usage: fed " in _run([str(programs / "fed"), "--help"], tmp_path)
    found = [str(programs / "python"), "-c", "import federation; print(federation.__path__[0])"]
    package = Path(_run(found, tmp_path).strip())
    assert package.is_relative_to(tmp_path / "clean")
    assert "no problems" in _run([federation, "check", str(package / "demo")], tmp_path)
    if PAGES:
        assert "T002" in _run([federation, "explain", "T002"], tmp_path)
    examples = shutil.copytree(ROOT / "examples", tmp_path / "examples")
    assert " passed\n" in _run([federation, "test", str(examples)], tmp_path)
    ran = subprocess.run(  # noqa: S603  our own program
        [federation, "demo"], cwd=tmp_path, env=clean(), capture_output=True, text=True, check=False
    )
    assert ran.returncode == 1
    assert f"Run: pip install '{DISTRIBUTION}[server]'" in ran.stderr
