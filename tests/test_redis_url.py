"""The URL of a Redis: each mistake is one sentence at the start, with no part of the password."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from federation.config.redis_url import strict_redis_url
from federation.state.redis_server import RedisServer
from tests.harness.certificates import Authority

SECRET = re.compile("hunter2|top|secret|sesame")

KEPT = [
    "redis://redis",
    "redis://redis:6379/0",
    "redis://redis.example.com./15",
    "redis://:hunter2@redis:6379/",
    "redis://user:hunter2@redis",
    "redis://user:@redis/0",
    "redis://:hunter2%2Ftop@redis/0",
    "redis://:hunter2:top@redis/0",
    "redis://:hunter2@top@redis/0",
    "redis://[fd00::1]:6379/0",
    "rediss://redis/0?ssl_cert_reqs=none",
    "rediss://redis/0?ssl_check_hostname=false&ssl_cert_reqs=required",
]


@pytest.mark.parametrize("url", KEPT)
def test_a_url_without_a_mistake_is_kept(url: str) -> None:
    assert strict_redis_url(url) == url


@pytest.mark.parametrize("url", KEPT)
def test_what_is_kept_can_be_used_by_the_client(url: str) -> None:
    RedisServer(url)


@pytest.mark.parametrize("around", ["{}\n", "{}\r\n", " {}", "{} \n\n"])
def test_a_line_end_of_a_secret_file_is_dropped(around: str) -> None:
    assert strict_redis_url(around.format("redis://redis:6379/0")) == "redis://redis:6379/0"


def test_the_scheme_may_be_written_in_capitals() -> None:
    assert strict_redis_url("REDISS://redis/0") == "rediss://redis/0"


ENCODE = "percent-encode"
MISTAKES = [
    ("redis://:hunter2:top/secret@h/0", ENCODE),
    ("redis://:hunter2/top@h:6379/0", ENCODE),
    ("redis://:hunter2#top@h:1/0", ENCODE),
    ("redis://:hunter2?top=secret@h/0", ENCODE),
    ("redis://:hunter2?secret@h/0", ENCODE),
    ("redis://:hunter2[top]secret@h/0", ENCODE),
    ("redis://:hunter2%zztop@h/0", ENCODE),
    ("redis://:hunter2%@h/0", ENCODE),
    ("redis://hunter2:top/secret", ENCODE),
    ("redis://hunter2/secret", "the number of a database"),
    ("redis://hunter2@h/0", ":PASSWORD@"),
    ("redis://:hunter2 top@h/0", "white space"),
    ("redis://:hunter2\ntop@h/0", "white space"),
    ("redis://h/0 0", "white space"),
    ("redis://h\t/0", "white space"),
    ("http://h/0", "it must be redis://"),
    ("h:6379", "it must be redis://"),
    ("hunter2", "it must be redis://"),
    ('"redis://h/0"', "it must be redis://"),
    ("redis+sentinel://h/0", "it must be redis://"),
    ("unix:///run/redis.sock", "it must be redis://"),
    ("redis://", "name a host"),
    ("redis:///0", "name a host"),
    ("redis://:hunter2@/0", "name a host"),
    ("redis://h\u200b/0", "name a host"),
    ("redis://é/0", "name a host"),
    ("redis://[::1/0", "name a host"),
    ("redis://[hunter2]/0", "name a host"),
    ("redis://[fe80::1%25eth0]x/0", "name a host"),
    ("redis://::1:6379/0", "in brackets"),
    ("redis://h,h2,h3:6379/0", "one host"),
    ("redis://h:port/0", "its port"),
    ("redis://h:hunter2/0", "its port"),
    ("redis://h:/0", "its port"),
    ("redis://h:0/0", "its port"),
    ("redis://h:99999/0", "its port"),
    ("redis://h:6379/zero", "the number of a database"),
    ("redis://h:6379/hunter2", "the number of a database"),
    ("redis://h/0/1", "the number of a database"),
    ("redis://h/0/", "the number of a database"),
    ("redis://h/-1", "the number of a database"),
    ("redis://h/%30", "the number of a database"),
    ("redis://h/٣", "the number of a database"),
    ("redis://h/0#hunter2", "no # part"),
    ("redis://h/0?db=3", "as the path"),
    ("redis://h/0?username=a", "before the host"),
    ("redis://h/0?password=hunter2", "before the host"),
    ("redis://h/0?hunter2", "a parameter that is not taken"),
    ("redis://h/0?hunter2=top", "a parameter that is not taken"),
    ("redis://h/0?socket_timeout=x", "a parameter that is not taken"),
    ("redis://h/0?decode_responses=0", "a parameter that is not taken"),
    ("redis://h/0?protocol=3", "a parameter that is not taken"),
    ("redis://h/0?max_connections=1", "a parameter that is not taken"),
    ("redis://h:6379?ssl_ca=x", "did you mean ssl_ca_certs?"),
    ("redis://h?ssl_ca_certs=x", "write rediss://"),
    ("redis://h?ssl_cert_reqs=none", "write rediss://"),
    ("rediss://h?ssl_cert_reqs=maybe", "required or none"),
    ("rediss://h?ssl_cert_reqs=optional", "required or none"),
    ("rediss://h?ssl_cert_reqs=none&ssl_cert_reqs=required", "twice"),
    ("rediss://h?ssl_check_hostname=perhaps", "true or false"),
    ("rediss://h?ssl_ca_certs=", "is empty"),
    ("rediss://h?ssl_ca_certs=/no/such", "/no/such cannot be read: No such file"),
    ("rediss://h?ssl_certfile=/no/such", "/no/such cannot be read: No such file"),
    ("rediss://h?ssl_keyfile=/no/such", "/no/such cannot be read: No such file"),
]  # fmt: skip


@pytest.mark.parametrize(("url", "told"), MISTAKES)
def test_a_mistake_is_one_sentence_without_a_part_of_the_password(url: str, told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(told)) as caught:
        strict_redis_url(url)
    sentence = str(caught.value)
    assert not SECRET.search(sentence)
    assert "\n" not in sentence
    assert caught.value.__cause__ is None, "a traceback would show the library's message"


class TestFiles:
    """The files of TLS are read at the start, as the client reads them later."""

    @staticmethod
    def url(**files: Path) -> str:
        return "rediss://h/0?" + "&".join(f"ssl_{name}={path}" for name, path in files.items())

    def test_a_ca_and_a_certificate_with_its_key_are_taken(self, tmp_path: Path) -> None:
        authority = Authority(tmp_path / "ca")
        certificate, key = authority.client(tmp_path / "client")
        url = self.url(ca_certs=authority.certificate, certfile=certificate, keyfile=key)
        assert strict_redis_url(url).startswith("rediss://h/0?ssl_ca_certs=")
        RedisServer(strict_redis_url(url))

    def test_a_ca_that_is_no_certificate(self, tmp_path: Path) -> None:
        (tmp_path / "ca.pem").write_text("hunter2")
        with pytest.raises(ValueError, match="holds no PEM certificate"):
            strict_redis_url(self.url(ca_certs=tmp_path / "ca.pem"))

    def test_a_key_of_another_certificate(self, tmp_path: Path) -> None:
        authority = Authority(tmp_path / "ca")
        one, two = authority.client(tmp_path / "one"), authority.client(tmp_path / "two")
        with pytest.raises(ValueError, match="a PEM certificate and its PEM key"):
            strict_redis_url(self.url(certfile=one[0], keyfile=two[1]))

    def test_a_key_that_others_can_read(self, tmp_path: Path) -> None:
        certificate, key = Authority(tmp_path / "ca").client(tmp_path / "client")
        key.chmod(0o644)
        with pytest.raises(ValueError, match="chmod 600"):
            strict_redis_url(self.url(certfile=certificate, keyfile=key))

    def test_a_key_without_a_certificate(self, tmp_path: Path) -> None:
        _, key = Authority(tmp_path / "ca").client(tmp_path / "client")
        with pytest.raises(ValueError, match="needs an ssl_certfile"):
            strict_redis_url(self.url(keyfile=key))
