"""faas-cli's configuration file: its place, the entries that are kept, and those that are replaced."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from federation.client import ClientError
from federation.client.faas_cli import config_path, gateway_name, save_token

GATEWAY = "https://gateway.example.com"


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, "home/.openfaas/config.yml"),
        ({"CI": "true"}, "here/.openfaas/config.yml"),
        ({"CI": "1"}, "here/.openfaas/config.yml"),
        ({"CI": "yes"}, "home/.openfaas/config.yml"),
        ({"OPENFAAS_CONFIG": "told", "CI": "true"}, "told/config.yml"),
    ],
    ids=["at-home", "ci-true", "ci-1", "another-ci", "as-told"],
)
def test_the_config_lies_where_faas_cli_looks(environ: dict[str, str], expected: str) -> None:
    assert config_path(environ, Path("here"), Path("home")) == Path(expected)


@pytest.mark.parametrize(
    "url", ["https://Gateway.Example.com", "https://gateway.example.com/", GATEWAY]
)
def test_the_gateway_is_written_as_faas_cli_asks_for_it(url: str, tmp_path: Path) -> None:
    save_token(tmp_path / "config.yml", url, "t")
    entry = yaml.safe_load((tmp_path / "config.yml").read_text())["auths"][0]
    assert entry == {"gateway": GATEWAY, "auth": "oauth2", "token": "t"}


def test_other_entries_and_settings_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "config.yml"
    other = {"gateway": "https://other.example.com", "auth": "basic", "token": "b", "options": []}
    path.write_text(yaml.safe_dump({"auths": [other], "future": {"a": 1}}))
    save_token(path, GATEWAY, "t")
    saved = yaml.safe_load(path.read_text())
    assert saved["auths"][0] == other
    assert saved["future"] == {"a": 1}


def test_a_password_for_the_same_gateway_is_replaced_and_reported(tmp_path: Path) -> None:
    path = tmp_path / "config.yml"
    stale = {"gateway": GATEWAY + "/", "auth": "basic", "token": "dXNlcjpwYXNz"}
    path.write_text(yaml.safe_dump({"auths": [stale, {**stale, "auth": "oauth2"}]}))
    assert save_token(path, GATEWAY, "t") == ["basic", "oauth2"]
    assert "dXNlcjpwYXNz" not in path.read_text()


def test_the_file_and_its_new_folder_are_their_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / ".openfaas" / "config.yml"
    save_token(path, GATEWAY, "t")
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_a_file_that_others_could_read_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "config.yml"
    path.write_text("auths: []\n")
    path.chmod(0o644)
    save_token(path, GATEWAY, "t")
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "content",
    ["[1]", "auths: nonsense", "auths: [1]", "{", "!!python/object:os.system {}"],
)
def test_a_foreign_file_is_left_alone(content: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yml"
    path.write_text(content)
    with pytest.raises(ClientError, match="not a configuration of faas-cli"):
        save_token(path, GATEWAY, "t")
    assert path.read_text() == content


def test_names_compare_without_case_and_slash() -> None:
    assert gateway_name("HTTPS://G.example.com/") == "https://g.example.com"
