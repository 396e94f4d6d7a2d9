"""The command line: what it prints, where, and with which exit code."""

from __future__ import annotations

import json
import socket
import stat
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from federation.cli import main
from federation.client.ambient import SYSTEMS
from tests.harness.broker import DOCUMENTS, HIDDEN, URL, InProcess
from tests.harness.builders import GITHUB, sample

COMMANDS = ("serve", "demo", "check", "explain", "exchange", "keys")


def run(*arguments: str, given: str | bytes | None = None, **environ: str) -> Result:
    """The result of `federation` with *arguments*."""
    unset = {"FEDERATION_URL": None, "FEDERATION_STATE": None,
             "FEDERATION_ID_TOKEN": None, "FEDERATION_DOCUMENTS": None,
             **{mark: None for how in SYSTEMS.values() for mark, _ in how.marks}}  # fmt: skip
    result = CliRunner().invoke(main, arguments, input=given, env={**unset, **environ})
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def documents(tmp_path: Path) -> str:
    place = tmp_path / "documents.yaml"
    place.write_text(DOCUMENTS)
    return str(place)


class TestHelp:
    @pytest.mark.parametrize("flag", ["--help", "-h"])
    def test_it_lists_every_command(self, flag: str) -> None:
        result = run(flag)
        assert result.exit_code == 0
        for command in COMMANDS:
            assert command in result.stdout

    @pytest.mark.parametrize("command", COMMANDS)
    def test_each_command_explains_itself(self, command: str) -> None:
        result = run(command, "--help")
        assert result.exit_code == 0
        assert "Usage:" in result.stdout

    @pytest.mark.parametrize("command", ["generate", "list", "rotate"])
    def test_each_keys_command_explains_itself_and_its_variable(self, command: str) -> None:
        result = run("keys", command, "--help")
        assert result.exit_code == 0
        assert "[FEDERATION_STATE]" in result.stdout

    def test_every_flag_of_serve_is_explained_with_its_variable(self) -> None:
        text = " ".join(run("serve", "--help").stdout.split())
        for name in (
            "issuer-url",
            "documents",
            "state",
            "signing-key",
            "host",
            "port",
            "log-format",
        ):
            assert f"--{name}" in text
            assert "FEDERATION_" + name.upper().replace("-", "_") in text

    def test_the_version_is_printed(self) -> None:
        assert run("--version").stdout.startswith("federation, version ")

    @pytest.mark.parametrize(
        "arguments",
        [["nonsense"], ["serve", "--nonsense"], ["explain"], ["exchange"], ["keys", "nonsense"],
         ["check"]],
    )  # fmt: skip
    def test_wrong_use_is_2(self, arguments: list[str]) -> None:
        assert run(*arguments).exit_code == 2


def explained(
    documents: str, claims: Mapping[str, object], *more: str
) -> tuple[int, dict[str, Any]]:
    """Exit code and JSON of `explain`."""
    result = run(
        "explain", "--documents", documents, "--claims", "-", "--format", "json", *more,
        given=json.dumps(claims),
    )  # fmt: skip
    said: dict[str, Any] = json.loads(result.stdout)
    return result.exit_code, said


def pinned(broker: InProcess, folder: Path) -> str:
    """The documents with the keys of *broker*'s github in them, so that none are fetched."""
    place = folder / "pinned.yaml"
    keys = json.dumps(broker.github.jwks())
    place.write_text(DOCUMENTS.replace("tokenExpiry: 30m", f"tokenExpiry: 30m, jwks: {keys}"))
    return str(place)


class TestExplain:
    def test_the_shape_is_exact(self, documents: str) -> None:
        code, said = explained(
            documents,
            sample("github-push-main"),
            "--access",
            "Function:Create=dev:env",
            "--access",
            "Function:Invoke=dev:vault",
            "--access",
            "Secret:List=dev:*",
        )
        assert code == 1, "one access is not allowed"
        assert set(said) == {"token", "admitted", "roles", "policies", "access"}
        assert said["token"] is None
        assert said["admitted"] is True
        assert said["policies"] == ["deploy", "invoke", "look"]
        assert [role["name"] for role in said["roles"]] == [
            "acme-deployer",
            "group-deployer",
            "octo-deployer",
            "octo-invoker",
            "octo-releaser",
            "people",
        ]
        deployer = said["roles"][2]
        assert deployer == {
            "name": "octo-deployer",
            "admitted": True,
            "conditions": [
                {
                    "operator": "StringEqual",
                    "key": key,
                    "values": [value],
                    "claim": value,
                    "holds": True,
                }
                for key, value in {
                    "jwt:iss": GITHUB,
                    "jwt:repository_owner_id": "13420041",
                    "jwt:repository": "octo-org/octo-repo",
                    "jwt:ref": "refs/heads/main",
                }.items()
            ],
            "refusal": None,
        }
        releaser = said["roles"][4]
        assert (releaser["admitted"], releaser["refusal"]) == (False, "role_not_admitted")
        assert releaser["conditions"][2] == {
            "operator": "StringEqual",
            "key": "jwt:ref",
            "values": [HIDDEN],
            "claim": "refs/heads/main",
            "holds": False,
        }
        assert said["access"] == [
            {
                "action": "Function:Create",
                "resource": "dev:env",
                "allowed": True,
                "policy": "deploy",
                "sid": "deploy",
                "effect": "Allow",
            },
            {
                "action": "Function:Invoke",
                "resource": "dev:vault",
                "allowed": False,
                "policy": "deploy",
                "sid": "never",
                "effect": "Deny",
            },
            {
                "action": "Secret:List",
                "resource": "dev:*",
                "allowed": False,
                "policy": None,
                "sid": None,
                "effect": None,
            },
        ]

    def test_a_principal_shows_as_one(self, documents: str) -> None:
        _, said = explained(documents, sample("keycloak-user"))
        people = said["roles"][-1]
        assert people["conditions"][0]["operator"] == "principal"
        assert people["conditions"][0]["claim"] == sample("keycloak-user")["sub"]

    def test_an_alias_shows_as_its_canonical_operator(self, tmp_path: Path) -> None:
        place = tmp_path / "d.yaml"
        place.write_text(DOCUMENTS.replace("StringEqual:", "StringEquals:"))
        _, said = explained(str(place), sample("github-push-main"))
        assert said["roles"][2]["conditions"][0]["operator"] == "StringEqual"

    def test_an_absent_claim_is_null(self, documents: str) -> None:
        _, said = explained(documents, sample("gitlab-branch-main"))
        assert said["roles"][2]["conditions"][1]["claim"] is None

    @pytest.mark.parametrize(
        ("name", "changes", "admitted", "reason"),
        [
            pytest.param("github-push-main", {}, True, None, id="admitted"),
            pytest.param("github-push-main", {"ref": "x"}, False, None, id="no Role"),
            pytest.param("gitlab-branch-main", {}, True, None, id="gitlab"),
            pytest.param("github-push-main", {"aud": "https://else"}, False, "wrong_audience",
                         id="another audience"),
            pytest.param("github-push-main", {"iss": "https://else"}, False, "untrusted_issuer",
                         id="another issuer"),
            pytest.param("github-push-main", {"iss": None}, False, "missing_claim", id="no iss"),
            pytest.param("github-push-main", {"aud": None}, False, "missing_claim", id="no aud"),
            pytest.param("github-push-main", {"exp": None}, False, "missing_claim", id="no exp"),
            pytest.param("github-push-main", {"iat": None}, False, "missing_claim", id="no iat"),
            pytest.param("github-push-main", {"exp": 5}, True, None, id="expired, but no clock"),
            pytest.param("gitlab-user-login", {}, False, "not_a_ci_token", id="a login token"),
        ],
    )  # fmt: skip
    def test_claims_are_checked_like_a_tokens_but_for_signature_and_clock(
        self,
        documents: str,
        name: str,
        changes: dict[str, object],
        admitted: bool,
        reason: str | None,
    ) -> None:
        claims = {k: v for k, v in {**sample(name), **changes}.items() if v is not None}
        code, said = explained(documents, claims)
        assert (code, said["admitted"]) == (0 if admitted else 1, admitted)
        assert said["token"] == (reason and {"valid": False, "reason": reason})
        if reason:
            assert {role["refusal"] for role in said["roles"]} == {reason}
            assert said["policies"] == []

    def test_an_outsiders_event_is_reported_with_its_reason(self, documents: str) -> None:
        code, said = explained(documents, sample("github-push-main", event_name="issues"))
        assert (code, said["admitted"]) == (1, False)
        assert said["roles"][2]["refusal"] == "event_not_allowed"

    def test_text_shows_expected_beside_got(self, documents: str) -> None:
        claims = json.dumps(sample("github-push-main", ref="refs/heads/x"))
        result = run("explain", "--documents", documents, "--claims", "-", given=claims)
        assert result.exit_code == 1
        assert "admitted  no" in result.stdout
        assert f"expected  {HIDDEN}" in result.stdout
        assert "got       refs/heads/x" in result.stdout

    @pytest.mark.parametrize(
        ("access", "saying"),
        [
            ("Function:Deploy=dev:env", "; write Function:Create and Function:Update"),
            ("Function:Create=env", 'for example "openfaas-fn:env"'),
            ("Function:Create:dev:env", "such as Function:Create=dev:figlet"),
        ],
    )
    def test_an_access_that_is_none_is_told_with_what_to_write(
        self, documents: str, access: str, saying: str
    ) -> None:
        words = ("explain", "--documents", documents, "--claims", "-", "--access", access)
        result = run(*words, given=json.dumps(sample("github-push-main")))
        assert (result.exit_code, saying in result.stderr) == (2, True)

    def test_text_says_yes_and_by_which_statement(self, documents: str) -> None:
        result = run(
            "explain", "--documents", documents, "--claims", "-",
            "--access", "Function:Create=dev:env", given=json.dumps(sample("github-push-main")),
        )  # fmt: skip
        assert result.exit_code == 0
        assert "admitted  yes" in result.stdout
        assert "Allow deploy/deploy" in result.stdout

    @pytest.mark.parametrize("output", ["text", "json"])
    def test_what_a_hostile_token_holds_cannot_reach_the_terminal(
        self, tmp_path: Path, output: str
    ) -> None:
        broker = InProcess()
        hostile = "\x1b]0;owned\x07\x9b31m\n\u202e"
        token = broker.github.token(
            broker.claims(sub=hostile, ref=hostile), header={"kid": hostile, "alg": "RS256"}
        )
        result = run(
            "explain", "--documents", pinned(broker, tmp_path), "--token", "-", "--format", output,
            given=token,
        )  # fmt: skip
        assert "unknown_key" in result.stdout
        assert result.exit_code == 1
        for character in "\x1b\x07\x9b\u202e":
            assert character not in result.stdout

    @pytest.mark.parametrize("output", ["text", "json"])
    @pytest.mark.parametrize(
        ("token", "reason"),
        [
            ("nonsense", "malformed_token"),
            ("", "malformed_token"),
            ("A" * 20_000, "token_too_large"),
            ("e30.e30.e30", "missing_claim"),
        ],
    )
    def test_text_that_is_not_a_token_is_reported(
        self, documents: str, token: str, reason: str, output: str
    ) -> None:
        result = run(
            "explain", "--documents", documents, "--token", "-", "--format", output, given=token
        )
        assert result.exit_code == 1
        assert reason in result.stdout
        if output == "json":
            assert json.loads(result.stdout)["token"] == {"valid": False, "reason": reason}

    def test_a_token_is_verified_with_pinned_keys(self, tmp_path: Path) -> None:
        broker = InProcess()
        arguments = ("explain", "--documents", pinned(broker, tmp_path), "--token", "-",
                     "--format", "json")  # fmt: skip
        broker.clock.now = time.time()
        good = run(*arguments, given=broker.job() + "\n")
        assert good.exit_code == 0, good.output
        assert json.loads(good.stdout)["token"] == {"valid": True, "reason": None}
        broker.clock.now = time.time() - 3600
        late = run(*arguments, given=broker.job())
        assert late.exit_code == 1
        assert json.loads(late.stdout)["token"] == {"valid": False, "reason": "expired"}

    @pytest.mark.parametrize(
        "arguments",
        [
            pytest.param([], id="neither token nor claims"),
            pytest.param(["--claims", "-", "--token", "-"], id="both"),
            pytest.param(["--claims", "/nowhere"], id="no such file"),
            pytest.param(["--claims", "-", "--access", "nonsense"], id="access without ="),
            pytest.param(["--claims", "-", "--access", "Function:Fly=dev:x"], id="no such action"),
            pytest.param(["--claims", "-", "--access", "Function:List=x"], id="no such resource"),
            pytest.param(["--claims", "-", "--format", "xml"], id="no such format"),
        ],
    )
    def test_wrong_use_is_2(self, documents: str, arguments: list[str]) -> None:
        assert run("explain", "--documents", documents, *arguments, given="{}").exit_code == 2

    @pytest.mark.parametrize(
        "claims",
        ["", "[]", "null", "{", '{"a": 1, "a": 2}', '{"a": NaN}', b"\xff",
         "[" * 100_000],
    )  # fmt: skip
    def test_claims_that_are_not_an_object_are_wrong_use(
        self, documents: str, claims: str | bytes
    ) -> None:
        result = run("explain", "--documents", documents, "--claims", "-", given=claims)
        assert result.exit_code == 2
        assert "Traceback" not in result.output

    def test_claims_of_any_type_cause_no_crash(self, documents: str) -> None:
        odd = {"iss": 5, "aud": {}, "sub": [], "exp": "x", "iat": None, "repository": 1.5}
        code, said = explained(documents, odd)
        assert (code, said["admitted"]) == (1, False)

    def test_documents_with_errors_are_1_and_on_standard_error(self, tmp_path: Path) -> None:
        place = tmp_path / "bad.yaml"
        place.write_text("kind: Role\n")
        result = run(
            "explain", "--documents", str(place), "--claims", "-", "--format", "json", given="{}"
        )
        assert result.exit_code == 1
        assert result.stdout == ""
        assert "bad.yaml" in result.stderr


class TestKeys:
    def test_a_key_is_made_listed_and_rotated(self, tmp_path: Path) -> None:
        state = str(tmp_path / "state")
        first = run("keys", "generate", "--state", state).stdout.strip()
        second = run("keys", "generate", "--state", state).stdout.strip()
        listed = run("keys", "list", "--state", state).stdout.splitlines()
        assert [line.split()[0] for line in listed] == ["signs", "next"]
        assert [line.split()[-1] for line in listed] == [first, second]
        rotated = run("keys", "rotate", "--state", state)
        assert (rotated.exit_code, rotated.stdout) == (0, f"{second} signs now\n")
        listed = run("keys", "list", "--state", state).stdout.splitlines()
        assert [line.split()[0] for line in listed] == ["retired", "signs"]

    def test_the_state_may_come_from_the_environment(self, tmp_path: Path) -> None:
        assert run("keys", "generate", FEDERATION_STATE=str(tmp_path / "s")).exit_code == 0
        assert (tmp_path / "s" / "signing-keys" / "current").exists()

    def test_no_key_is_1(self, tmp_path: Path) -> None:
        result = run("keys", "list", "--state", str(tmp_path))
        assert result.exit_code == 1
        assert "--state" in result.stderr
        assert "keys generate" in result.stderr

    @pytest.mark.parametrize("command", ["generate", "list", "rotate"])
    def test_a_state_that_is_a_file_is_wrong_use(self, tmp_path: Path, command: str) -> None:
        (tmp_path / "file").write_text("x")
        assert run("keys", command, "--state", str(tmp_path / "file")).exit_code == 2

    @pytest.mark.parametrize("command", ["generate", "rotate"])
    def test_a_folder_that_cannot_be_made_exits_with_1_and_one_sentence(
        self, tmp_path: Path, command: str
    ) -> None:
        (tmp_path / "file").write_text("x")
        result = run("keys", command, "--state", str(tmp_path / "file" / "below"))
        assert result.exit_code == 1
        assert "Traceback" not in result.output
        assert "is not a folder; name another folder" in result.stderr

    def test_nothing_private_is_printed(self, tmp_path: Path) -> None:
        outputs = [run("keys", c, "--state", str(tmp_path)).output for c in ("generate", "list")]
        assert not any("PRIVATE" in output for output in outputs)
        (pem,) = (tmp_path / "signing-keys").glob("*.pem")
        assert stat.S_IMODE(pem.stat().st_mode) == 0o600


class TestServe:
    def test_wrong_settings_exit_with_2_and_are_all_reported(self) -> None:
        result = run("serve", "--port", "99999", "--host", "10.0.0.1")
        assert result.exit_code == 2
        for name in ("documents", "port", "issuer-url"):
            assert name in result.stderr

    def test_wrong_documents_exit_with_1_and_are_all_reported(self, tmp_path: Path) -> None:
        place = tmp_path / "d"
        place.mkdir()
        (place / "one.yaml").write_text(DOCUMENTS.replace("kind: Policy", "kind: Polizy", 1))
        (place / "two.yaml").write_text("kind: [")
        result = run("serve", "--port", "0", "--documents", str(place), "--state", str(tmp_path))
        assert result.exit_code == 1
        assert "one.yaml" in result.stderr
        assert "two.yaml" in result.stderr
        assert "nothing was started" in result.stderr

    def test_a_bad_signing_key_is_2_and_not_quoted(self, documents: str, tmp_path: Path) -> None:
        pem = tmp_path / "key.pem"
        pem.write_text("-----BEGIN PRIVATE KEY-----\nHUNTER2\n-----END PRIVATE KEY-----\n")
        result = run("serve", "--port", "0", "--documents", documents, "--signing-key", str(pem))
        assert result.exit_code == 2
        assert "key.pem" in result.stderr
        assert "HUNTER2" not in result.output

    def test_a_state_that_is_a_file_is_2(self, documents: str) -> None:
        result = run("serve", "--port", "0", "--documents", documents, "--state", documents)
        assert result.exit_code == 2
        assert "state" in result.stderr

    def test_an_issuer_that_is_the_broker_itself_is_1(self, documents: str, tmp_path: Path) -> None:
        result = run(
            "serve", "--port", "0", "--documents", documents, "--issuer-url", GITHUB,
            "--state", str(tmp_path),
        )  # fmt: skip
        assert result.exit_code == 1
        assert "error[D026] JwtIssuer/github: spec.iss: names" in result.stderr

    def test_an_address_that_cannot_be_used_exits_with_2(
        self, documents: str, tmp_path: Path
    ) -> None:
        result = run(
            "serve", "--port", "0", "--documents", documents, "--state", str(tmp_path),
            "--host", "192.0.2.1", "--issuer-url", URL,
        )  # fmt: skip
        assert result.exit_code == 2
        assert "cannot listen on 192.0.2.1" in result.stderr

    @pytest.mark.parametrize("host", ["::zz", "a host:"])
    def test_an_address_that_is_none_exits_with_2(
        self, documents: str, tmp_path: Path, host: str
    ) -> None:
        result = run(
            "serve", "--port", "0", "--documents", documents, "--state", str(tmp_path),
            "--host", host, "--issuer-url", URL,
        )  # fmt: skip
        assert result.exit_code == 2
        assert f"cannot listen on {host}" in result.stderr

    def test_a_taken_port_hides_no_other_problem(self, tmp_path: Path) -> None:
        place, key = tmp_path / "documents.yaml", tmp_path / "key.pem"
        place.write_text("kind: [")
        key.touch(0o600)
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            result = run(
                "serve", "--port", str(port), "--metrics-port", str(port),
                "--metrics-host", "127.0.0.1", "--host", "localhost",
                "--documents", str(place), "--signing-key", str(key),
                "--state", str(tmp_path / "state"),
            )  # fmt: skip
        assert result.exit_code == 2
        told = [f"cannot listen on {host} port {port}" for host in ("localhost", "127.0.0.1")]
        for each in (*told, "documents.yaml", "signing-key: "):
            assert each in result.stderr
        assert not (tmp_path / "state").exists()


class TestExchange:
    def test_outside_ci_it_is_1_and_says_what_is_missing(self) -> None:
        result = run("exchange", "--url", URL)
        assert result.exit_code == 1
        assert result.stdout == ""
        assert "No CI identity was found" in result.stderr

    @pytest.mark.parametrize("content", ["", " \n", "ü"])
    def test_a_file_that_holds_no_token_is_1(self, tmp_path: Path, content: str) -> None:
        place = tmp_path / "token"
        place.write_text(content)
        result = run("exchange", "--url", URL, "--token", str(place))
        assert result.exit_code == 1
        assert str(place) in result.stderr

    def test_a_file_that_is_not_there_is_1(self) -> None:
        assert run("exchange", "--url", URL, "--token", "/nowhere").exit_code == 1

    @pytest.mark.parametrize("url", ["http://gateway.example.com", "nonsense", "http://["])
    def test_a_url_that_is_not_https_is_1_and_nothing_is_sent(self, url: str) -> None:
        result = run("exchange", "--url", url, "--token", "-", given="eyJ.secret")
        assert result.exit_code == 1
        assert "https" in result.stderr
        assert "eyJ.secret" not in result.output
