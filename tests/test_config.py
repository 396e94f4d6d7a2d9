"""Settings: all problems are reported at once, flags win, and the issuer URL suits tokens."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from federation.config import Settings, flag, loopback, read_settings, repeatable, variable
from federation.config.values import has_every_address
from federation.errors import SettingsRefused
from tests.harness.signing import signing_key


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    place = tmp_path / "documents"
    place.mkdir()
    return place


def read(environ: Mapping[str, str] | None = None, **flags: str | list[str]) -> Settings:
    """The settings of *flags* and *environ* only, not of this machine's environment."""
    return read_settings(flags, environ or {})


def problems(environ: Mapping[str, str] | None = None, **flags: str | list[str]) -> list[str]:
    with pytest.raises(SettingsRefused) as caught:
        read(environ, **flags)
    return list(caught.value.problems)


def test_documents_are_the_only_required_setting(documents: Path) -> None:
    settings = read(documents=[str(documents)])
    assert settings.documents == (documents,)
    assert (settings.host, settings.port, settings.url) == (
        "127.0.0.1",
        8080,
        "http://127.0.0.1:8080",
    )
    assert settings.state == Path(".federation")
    assert settings.signing_key == ()
    assert settings.log_format is None


def test_missing_documents_are_reported_with_flag_and_variable() -> None:
    (problem,) = problems()
    assert "--documents" in problem
    assert "FEDERATION_DOCUMENTS" in problem


def test_all_problems_are_reported_at_once() -> None:
    told = "\n".join(
        problems(
            documents=["/nowhere"],
            port="99999",
            issuer_url="https://gateway.example.com/path",
            log_format="xml",
            signing_key=["/no/key.pem"],
        )
    )
    for name in ("documents", "port", "issuer-url", "log-format", "signing-key"):
        assert f"--{name}" in told


def test_the_folder_of_bearer_tokens_is_whole_and_holds_nothing_else_of_the_brokers(
    documents: Path, tmp_path: Path
) -> None:
    tokens, state = tmp_path / "tokens", tmp_path / "state"
    for folder in (tokens, state):
        folder.mkdir(mode=0o700)
    given = {"FEDERATION_DOCUMENTS": str(documents), "FEDERATION_STATE": str(state)}
    assert read(given, bearer_token_files=f"{tokens}/").bearer_token_files == tokens
    for other in (tmp_path, state, state / "signing-keys", Path("/")):
        other.mkdir(exist_ok=True)
        (told, *_) = problems(given, bearer_token_files=str(other))
        assert told.startswith(f"bearer-token-files is {other}, and state is {state}: ")


def test_a_secret_among_the_bearer_tokens_is_refused_also_where_a_link_leads_to_it(
    documents: Path, tmp_path: Path
) -> None:
    secret, folder = tmp_path / "tokens" / "secret", tmp_path / "link"
    secret.parent.mkdir()
    secret.write_text("secret")
    folder.symlink_to("tokens")
    (told,) = problems(
        documents=[str(documents)],
        audit_webhook="https://hooks.example.com/",
        audit_webhook_secret=str(secret),
        bearer_token_files=str(folder),
    )
    assert f"audit-webhook-secret is {secret}" in told


@pytest.mark.parametrize("folder", ["/", "/var/run"])
def test_the_brokers_own_token_for_the_api_is_none_of_the_bearer_tokens(
    documents: Path, folder: str
) -> None:
    Path(folder).is_dir() or pytest.skip("there is no such folder here")
    told = problems(documents=[str(documents)], bearer_token_files=folder)
    assert any("the broker's own token for the Kubernetes API" in problem for problem in told)


def test_the_folder_of_bearer_tokens_must_be_a_folder(documents: Path, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("token")
    for path in (tmp_path / "token", tmp_path / "nowhere"):
        (told,) = problems(documents=[str(documents)], bearer_token_files=str(path))
        assert f"bearer-token-files: {path} is not a folder" in told


def test_a_missing_url_is_reported_with_other_problems(documents: Path) -> None:
    told = problems(documents=[str(documents)], host="0.0.0.0", port="99999")  # noqa: S104
    assert any("port" in problem for problem in told)
    assert any("issuer-url is needed" in problem for problem in told)


def test_a_missing_url_is_reported_with_missing_documents() -> None:
    told = problems(host="gateway.internal")
    assert any("documents is needed" in problem for problem in told)
    assert any("issuer-url is needed" in problem for problem in told)


def test_a_variable_sets_what_no_flag_sets(documents: Path) -> None:
    settings = read({"FEDERATION_DOCUMENTS": str(documents), "FEDERATION_PORT": "9"}, port="8")
    assert settings.documents == (documents,)
    assert settings.port == 8


def test_an_empty_flag_or_variable_counts_as_unset(documents: Path) -> None:
    environ = {"FEDERATION_DOCUMENTS": str(documents), "FEDERATION_PORT": ""}
    assert read(environ, documents=[], host="").port == 8080


def test_a_variable_may_hold_several_paths(documents: Path, tmp_path: Path) -> None:
    both = os.pathsep.join([str(documents), str(tmp_path)])
    assert read({"FEDERATION_DOCUMENTS": both}).documents == (documents, tmp_path)


@pytest.mark.parametrize(
    "url",
    [
        "https://gateway.example.com",
        "https://gateway.example.com:8443",
        "http://127.0.0.1:8080",
        "http://localhost:8080",
        "http://[::1]:8080",
    ],
)
def test_a_valid_issuer_url_is_used_unchanged(documents: Path, url: str) -> None:
    assert read(documents=[str(documents)], issuer_url=url).url == url


@pytest.mark.parametrize(
    "url",
    [
        "https://gateway.example.com/",
        "https://gateway.example.com/broker",
        "https://gateway.example.com?x",
        "https://gateway.example.com#x",
        "https://user:secret@gateway.example.com",
        "https://",
        "https://:8080",
        "http://gateway.example.com",
        "http://0.0.0.0:8080",
        "http://localhost.evil.example",
        "http://[::1",
        "https://[",
        "ftp://gateway.example.com",
        "gateway.example.com",
        "HTTPS://gateway.example.com",
        "https://gateway.example.com:port",
        "https://gateway.example.com:99999",
        "https://gateway.example.com\n",
        "https://gateway .example.com",
        "https://gateway.example.com\\@evil",
        "https://gäteway.example.com",
        "https://gateway.example.com:",
    ],
)
def test_an_invalid_issuer_url_is_refused(documents: Path, url: str) -> None:
    (problem,) = problems(documents=[str(documents)], issuer_url=url)
    assert problem.startswith("issuer-url: ")


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),  # noqa: S104
        ("::", False),
        ("10.0.0.1", False),
        ("gateway.example.com", False),
        ("localhost.evil.example", False),
        ("", False),
        ("127.1", False),
    ],
)
def test_only_loopback_addresses_count_as_loopback(host: str, local: bool) -> None:
    assert loopback(host) is local


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:9"),
        ("localhost", "http://localhost:9"),
        ("::1", "http://[::1]:9"),
    ],
)
def test_on_loopback_the_issuer_url_is_made_from_host_and_port(
    documents: Path, host: str, url: str
) -> None:
    assert read(documents=[str(documents)], host=host, port="9").url == url


@pytest.mark.parametrize("port", ["-1", "65536", "eighty", "80.5", "1e3"])
def test_an_invalid_port_is_refused(documents: Path, port: str) -> None:
    (problem,) = problems(documents=[str(documents)], port=port)
    assert "--port" in problem


def test_settings_are_immutable(documents: Path) -> None:
    settings = read(documents=[str(documents)])
    with pytest.raises(ValueError, match="frozen"):
        settings.port = 1


def test_every_setting_has_a_flag_a_variable_and_a_description() -> None:
    for name, field in Settings.model_fields.items():
        assert flag(name).startswith("--")
        assert "_" not in flag(name)
        assert variable(name).startswith("FEDERATION_")
        assert field.description, name
    assert {name for name in Settings.model_fields if repeatable(name)} == {
        "documents",
        "signing_key",
    }


def test_acknowledgement_needs_a_shared_state_whose_replicas_acknowledge(documents: Path) -> None:
    (told,) = problems(documents=[str(documents)], shared_state_wait="1")
    assert told == "shared-state-wait is for a shared state; set --shared-state too"
    assert read(documents=[str(documents)], shared_state_wait="0").shared_state_wait == 0


def test_shared_state_needs_a_shared_signing_key_and_url(documents: Path) -> None:
    told = problems(documents=[str(documents)], shared_state="redis://:hunter2@store:6379")
    (problem,) = told
    assert "--signing-key" in problem
    assert "hunter2" not in problem


def test_a_line_end_after_the_url_of_the_shared_state_does_no_harm(
    documents: Path, tmp_path: Path
) -> None:
    """`kubectl create secret generic --from-file` keeps the line end that editors write."""
    settings = read(
        documents=[str(documents)],
        shared_state="redis://store:6379\n",
        signing_key=[str(signing_key(tmp_path))],
        issuer_url="https://gateway.example.com",
    )
    assert settings.shared_state is not None
    assert settings.shared_state.get_secret_value() == "redis://store:6379"


@pytest.mark.parametrize("url", ["http://store", "redis://", "store:6379", "redis://:hunter2@a b"])
def test_an_invalid_shared_state_url_is_refused_and_not_quoted(documents: Path, url: str) -> None:
    told = "\n".join(problems(documents=[str(documents)], shared_state=url))
    assert "shared-state" in told
    assert "hunter2" not in told


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("http://gateway.openfaas:8080", "http://gateway.openfaas:8080"),
        ("http://gateway.openfaas:8080/", "http://gateway.openfaas:8080"),
        ("https://[fd00::1]:8080", "https://[fd00::1]:8080"),
        ("unix:/run/gateway.sock", "unix:/run/gateway.sock"),
    ],
)
def test_an_upstream_is_kept_without_its_slash(documents: Path, given: str, kept: str) -> None:
    assert read(documents=[str(documents)], upstream=given).upstream == kept


@pytest.mark.parametrize(
    "url",
    [
        *("gateway", "ftp://gateway", "http://gateway/path", "http://gateway//", "http://u:p@gateway"),
        *("http://gateway?x", "http://gateway#x", "http://gate way", "http://gateway\n"),
        *("unix:", "unix:gateway.sock", "unix://gateway.sock", "unix:/run/../gateway\0.sock"),
    ],
)  # fmt: skip
def test_an_upstream_with_more_than_a_host_and_a_port_is_refused(documents: Path, url: str) -> None:
    (problem,) = problems(documents=[str(documents)], upstream=url)
    assert problem.startswith("upstream: ")


@pytest.mark.parametrize("name", ["upstream", "issuer_url", "sign_in_issuer"])
def test_no_part_of_a_password_in_a_url_is_told(documents: str, name: str) -> None:
    given: dict[str, Any] = {name: "https://user:hunter2@gateway.example.com/x"}
    told = problems(documents=[documents], **given)
    assert "hunter2" not in str(told)
    assert any("must not hold a user, a password or an @" in each for each in told)


@pytest.mark.parametrize("given", ["upstream_ca", "upstream_certificate", "upstream_key"])
@pytest.mark.parametrize("upstream", ["", "http://127.0.0.1:9", "unix:/run/gateway.sock"])
def test_certificates_are_for_an_upstream_with_https(
    documents: Path, given: str, upstream: str
) -> None:
    flags = {"upstream": upstream, given: str(documents)}
    first, *_ = problems(None, documents=[str(documents)], **flags)
    assert first.startswith(f"{given.replace('_', '-')} is for an upstream with an https URL")


@pytest.mark.parametrize("given", ["upstream_certificate", "upstream_key"])
def test_a_certificate_and_its_key_need_each_other(
    documents: Path, tmp_path: Path, given: str
) -> None:
    file = tmp_path / "file"
    file.touch(0o600)
    flags = {"upstream": "https://gateway", given: str(file)}
    told = problems(None, documents=[str(documents)], **flags)
    assert told == ["upstream-certificate and upstream-key need each other; set both"]


def test_a_key_for_the_upstream_that_others_can_read_is_refused(
    documents: Path, tmp_path: Path
) -> None:
    file = tmp_path / "client.key"
    file.touch(0o644)
    (problem,) = problems(
        documents=[str(documents)],
        upstream="https://gateway",
        upstream_certificate=str(documents),
        upstream_key=str(file),
    )
    assert f"chmod 600 {file}" in problem


@pytest.mark.parametrize(
    "hosts", ["hooks.example.com", "a,b:8080,[fd00::1],[::1]:8443", "gateway.openfaas:8080"]
)
def test_callback_hosts_are_names_with_or_without_a_port(documents: Path, hosts: str) -> None:
    assert read(documents=[str(documents)], callback_hosts=hosts).callback_hosts == hosts


@pytest.mark.parametrize(
    "hosts", ["https://hooks.example.com", "a b", "*.example.com", "a/", "a:", "a:b", "u@a", "-"]
)
def test_a_callback_host_that_is_more_than_a_host_is_refused(documents: Path, hosts: str) -> None:
    (problem,) = problems(documents=[str(documents)], callback_hosts=hosts)
    assert problem.startswith("callback-hosts: ")


@pytest.mark.parametrize(
    "url",
    [
        *("https://receiver.example.com", "https://receiver.example.com/events?a=b"),
        *("HTTPS://receiver.example.com/", "http://127.0.0.1:9/", "http://localhost/", "http://[::1]/"),
    ],
)  # fmt: skip
def test_a_webhook_is_https_or_on_this_machine(documents: Path, url: str) -> None:
    assert read(documents=[str(documents)], audit_webhook=url).audit_webhook == url


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("receiver.example.com", "must be like"),
        ("ftp://receiver.example.com", "must be like"),
        ("https://", "must be like"),
        ("https:///events", "must be like"),
        ("https://receiver.example.com/#x", "must be like"),
        ("https://receiver.example.com/a b", "must be like"),
        ("https://receiver.example.com/\u00e9", "must be like"),
        ("https://user:hunter2@receiver.example.com/", "must not hold a password"),
        ("https://hunter2@receiver.example.com/", "must not hold a password"),
        ("http://receiver.example.com/", "must be https"),
        ("HTTP://receiver.example.com/", "must be https"),
        ("http://10.0.0.1/", "must be https"),
    ],
)
def test_a_webhook_that_could_leak_is_refused_and_its_password_not_quoted(
    documents: Path, url: str, why: str
) -> None:
    (problem,) = problems(documents=[str(documents)], audit_webhook=url)
    assert problem.startswith("audit-webhook: ")
    assert why in problem
    assert "hunter2" not in problem


@pytest.mark.parametrize("networks", ["", "10.0.0.0/8", "10.0.0.0/8,fd00::/8", "192.0.2.7"])
def test_trusted_proxies_are_networks(documents: Path, networks: str) -> None:
    settings = read(documents=[str(documents)], trusted_proxies=networks)
    assert settings.trusted_proxies == networks


@pytest.mark.parametrize(
    ("networks", "every"),
    [
        ("", False),
        ("10.0.0.0/8,fd00::/8", False),
        ("192.0.2.7", False),
        ("0.0.0.0/0", True),
        ("10.0.0.0/8,::/0", True),
    ],
)
def test_networks_that_have_every_address_are_noticed(networks: str, every: bool) -> None:
    assert has_every_address(networks) == every


@pytest.mark.parametrize("networks", ["10.0.0.1/8", "proxy", "10.0.0.0/33", "10.0.0.0/8;fd00::/8"])
def test_what_is_no_network_is_no_trusted_proxy(documents: Path, networks: str) -> None:
    (problem,) = problems(documents=[str(documents)], trusted_proxies=networks)
    assert problem.startswith("trusted-proxies: ")
    assert "10.0.0.0/8" in problem


def test_metrics_need_a_port_of_their_own(documents: Path) -> None:
    told = "metrics-port must be another one than port"
    elsewhere = read(documents=[str(documents)], metrics_port="8080", metrics_host="127.0.0.2")
    assert (elsewhere.metrics_host, elsewhere.metrics_port) == ("127.0.0.2", 8080)
    place = [str(documents)]
    assert problems(documents=place, port="9000", metrics_port="9000") == [told]
    assert problems(documents=place, metrics_port="8080") == [told]
    assert read(documents=[str(documents)], metrics_port="9000").metrics_port == 9000


def test_settings_of_a_webhook_need_a_webhook(documents: Path, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    file.chmod(0o600)
    told = problems(
        documents=[str(documents)],
        audit_webhook_secret=str(file),
        audit_webhook_header=str(file),
        audit_webhook_ca=str(file),
    )
    assert told == [
        "audit-webhook-secret is for a webhook; set --audit-webhook too",
        "audit-webhook-header is for a webhook; set --audit-webhook too",
        "audit-webhook-ca is for a webhook; set --audit-webhook too",
    ]


@pytest.mark.parametrize(
    ("given", "seconds"), [("90s", 90), ("1m", 60), ("1h", 3600), ("1m30s", 90), ("120", 120)]
)
def test_durations_are_as_in_documents_and_a_number_is_seconds(
    documents: Path, given: str, seconds: int
) -> None:
    settings = read(documents=[str(documents)], keep_alive=given, send_timeout=given)
    assert settings.keep_alive.total_seconds() == seconds
    assert settings.send_timeout.total_seconds() == seconds


@pytest.mark.parametrize("given", ["0s", "61m", "-1s", "soon", "1 m", "999ms"])
def test_a_time_of_a_connection_is_between_a_second_and_an_hour(
    documents: Path, given: str
) -> None:
    told = problems(documents=[str(documents)], keep_alive=given, send_timeout=given)
    assert [problem.partition(":")[0] for problem in told] == ["keep-alive", "send-timeout"]


@pytest.mark.parametrize("value", ["yes", "1", "ON"])
def test_the_access_log_is_on_or_off(documents: Path, value: str) -> None:
    assert read(documents=[str(documents)], access_log="on").access_log == "on"
    (problem,) = problems(documents=[str(documents)], access_log=value)
    assert problem.startswith("access-log: ")


@pytest.mark.parametrize(
    ("given", "seconds"), [("90s", 90), ("1m", 60), ("1h", 3600), ("1.5s", 1.5), ("45", 45)]
)
def test_a_duration_is_one_as_in_documents(documents: Path, given: str, seconds: float) -> None:
    timeout = read(documents=[str(documents)], upstream_timeout=given).upstream_timeout
    assert timeout.total_seconds() == seconds


@pytest.mark.parametrize("given", ["soon", "-1s", "1d", "1e3", "0", "999ms", "2h", "٣"])
def test_what_is_no_duration_or_out_of_range_is_refused(documents: Path, given: str) -> None:
    (told,) = problems(documents=[str(documents)], upstream_timeout=given)
    assert told.startswith("upstream-timeout: ")


def test_a_host_for_metrics_needs_a_port(documents: Path) -> None:
    (told,) = problems(documents=[str(documents)], metrics_host="127.0.0.2")
    assert told == "metrics-host is for the metrics port; set --metrics-port too"


def test_what_kubernetes_says_of_a_service_is_passed_over(documents: Path) -> None:
    links = {"FEDERATION_PORT": "tcp://10.0.0.1:80", "FEDERATION_METRICS_PORT": "udp://10.0.0.2:1"}
    settings = read({"FEDERATION_DOCUMENTS": str(documents), **links})
    assert (settings.port, settings.metrics_port) == (8080, None)
