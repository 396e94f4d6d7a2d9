"""The image installs each package by version and hash, within the ranges of pyproject.toml."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
NAME = PYPROJECT["project"]["name"]
LISTS = {path.name: path.read_text("utf-8") for path in (ROOT / "deploy" / "image").glob("*.txt")}
_STALE = "run `make lock` and commit deploy/image"


class Pin(NamedTuple):
    """One package of a list: its exact version, its hashes and who asked for it."""

    requirement: Requirement
    hashes: list[str]
    wanted_by: list[str]

    @property
    def version(self) -> str:
        (specifier,) = self.requirement.specifier
        assert specifier.operator == "=="
        return specifier.version


def pins(listed: str) -> dict[str, Pin]:
    """Every package of a list by its name."""
    found = re.split(r"^(?=[a-z0-9])", listed, flags=re.MULTILINE)[1:]
    parsed = [_pin(text) for text in found]
    return {canonicalize_name(pin.requirement.name): pin for pin in parsed}


def _pin(text: str) -> Pin:
    head, *rest = (line.strip().removesuffix("\\").strip() for line in text.splitlines())
    hashes = [line for line in rest if line.startswith("--hash=")]
    comments = [line.removeprefix("#").strip() for line in rest if line.startswith("#")]
    return Pin(Requirement(head), hashes, [c.removeprefix("via").strip() for c in comments])


def wanted(extras: set[str]) -> dict[str, Requirement]:
    """The direct requirements of the distribution with *extras*, by name."""
    project = PYPROJECT["project"]
    lines = list(project["dependencies"])
    for extra in extras:
        lines += project["optional-dependencies"][extra]
    found = [Requirement(line) for line in lines]
    return {canonicalize_name(r.name): r for r in found if canonicalize_name(r.name) != NAME}


IMAGE = pins(LISTS["requirements.txt"])
BUILD = pins(LISTS["build-requirements.txt"])


def test_the_image_has_every_direct_requirement_and_no_other() -> None:
    direct = {
        name
        for name, pin in IMAGE.items()
        if any(by.startswith(f"{NAME} ") for by in pin.wanted_by)
    }
    assert direct == set(wanted({"dashboard", "redis", "server"})), _STALE


@pytest.mark.parametrize(
    ("name", "requirement"), sorted(wanted({"dashboard", "redis", "server"}).items())
)
def test_each_version_is_in_the_range_of_the_project(name: str, requirement: Requirement) -> None:
    assert requirement.specifier.contains(IMAGE[name].version), _STALE
    assert str(IMAGE[name].requirement.marker) == str(requirement.marker), _STALE


def test_the_build_tools_are_those_of_the_project() -> None:
    requirements = [Requirement(line) for line in PYPROJECT["build-system"]["requires"]]
    for requirement in requirements:
        pin = BUILD[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(pin.version), _STALE


@pytest.mark.parametrize("pin", [*IMAGE.values(), *BUILD.values()], ids=str)
def test_each_package_has_hashes(pin: Pin) -> None:
    assert pin.hashes
    assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", line) for line in pin.hashes)


@pytest.mark.parametrize("pin", [*IMAGE.values(), *BUILD.values()], ids=str)
def test_each_package_is_wanted_by_the_project_or_by_another_of_the_list(pin: Pin) -> None:
    names = {NAME, *IMAGE, *BUILD}
    by = {canonicalize_name(line.split()[0]) for line in pin.wanted_by if line}
    assert by <= names
    assert by or pin.requirement.name == "hatchling"


@pytest.mark.parametrize("listed", LISTS.values(), ids=list(LISTS))
def test_a_list_names_no_index_no_address_and_no_option(listed: str) -> None:
    lines = [line.strip() for line in listed.splitlines()]
    assert not [line for line in lines if "://" in line or " @ " in line or line.startswith("-r")]
    assert {line.split("=")[0] for line in lines if line.startswith("-")} == {"--hash"}


@pytest.mark.parametrize("listed", LISTS.values(), ids=list(LISTS))
def test_no_package_is_pinned_in_two_versions(listed: str) -> None:
    assert len(pins(listed)) == len(re.findall(r"^[a-z0-9]", listed, re.MULTILINE))
