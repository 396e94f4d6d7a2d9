"""
Ambiguous requests: two programs could read them as two different calls, so they are refused.

The upstream is a Go server. It decodes and cleans paths before it routes them, ignores the case
of JSON members, and lets the last of two equal ones win in one place and the first in another. A
front end that reads requests as Python's libraries do would authorize one call, and the upstream
would carry out another.
"""

from __future__ import annotations

import json
import time
import tracemalloc

import pytest

from federation.gateway.refusals import RequestRefused
from federation.gateway.routes import Call
from tests.harness.gateway_request import Wire

JSON = (b"content-type", b"application/json")


def deploy(body: bytes, *headers: tuple[bytes, bytes]) -> Wire:
    return Wire("POST", "/system/functions", body, headers or None)


def deployed(inner: str) -> Wire:
    return deploy(b'{"service":"f","image":"i",' + inner.encode("utf-8", "surrogatepass") + b"}")


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


GOOD_BODY = b'{"service":"f","image":"i","namespace":"dev"}'

PATHS: dict[str, str | bytes] = {
    "encoded slash": "/system%2ffunctions",
    "encoded letter": "/%73ystem/functions",
    "encoded letter in a name": "/system/function/f%69glet",
    "encoded NUL after a name": "/system/function/figlet%00",
    "encoded question mark": "/system/function/figlet%3fnamespace=prod",
    "double slash at the start": "//system/functions",
    "double slash inside": "/system//functions",
    "double slash before a name": "/system/function//figlet",
    "trailing slash": "/system/functions/",
    "dot segment": "/system/./functions",
    "parent segment": "/system/x/../functions",
    "parent segment out of a function": "/function/../system/functions",
    "encoded parent segment": "/function/%2e%2e/system/functions",
    "parent as a name": "/system/function/..",
    "two dots in a name": "/system/function/a..b",
    "name that begins with a dot": "/system/function/.hidden",
    "name that ends with a dot": "/system/function/figlet.",
    "path parameter": "/system/functions;x=1",
    "path parameter on a segment": "/system;x/functions",
    "backslash": "/system\\functions",
    "encoded backslash": "/system%5cfunctions",
    "upper case": "/SYSTEM/functions",
    "control character": "/system/functions\x01",
    "line end": "/system/functions\r\nX: y",
    "tab": "/system/functions\t",
    "space": "/system/functions ",
    "not ASCII": "/system/functi\xf6ns",
    "full-width letter": b"/\xef\xbd\x93ystem/functions",
    "overlong dot": "/function/figlet.dev/%c0%ae%c0%ae%2fother",
    "absolute form": "http://gateway.example.com/system/functions",
    "authority form": "gateway.example.com:443",
    "asterisk form": "*",
    "nothing": "",
    "very long": "/system/function/" + "a" * 9000,
    "name that is too long": "/system/function/" + "a" * 254,
    # below a function's name
    "out of a function": "/function/figlet.dev/../other.prod",
    "out of a function, last": "/function/figlet.dev/..",
    "out of a function, encoded": "/function/figlet.dev/%2e%2e/other.prod",
    "out of a function, half encoded": "/function/figlet.dev/.%2E/other.prod",
    "out of a function, encoded twice": "/function/figlet.dev/%252e%252e/other.prod",
    "out of a function, encoded often": "/function/figlet.dev/%25252525252e/x",
    "out of a function by slashes": "/function/figlet.dev/x%2f..%2f..%2fother.prod",
    "out of a function by a parameter": "/function/figlet.dev/..;a=b/other.prod",
    "encoded slash below a function": "/function/figlet.dev/a%2Fb",
    "slash encoded twice": "/function/figlet.dev/a%252Fb",
    "double slash below a function": "/function/figlet.dev//x",
    "double slash at the end": "/function/figlet.dev/x//",
    "encoded slash after the name": "/function/figlet.dev%2fx",
    "encoded dot in the name": "/function/figlet%2eprod",
    "encoded backslash below a function": "/function/figlet.dev/%5c..%5cother",
    "encoded line end below a function": "/function/figlet.dev/x%0d%0aHost:%20y",
    "encoded NUL below a function": "/function/figlet.dev/x%00",
    "broken encoding below a function": "/function/figlet.dev/x%zz",
    "cut encoding below a function": "/function/figlet.dev/x%2",
    "function named by nothing": "/function/.dev",
    "namespace of nothing": "/function/figlet.",
    "namespace in upper case": "/function/figlet.DEV",
    "namespace with an underscore": "/function/figlet.a_b",
    "namespace that is too long": "/function/figlet." + "a" * 64,
    "wildcard as a name": "/function/*.dev",
    "colon in a name": "/function/a:b.dev",
    "a namespace that one upstream takes for another": "/function/figlet.kube-system",
    "fragment in a function's query": "/function/figlet.dev?x#y",
    "control character in a function's query": "/function/figlet.dev?x=\x00",
    "not ASCII in a function's query": "/function/figlet.dev?x=\xff",
    "very long query": "/function/figlet.dev?" + "x" * 20_000,
    "very long path below a function": "/function/figlet.dev/" + "x" * 9000,
}

QUERIES: dict[str, str | bytes] = {
    "namespace twice": "/system/functions?namespace=dev&namespace=prod",
    "namespace twice, the same": "/system/functions?namespace=dev&namespace=dev",
    "namespace twice for logs": "/system/logs?name=f&namespace=dev&namespace=prod",
    "name twice for logs": "/system/logs?name=f&name=g&namespace=dev",
    "namespace once empty": "/system/functions?namespace=&namespace=prod",
    "namespace once without a value": "/system/functions?namespace&namespace=prod",
    "other case": "/system/functions?Namespace=prod",
    "other case beside the right one": "/system/functions?namespace=dev&NAMESPACE=prod",
    "long s": "/system/functions?name\u017fpace=prod".encode(),
    "encoded name": "/system/functions?%6eamespace=prod",
    "semicolon": "/system/functions?namespace=dev;namespace=prod",
    "semicolon before": "/system/functions?a=1;namespace=prod",
    "unknown parameter": "/system/functions?namespace=dev&all=1",
    "method override": "/system/functions?_method=DELETE",
    "empty pair": "/system/functions?namespace=dev&",
    "two equal signs": "/system/functions?namespace=dev=prod",
    "broken encoding": "/system/functions?namespace=dev%zz",
    "cut encoding": "/system/functions?namespace=dev%2",
    "not UTF-8": "/system/functions?namespace=dev%ff",
    "NUL": "/system/functions?namespace=dev%00",
    "space": "/system/functions?namespace=dev+prod",
    "parent": "/system/functions?namespace=..%2fprod",
    "wildcard": "/system/functions?namespace=*",
    "list of two": "/system/functions?namespace=dev,prod",
    "a namespace that one upstream takes for another": (
        "/system/logs?name=f&namespace=kube-system"
    ),
    "second question mark": "/system/functions?namespace=dev?namespace=prod",
    "fragment": "/system/functions?namespace=dev#x",
    "parameter where none is allowed": "/system/namespaces?namespace=dev",
    "parameter of another call": "/system/function/f?tail=1",
    "logs of nothing": "/system/logs?namespace=dev",
    "logs of an empty name": "/system/logs?name=&namespace=dev",
    "follow that Go reads as false": "/system/logs?name=f&follow=yes",
    "tail that is no number": "/system/logs?name=f&tail=1e3",
    "tail in other digits": "/system/logs?name=f&tail=%D9%A3",
    "tail beyond reason": "/system/logs?name=f&tail=99999999999999999999",
    "since without a zone": "/system/logs?name=f&since=2026-11-24T08:16:11",
    "since on no day": "/system/logs?name=f&since=2026-02-30T08:16:11Z",
    "since with a bare plus": "/system/logs?name=f&since=2026-11-24T08:16:11+01:00",
    "instance with a path": "/system/logs?name=f&instance=..%2f..%2fx",
    "usage that is no flag": "/system/function/f?usage=true",
    "very long": "/system/functions?namespace=" + "a" * 20_000,
}

BODIES: dict[str, Wire] = {
    "no body": Wire("POST", "/system/functions"),
    "empty": deploy(b""),
    "not an object": deploy(b'[{"service":"f","image":"i"}]'),
    "null": deploy(b"null"),
    "case variant": deployed('"namespace":"dev","Namespace":"prod"'),
    "case variant alone": deployed('"Namespace":"prod"'),
    "long s in a member": deployed('"name\u017fpace":"prod"'),
    "Kelvin sign in a member": deployed('"\u212aind":"x"'),
    "escaped member": deployed('"namespace":"dev","\\u006eamespace":"prod"'),
    "duplicate member": deployed('"namespace":"dev","namespace":"prod"'),
    "duplicate member, the same": deployed('"namespace":"dev","namespace":"dev"'),
    "duplicate label": deployed('"labels":{"a":"1","a":"2"}'),
    "duplicate limit": deployed('"limits":{"memory":"1Mi","memory":"9Gi"}'),
    "case variant of a limit": deployed('"limits":{"memory":"1Mi","Memory":"9Gi"}'),
    "unknown member": deployed('"runtimeClass":"kata"'),
    "member of a status": deployed('"name":"g"'),
    "member of another body": deployed('"functionName":"g"'),
    "trailing object": deploy(GOOD_BODY + b'{"namespace":"prod"}'),
    "trailing text": deploy(GOOD_BODY + b"x"),
    "trailing NUL": deploy(GOOD_BODY + b"\x00"),
    "byte order mark": deploy(b"\xef\xbb\xbf" + GOOD_BODY),
    "UTF-16": deploy(GOOD_BODY.decode().encode("utf-16")),
    "not UTF-8": deploy(b'{"service":"f","image":"i\xff"}'),
    "half of a surrogate pair": deployed('"envVars":{"A":"\\ud800"}'),
    "raw half of a surrogate pair": deployed('"envVars":{"A":"\ud800"}'),
    "NaN": deployed('"readOnlyRootFilesystem":NaN'),
    "infinity": deployed('"readOnlyRootFilesystem":-Infinity'),
    "comment": deploy(GOOD_BODY[:-1] + b"/* */}"),
    "trailing comma": deploy(GOOD_BODY[:-1] + b",}"),
    "single quotes": deploy(b"{'service':'f','image':'i'}"),
    "raw line end in a string": deployed('"envProcess":"a\nb"'),
    "deep nesting": deployed(f'"labels":{{"a":{nested(40).decode()}}}'),
    "very deep nesting": deploy(nested(200_000)),
    "nesting where none is": deployed('"labels":{"a":{"b":"c"}}'),
    "label that is a number": deployed('"labels":{"a":1}'),
    "label that is null": deployed('"labels":{"a":null}'),
    "labels as a list": deployed('"labels":["a"]'),
    "name that is a number": deploy(b'{"service":1,"image":"i"}'),
    "name that is a list": deploy(b'{"service":["f"],"image":"i"}'),
    "name that is null": deploy(b'{"service":null,"image":"i"}'),
    "namespace that is a list": deployed('"namespace":["dev"]'),
    "text for a boolean": deployed('"readOnlyRootFilesystem":"true"'),
    "no name": deploy(b'{"image":"i"}'),
    "no image": deploy(b'{"service":"f"}'),
    "name with a path": deploy(b'{"service":"../f","image":"i"}'),
    "name with NUL": deploy(b'{"service":"f\\u0000","image":"i"}'),
    "name with a line end": deploy(b'{"service":"f\\n","image":"i"}'),
    "name in other letters": deploy('{"service":"f\u0456glet","image":"i"}'.encode()),
    "name that is a wildcard": deploy(b'{"service":"*","image":"i"}'),
    "name that is empty": deploy(b'{"service":"","image":"i"}'),
    "namespace with a path": deployed('"namespace":"dev/../prod"'),
    "namespace that is a wildcard": deployed('"namespace":"*"'),
    "namespace with a line end": deployed('"namespace":"dev\\n"'),
    "namespace of the cluster": deployed('"namespace":"kube-system"'),
    "mounted secret with a path": deployed('"secrets":["../../etc/shadow"]'),
    "image with a space": deploy(b'{"service":"f","image":"i --privileged"}'),
    "secret with a path": Wire("DELETE", "/system/secrets", {"name": "../../x"}),
    "secret in a path": Wire("POST", "/system/secrets", {"name": "s", "namespace": "../x"}),
    "secret's value on removal": Wire("DELETE", "/system/secrets", {"name": "s", "value": "v"}),
    "negative replicas": Wire("POST", "/system/scale-function/f", {"replicas": -1}),
    "replicas with a fraction": Wire("POST", "/system/scale-function/f", b'{"replicas":1.0}'),
    "replicas with an exponent": Wire("POST", "/system/scale-function/f", b'{"replicas":1e2}'),
    "replicas beyond a number": Wire("POST", "/system/scale-function/f", b'{"replicas":1e999}'),
    "replicas beyond 64 bits": Wire("POST", "/system/scale-function/f", {"replicas": 2**64}),
    "replicas of very many digits": Wire(
        "POST", "/system/scale-function/f", b'{"replicas":' + b"9" * 100_000 + b"}"
    ),
    "replicas that are true": Wire("POST", "/system/scale-function/f", {"replicas": True}),
    "replicas left out": Wire("POST", "/system/scale-function/f", {}),
    "many small values": deployed('"secrets":[' + ",".join(['"a"'] * 20_000) + "]"),
    "many empty objects": deploy(b'{"labels":[' + b"{}," * 3_000_000 + b"{}]}"),
    "larger than ten mebibytes": deploy(b'{"service":"' + b"f" * 10 * 1024 * 1024 + b'"}'),
}

DISAGREEING: dict[str, Wire] = {
    "namespace in query and body": Wire(
        "DELETE", "/system/functions?namespace=dev", {"functionName": "f", "namespace": "prod"}
    ),
    "namespace in query and body, on creation": Wire(
        "POST",
        "/system/functions?namespace=dev",
        {"service": "f", "image": "i", "namespace": "prod"},
    ),
    "namespace in query and body, of a secret": Wire(
        "DELETE", "/system/secrets?namespace=dev", {"name": "s", "namespace": "prod"}
    ),
    "namespace in query and body, scaling": Wire(
        "POST", "/system/scale-function/f?namespace=dev", {"replicas": 1, "namespace": "prod"}
    ),
    "name in path and body, scaling": Wire(
        "POST", "/system/scale-function/f", {"replicas": 1, "serviceName": "g"}
    ),
    "case of the name in path and body": Wire(
        "POST", "/system/scale-function/f", {"replicas": 1, "serviceName": "F"}
    ),
    "namespace in path and body": Wire("DELETE", "/system/namespace/dev", {"name": "prod"}),
    "name of a namespace in its namespace": Wire(
        "DELETE", "/system/namespace/dev", {"name": "dev", "namespace": "prod"}
    ),
}

FRAMING: dict[str, Wire] = {
    "form": deploy(GOOD_BODY, (b"content-type", b"application/x-www-form-urlencoded")),
    "plain text": deploy(GOOD_BODY, (b"content-type", b"text/plain")),
    "JSON in another character set": deploy(
        GOOD_BODY, (b"content-type", b"application/json; charset=utf-7")
    ),
    "two types": deploy(GOOD_BODY, JSON, (b"Content-Type", b"text/plain")),
    "compressed": deploy(GOOD_BODY, JSON, (b"content-encoding", b"gzip")),
    "two lengths": deploy(GOOD_BODY, JSON, (b"content-length", b"45"), (b"content-length", b"46")),
    "list of lengths": deploy(GOOD_BODY, JSON, (b"content-length", b"45, 45")),
    "signed length": deploy(GOOD_BODY, JSON, (b"content-length", b"+45")),
    "length and chunks": deploy(
        GOOD_BODY, JSON, (b"content-length", b"45"), (b"transfer-encoding", b"chunked")
    ),
    "unknown coding": deploy(GOOD_BODY, JSON, (b"transfer-encoding", b"identity, chunked")),
    "two hosts": deploy(GOOD_BODY, JSON, (b"host", b"a.example"), (b"Host", b"b.example")),
    "announced as too large": deploy(GOOD_BODY, JSON, (b"content-length", b"99999999")),
    "body where none is allowed": Wire("GET", "/system/functions", GOOD_BODY, ()),
    "announced body where none is allowed": Wire(
        "GET", "/system/functions", None, ((b"content-length", b"1"),)
    ),
    "chunks where no body is allowed": Wire(
        "GET", "/system/info", None, ((b"transfer-encoding", b"chunked"),)
    ),
    "function with two lengths": Wire(
        "POST", "/function/f.dev", None, ((b"content-length", b"1"), (b"content-length", b"2"))
    ),
    "function with length and chunks": Wire(
        "POST",
        "/function/f.dev",
        None,
        ((b"content-length", b"1"), (b"transfer-encoding", b"chunked")),
    ),
}

HOSTILE = {
    f"{what}: {name}": wire
    for what, wires in {
        "path": {name: Wire("GET", target) for name, target in PATHS.items()},
        "query": {name: Wire("GET", target) for name, target in QUERIES.items()},
        "body": BODIES,
        "disagreeing": DISAGREEING,
        "framing": FRAMING,
    }.items()
    for name, wire in wires.items()
}


@pytest.mark.parametrize("wire", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_request_is_refused_with_one_plain_sentence(wire: Wire) -> None:
    with pytest.raises(RequestRefused) as caught:
        wire.call()
    assert caught.value.status in {400, 403, 413}
    sentence = caught.value.public
    assert sentence.isascii()
    assert sentence.isprintable()
    assert len(sentence) < 200
    assert sentence.endswith(".")


def test_there_are_many_of_them() -> None:
    assert len(HOSTILE) >= 60


@pytest.mark.alone
@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b'{"a":[' + b"{}," * 3_000_000 + b"{}]}", id="empty objects"),
        pytest.param(b'{"a":' + b"[" * 10_000_000, id="open brackets"),
        pytest.param(b'{"a":"' + b'\\"' * 5_000_000, id="a string that never ends"),
        pytest.param(b'"\\' * 5_000_000, id="strings that begin again and again"),
        pytest.param(b'{"a":' + b"1" * 10_000_000 + b"}", id="one number"),
    ],
)
def test_the_largest_hostile_body_costs_little_time_and_memory(body: bytes) -> None:
    tracemalloc.start()
    began = time.process_time()
    try:
        with pytest.raises(RequestRefused):
            deploy(body).call()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert time.process_time() - began < 3
    assert peak < 10 * len(body)


def test_a_sentence_shows_nothing_that_could_harm_a_terminal_or_a_log() -> None:
    for body in ({"\x1b[31m": 1}, {'"><script>': 1}, {"a" * 500: 1}):
        with pytest.raises(RequestRefused) as caught:
            deploy(json.dumps({"service": "f", "image": "i", **body}).encode()).call()
        assert "cannot be shown" in caught.value.public


HONEST = {
    "framing": deploy(GOOD_BODY, JSON, (b"content-length", b"45"), (b"host", b"a.example")),
    "agreeing": Wire("POST", "/system/scale-function/f", {"replicas": 1, "serviceName": "f"}),
    "members": deployed('"labels":{"a":"1","A":"2"},"limits":{"memory":"1Mi","cpu":"1"}'),
    "a device": deployed('"limits":{"nvidia.com/gpu":"1"}'),
    "a pair": deployed('"envVars":{"A":"\\ud83d\\ude80"}'),
    "an encoded plus": Wire("GET", "/system/logs?name=f&since=2026-11-24T08:16:11%2B01:00"),
}


@pytest.mark.parametrize("wire", HONEST.values(), ids=HONEST.keys())
def test_an_honest_request_similar_to_a_hostile_one_is_accepted(wire: Wire) -> None:
    assert isinstance(wire.call(), Call)
