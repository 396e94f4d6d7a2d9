"""The requirements of a release: least rights, pinned actions, and one version in every file."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from federation import __version__

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
RELEASE = ROOT / ".github" / "workflows" / "release.yml"
JOBS: dict[str, dict[str, Any]] = yaml.safe_load(RELEASE.read_text("utf-8"))["jobs"]


def steps(job: str, key: str) -> list[str]:
    """What each step of *job* has for *key*."""
    return [step[key] for step in JOBS[job]["steps"] if key in step]


def everything(job: str) -> str:
    return "\n".join([*steps(job, "run"), *steps(job, "uses")])


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_each_action_is_pinned_by_its_commit_and_names_its_version(workflow: Path) -> None:
    used = re.findall(r"^\s*(?:- )?uses: (.*)$", workflow.read_text("utf-8"), re.MULTILINE)
    assert used
    for line in used:
        assert line.startswith("./") or re.fullmatch(r"\S+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line)


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_no_job_has_rights_that_it_does_not_name(workflow: Path) -> None:
    parsed = yaml.safe_load(workflow.read_text("utf-8"))
    assert parsed["permissions"] == {}
    assert all("permissions" in job for job in parsed["jobs"].values())


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_no_test_is_skipped_for_want_of_a_program(workflow: Path) -> None:
    """`make test` skips what a missing program would run, and nobody would see it."""
    for job in yaml.safe_load(workflow.read_text("utf-8"))["jobs"].values():
        run = "\n".join(step.get("run", "") for step in job["steps"])
        if re.search(r"make (test|coverage|newest)\b", run):
            assert re.search(r"apt-get install .*redis-server busybox zsh fish\b", run)


def test_the_newest_version_of_each_library_is_tried() -> None:
    """`make newest` upgrades what its list names, and no more."""
    ran = subprocess.run(  # noqa: S603  our own program
        [sys.executable, str(ROOT / ".ci" / "newest"), str(ROOT / "pyproject.toml")],
        capture_output=True,
        text=True,
        check=True,
    )
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"][
        "optional-dependencies"
    ]
    of_the_program = extras["server"] + extras["redis"] + extras["dashboard"]
    wanted = {re.split(r"[\[<>=;]", each)[0] for each in of_the_program} - {"federation-broker"}
    assert wanted <= {re.split(r"[\[<>=;]", line)[0] for line in ran.stdout.splitlines()}
    assert "<" not in re.sub(r";.*", "", ran.stdout)


@pytest.mark.parametrize("job", JOBS)
def test_whoever_may_publish_waits_for_an_approval_and_uses_no_secret(job: str) -> None:
    may_write = "write" in JOBS[job]["permissions"].values()
    assert may_write == ("environment" in JOBS[job])
    assert "secrets." not in str(JOBS[job])


def test_only_a_tag_of_a_version_starts_a_release() -> None:
    # YAML 1.1 reads the key `on` as true.
    started_by = yaml.safe_load(RELEASE.read_text("utf-8"))[True]
    assert started_by == {"push": {"tags": ["v[0-9]+.[0-9]+.[0-9]+*"]}}


@pytest.mark.parametrize("job", [job for job in JOBS if job != "test"])
def test_no_library_of_the_tests_runs_where_something_is_built_or_published(job: str) -> None:
    run = "\n".join(steps(job, "run"))
    assert set(re.findall(r"make \w+", run)) <= {"make dist"}
    assert not re.search(r"pip install (?!--quiet \"\$\(echo dist/)", run)


@pytest.mark.parametrize("job", [job for job in JOBS if "environment" in JOBS[job]])
def test_nothing_is_published_before_the_tests_and_the_demo_pass(job: str) -> None:
    before: set[str] = set()
    left = [job]
    while left:
        needs = JOBS[left.pop()].get("needs", [])
        new = {needs} if isinstance(needs, str) else set(needs)
        left += new - before
        before |= new
    assert {"test", "build", "demo"} <= before


def test_the_demo_of_the_wheel_has_no_checkout() -> None:
    assert "checkout" not in everything("demo")
    assert "federation demo" in everything("demo")


def test_the_image_is_for_two_platforms_and_is_signed_with_its_parts() -> None:
    platforms = [entry["platform"] for entry in JOBS["platform"]["strategy"]["matrix"]["include"]]
    assert platforms == ["amd64", "arm64"]
    (build,) = (s for s in JOBS["platform"]["steps"] if "build-push" in s.get("uses", ""))
    assert build["with"]["sbom"] is True
    assert build["with"]["provenance"] == "mode=max"
    assert "cosign sign --yes --recursive" in everything("image")
    assert everything("image").count("actions/attest@") == 2


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text("utf-8")


def test_the_page_about_checking_names_the_workflow_that_signs() -> None:
    told = page("verifying.md")
    assert ".github/workflows/release.yml@refs/tags/v0.1.0" in told
    signers = re.findall(r"--signer-workflow (\S+)", told)
    assert set(signers) == {"your-org/federation/.github/workflows/release.yml"}


@pytest.mark.parametrize(
    ("page_name", "told", "job", "made"),
    [
        ("verifying.md", "image.txt", "image", ">image.txt"),
        ("verifying.md", "SHA256SUMS", "files", "SHA256SUMS"),
        ("verifying.md", "ghcr.io/your-org/charts/federation", "chart", "/charts"),
        ("install.md", "ghcr.io/your-org/federation:", "image", "ghcr.io/${GITHUB_REPOSITORY,,}"),
        ("install.md", "federation-crds.yaml", "build", "release/federation-crds.yaml"),
    ],
)
def test_what_the_pages_tell_to_fetch_is_published(
    page_name: str, told: str, job: str, made: str
) -> None:
    assert told in page(page_name)
    assert made in everything(job)


def said(tag: str, root: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """What .ci/release-version says to *tag*."""
    return subprocess.run(  # noqa: S603  our own program
        [sys.executable, str(root / ".ci" / "release-version"), tag],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(name="released")
def _released(tmp_path: Path) -> Path:
    """A copy of the files that name the version, with a section of the changelog for it."""
    for name in (
        ".ci/release-version",
        "federation/__init__.py",
        "deploy/helm/federation/Chart.yaml",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    changes = f"# Changelog\n\n## [Unreleased]\n\n## [{__version__}] - 2026-12-01\n\n## [0.0.9]\n"
    (tmp_path / "CHANGELOG.md").write_text(changes)
    return tmp_path


def test_the_tag_of_this_version_is_accepted(released: Path) -> None:
    ran = said(f"v{__version__}", released)
    assert (ran.returncode, ran.stdout) == (0, f"version={__version__}\n")


@pytest.mark.parametrize("tag", ["v9.9.9", __version__, f"v{__version__}rc1"])
def test_another_tag_is_refused(tag: str, released: Path) -> None:
    ran = said(tag, released)
    assert ran.returncode == 1
    assert not ran.stdout
    assert f"The tag {tag} is not that of this commit" in ran.stderr


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("federation/__init__.py", "federation/__init__.py says 9.9.9"),
        ("deploy/helm/federation/Chart.yaml", "appVersion in Chart.yaml says 9.9.9"),
        ("CHANGELOG.md", "the newest section of CHANGELOG.md says 9.9.9"),
    ],
)
def test_a_file_with_another_version_is_named(path: str, told: str, released: Path) -> None:
    file = released / path
    file.write_text(file.read_text("utf-8").replace(__version__, "9.9.9"))
    ran = said(f"v{__version__}", released)
    assert ran.returncode == 1
    assert told in ran.stderr
