"""
Reads the URL of a Redis strictly, so that each mistake in it is found at the start.

The client's own reader raises errors that quote a part of the password, takes `/zero` for database 0,
and hands unknown parameters on until a connection is made. A parameter of the URL would also win
over what the store relies on, such as its timeouts. So every part is checked here, and of the
parameters only those of TLS are taken.

No message quotes a part of the URL that can be a part of the password. A password with `/`, `?` or `#`
ends the host's part too early, so nothing behind the scheme is known to be harmless before the whole
URL was understood.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable, Mapping
from ipaddress import IPv6Address
from pathlib import Path
from types import MappingProxyType
from urllib.parse import unquote, urlencode

from federation.ownership import NotTrusted, read_key
from federation.text import nearest

_SHAPE = re.compile(
    r"(?P<scheme>rediss?)://(?P<server>[^/?#]*)(?P<path>[^?#]*)(\?(?P<query>[^#]*))?(?P<rest>#.*)?",
    re.IGNORECASE | re.DOTALL,
)
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_])?\.?")
_SERVER = re.compile(r"(?P<host>\[[^\[\]]*\]|[^:\[\]]*)(:(?P<port>.*))?", re.DOTALL)
_DATABASE = re.compile(r"/?|/[0-9]{1,4}")
_BAD_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_PORTS = range(1, 65536)

_ENCODE = (
    "its user or password holds a character that ends this part of a URL: percent-encode it"
    " (/ is %2F, ? is %3F, # is %23, [ is %5B, ] is %5D, % is %25)"
)
_CERT_REQS = ("required", "none")


def strict_redis_url(url: str) -> str:
    """
    Return *url* without white space around it, if each of its parts can be used.

    Raises: ValueError with a sentence that holds no part of a password.
    """
    url = url.strip()
    found = _SHAPE.fullmatch(url)
    if not found:
        raise ValueError(
            "it must be redis://HOST:6379/0 or rediss://HOST:6379/0, with :PASSWORD@ or"
            " USER:PASSWORD@ before the host"
        )
    userinfo, at, server = found["server"].rpartition("@")
    # An @ further on shows that the password ended the server's part.
    if any("@" in (found[part] or "") for part in ("path", "query", "rest")):
        raise ValueError(_ENCODE)
    _check_userinfo(userinfo, given=bool(at))
    if re.search(r"[\s\x00-\x1f\x7f]", url):
        raise ValueError("it must be without white space within; a blank is %20")
    _check_server(server)
    if not _DATABASE.fullmatch(found["path"]):
        raise ValueError(
            "what follows the host must be the number of a database, such as /0, or nothing"
        )
    if found["rest"] is not None:
        raise ValueError("it must have no # part; in a password # is %23")
    tls = found["scheme"].lower() == "rediss"
    parameters = _parameters(found["query"], tls=tls)
    _check_files(parameters)
    query = f"?{urlencode(parameters)}" if parameters else ""
    return f"{found['scheme'].lower()}://{found['server']}{found['path']}{query}"


def _check_userinfo(userinfo: str, *, given: bool) -> None:
    if _BAD_PERCENT.search(userinfo) or re.search(r"[\[\]\\]", userinfo):
        raise ValueError(_ENCODE)
    if given and ":" not in userinfo:
        raise ValueError(
            "what stands before @ has no colon, so it is a user without a password; write"
            " :PASSWORD@ for a password alone, or USER:PASSWORD@"
        )


def _check_server(server: str) -> None:
    if "," in server:
        raise ValueError(
            "it must name one host; of a cluster name any node, and it finds the others"
        )
    if server.count(":") > 1 and not server.startswith("["):
        raise ValueError("an IPv6 address must stand in brackets, such as redis://[fd00::1]:6379/0")
    found = _SERVER.fullmatch(server)
    if not found or not _is_host(found["host"]):
        raise ValueError(
            "it must name a host, such as redis://redis.example.com:6379/0; a password with /, ? or #"
            " is percent-encoded (%2F, %3F, %23)"
        )
    if (port := found["port"]) is None:
        return
    if not re.fullmatch(r"[0-9]{1,5}", port) or int(port) not in _PORTS:
        raise ValueError(
            "its port must be a number from 1 to 65535; a password with /, ? or # is"
            " percent-encoded (%2F, %3F, %23)"
        )


def _is_host(host: str) -> bool:
    if not host.startswith("["):
        return _HOST.fullmatch(host) is not None
    try:
        IPv6Address(host[1:-1])
    except ValueError:
        return False
    return True


def _parameters(query: str | None, *, tls: bool) -> Mapping[str, str]:
    given: dict[str, str] = {}
    for part in (query or "").split("&") if query else ():
        name, _, value = part.partition("=")
        if name not in _VALUES:
            raise ValueError(_unknown(name))
        if not tls:
            raise ValueError(
                f"its parameter {name} is for TLS; write rediss:// instead of redis://"
            )
        if name in given:
            raise ValueError(f"its parameter {name} stands there twice")
        given[name] = unquote(value.replace("+", " "))
        if not given[name]:
            raise ValueError(f"its parameter {name} is empty")
    return given


def _unknown(name: str) -> str:
    taken = f"those are {', '.join(_VALUES)}"
    if name == "db":
        return "its parameter db is not taken; write the database as the path, such as /0"
    if name in {"username", "password"}:
        return f"its parameter {name} is not taken; write USER:PASSWORD@ before the host"
    # Any other name can be a part of a password with a question mark, so it is not shown.
    if name.startswith("ssl") and (meant := nearest(name, _VALUES)):
        return f"it has a parameter of TLS that is not taken; did you mean {meant}? ({taken})"
    return f"it has a parameter that is not taken; {taken}"


def _check_files(parameters: Mapping[str, str]) -> None:
    for name, value in parameters.items():
        _VALUES[name](name, value)
    certificate, key = parameters.get("ssl_certfile"), parameters.get("ssl_keyfile")
    if key and not certificate:
        raise ValueError("its ssl_keyfile needs an ssl_certfile")
    if certificate:
        _check_pair(certificate, key or certificate)


def _check_ca(name: str, value: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cafile=value)
    except ssl.SSLError:
        raise ValueError(f"its {name} {value} holds no PEM certificate") from None
    except OSError as error:
        raise ValueError(f"its {name} {value} cannot be read: {error.strerror}") from None


def _check_key(name: str, value: str) -> None:
    try:
        read_key(Path(value))
    except NotTrusted as error:
        raise ValueError(f"its {name}: {error}") from None
    except OSError as error:
        raise ValueError(f"its {name} {value} cannot be read: {error.strerror}") from None


def _check_pair(certificate: str, key: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        # With a passphrase OpenSSL does not ask for one at the terminal.
        context.load_cert_chain(certificate, key, password="none")
    except ssl.SSLError:
        raise ValueError(
            f"its ssl_certfile {certificate} and its key {key} must be a PEM certificate and its"
            " PEM key, which has no passphrase"
        ) from None
    except OSError as error:
        raise ValueError(
            f"its ssl_certfile {certificate} cannot be read: {error.strerror}"
        ) from None


def _check_one_of(*values: str) -> Callable[[str, str], None]:
    def check(name: str, value: str) -> None:
        if value not in values:
            raise ValueError(f"its {name} must be {' or '.join(values)}")

    return check


def _later(_name: str, _value: str) -> None:
    """The certificate is read together with its key."""


_VALUES: Mapping[str, Callable[[str, str], None]] = MappingProxyType(
    {
        "ssl_ca_certs": _check_ca,
        "ssl_certfile": _later,
        "ssl_keyfile": _check_key,
        "ssl_cert_reqs": _check_one_of(*_CERT_REQS),
        "ssl_check_hostname": _check_one_of("true", "false"),
    }
)
"""The parameters that are taken, with the check of each value."""
