"""The access that each request asks for, and the one form in which it is forwarded."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.documents.model import GATEWAY_ACTIONS
from federation.gateway.refusals import (
    Ambiguous,
    Malformed,
    NotMapped,
    RequestRefused,
    TooLarge,
)
from federation.gateway.routes import TABLE, Call, Kind, On, match
from federation.policy.permissions import Access
from tests.harness.gateway_request import Wire

# What the real faas-cli and its SDK were seen to send, and what the upstream must receive.
FIGLET = (
    b'{"service":"figlet","image":"registry.example.com/figlet:1","namespace":"dev",'
    b'"envVars":{"E":"F"},"secrets":["s1"],"labels":{"a":"b"},"annotations":{"c":"d"}}'
)
NEWFN = (
    b'{"service":"newfn","image":"registry.example.com/figlet:1","namespace":"dev",'
    b'"labels":{},"annotations":{}}'
)
YFN = (
    b'{"service":"yfn","image":"registry.example.com/yfn:0.1","namespace":"staging",'
    b'"envVars":{"A":"b"},"secrets":["s1"],"labels":{"x":"y"},"annotations":{"topic":"t"},'
    b'"limits":{"memory":"64Mi"},"requests":{"cpu":"10m"},"readOnlyRootFilesystem":true}'
)
NAMESPACE = (
    b'{"name":"dev2","annotations":{"c":"d","openfaas":"1"},"labels":{"a":"b","openfaas":"1"}}'
)

SEEN = [
    pytest.param(
        Wire("GET", "/system/functions?namespace=dev"),
        "Function:List dev:*",
        b"/system/functions?namespace=dev",
        None,
        id="list -n dev",
    ),
    pytest.param(
        Wire("GET", "/system/functions"),
        "Function:List openfaas-fn:*",
        b"/system/functions?namespace=openfaas-fn",
        None,
        id="list, and login",
    ),
    pytest.param(
        Wire("PUT", "/system/functions", FIGLET),
        "Function:Update dev:figlet",
        b"/system/functions",
        FIGLET,
        id="deploy -n dev",
    ),
    pytest.param(
        Wire("POST", "/system/functions", NEWFN),
        "Function:Create dev:newfn",
        b"/system/functions",
        NEWFN,
        id="deploy of a new function",
    ),
    pytest.param(
        Wire("PUT", "/system/functions", YFN),
        "Function:Update staging:yfn",
        b"/system/functions",
        YFN,
        id="deploy -f stack.yaml",
    ),
    pytest.param(
        Wire("DELETE", "/system/functions", b'{"functionName":"figlet"}'),
        "Function:Delete openfaas-fn:figlet",
        b"/system/functions?namespace=openfaas-fn",
        b'{"functionName":"figlet","namespace":"openfaas-fn"}',
        id="remove",
    ),
    pytest.param(
        Wire("DELETE", "/system/functions", b'{"functionName":"figlet","namespace":"dev"}'),
        "Function:Delete dev:figlet",
        b"/system/functions?namespace=dev",
        b'{"functionName":"figlet","namespace":"dev"}',
        id="remove -n dev",
    ),
    pytest.param(
        Wire("GET", "/system/function/figlet?namespace=dev&usage=1"),
        "Function:Get dev:figlet",
        b"/system/function/figlet?namespace=dev&usage=1",
        None,
        id="describe -n dev",
    ),
    pytest.param(
        Wire("GET", "/system/function/figlet?usage=1"),
        "Function:Get openfaas-fn:figlet",
        b"/system/function/figlet?namespace=openfaas-fn&usage=1",
        None,
        id="ready figlet",
    ),
    pytest.param(
        Wire(
            "GET",
            "/system/logs?follow=true&name=figlet&namespace=dev"
            "&since=2026-11-24T08%3A16%3A11Z&tail=3",
        ),
        "Function:Logs dev:figlet",
        b"/system/logs?follow=true&name=figlet&namespace=dev&since=2026-11-24T08%3A16%3A11Z&tail=3",
        None,
        id="logs --since 5m --lines 3",
    ),
    pytest.param(
        Wire("GET", "/system/logs?follow=1&name=figlet&tail=-1"),
        "Function:Logs openfaas-fn:figlet",
        b"/system/logs?follow=true&name=figlet&namespace=openfaas-fn&tail=-1",
        None,
        id="logs from the SDK",
    ),
    pytest.param(
        Wire(
            "POST",
            "/system/scale-function/figlet",
            b'{"serviceName":"figlet","replicas":2,"namespace":"dev"}',
        ),
        "Function:Scale dev:figlet",
        b"/system/scale-function/figlet?namespace=dev",
        b'{"serviceName":"figlet","replicas":2,"namespace":"dev"}',
        id="scale from the SDK",
    ),
    pytest.param(
        Wire("POST", "/system/scale-function/figlet?namespace=dev", b'{"replicas":0}'),
        "Function:Scale dev:figlet",
        b"/system/scale-function/figlet?namespace=dev",
        b'{"serviceName":"figlet","replicas":0,"namespace":"dev"}',
        id="scale, named in the path and placed in the query",
    ),
    pytest.param(
        Wire("GET", "/system/secrets?namespace=dev"),
        "Secret:List dev:*",
        b"/system/secrets?namespace=dev",
        None,
        id="secret list",
    ),
    pytest.param(
        Wire("POST", "/system/secrets", b'{"name":"s1","namespace":"dev","value":"v1"}'),
        "Secret:Create dev:*",
        b"/system/secrets",
        b'{"name":"s1","namespace":"dev","value":"v1"}',
        id="secret create",
    ),
    pytest.param(
        Wire("PUT", "/system/secrets", b'{"name":"s1","namespace":"dev","value":"v1"}'),
        "Secret:Update dev:*",
        b"/system/secrets",
        b'{"name":"s1","namespace":"dev","value":"v1"}',
        id="secret update",
    ),
    pytest.param(
        Wire("DELETE", "/system/secrets", b'{"name":"s1","namespace":"dev"}'),
        "Secret:Delete dev:*",
        b"/system/secrets?namespace=dev",
        b'{"name":"s1","namespace":"dev"}',
        id="secret remove",
    ),
    pytest.param(
        Wire(
            "POST",
            "/system/secrets",
            b'{"name":"s1","namespace":"dev","value":"abc","rawValue":"YWJjCg=="}',
        ),
        "Secret:Create dev:*",
        b"/system/secrets",
        b'{"name":"s1","namespace":"dev","value":"abc","rawValue":"YWJjCg=="}',
        id="secret apply",
    ),
    pytest.param(
        Wire("GET", "/system/namespaces"),
        "Namespace:List *",
        b"/system/namespaces",
        None,
        id="namespace list",
    ),
    pytest.param(
        Wire("GET", "/system/namespace/dev2"),
        "Namespace:Get dev2:*",
        b"/system/namespace/dev2",
        None,
        id="namespace get",
    ),
    pytest.param(
        Wire("POST", "/system/namespace/", NAMESPACE),
        "Namespace:Create dev2:*",
        b"/system/namespace/",
        NAMESPACE,
        id="namespace create",
    ),
    pytest.param(
        Wire("PUT", "/system/namespace/dev2", NAMESPACE),
        "Namespace:Update dev2:*",
        b"/system/namespace/dev2",
        NAMESPACE,
        id="namespace update",
    ),
    pytest.param(
        Wire("DELETE", "/system/namespace/dev2", b'{"name":"dev2","labels":{"openfaas":"1"}}'),
        "Namespace:Delete dev2:*",
        b"/system/namespace/dev2",
        b'{"name":"dev2","labels":{"openfaas":"1"}}',
        id="namespace remove",
    ),
    pytest.param(Wire("GET", "/system/info"), "System:Info *", b"/system/info", None, id="version"),
    pytest.param(Wire("GET", "/healthz"), "", b"/healthz", None, id="ready"),
    pytest.param(Wire("HEAD", "/healthz"), "", b"/healthz", None, id="ready, as a probe asks"),
    pytest.param(
        Wire("POST", "/function/figlet.dev"),
        "Function:Invoke dev:figlet",
        b"/function/figlet.dev",
        None,
        id="invoke -n dev",
    ),
    pytest.param(
        Wire("GET", "/function/figlet"),
        "Function:Invoke openfaas-fn:figlet",
        b"/function/figlet.openfaas-fn",
        None,
        id="a function without a namespace",
    ),
    pytest.param(
        Wire("PATCH", "/function/a.b.c/"),
        "Function:Invoke c:a.b",
        b"/function/a.b.c/",
        None,
        id="the namespace is after the last dot",
    ),
    pytest.param(
        Wire("PUT", '/function/figlet.dev/v1/caf%C3%A9/a;b=1?q="x"&q=%zz;r'),
        "Function:Invoke dev:figlet",
        b'/function/figlet.dev/v1/caf%C3%A9/a;b=1?q="x"&q=%zz;r',
        None,
        id="a function's own path and query",
    ),
    pytest.param(
        Wire("GET", "/function/figlet/100%25/.well-known/...?"),
        "Function:Invoke openfaas-fn:figlet",
        b"/function/figlet.openfaas-fn/100%25/.well-known/...",
        None,
        id="dots that are no dot segments",
    ),
    pytest.param(
        Wire("POST", "/async-function/figlet/x?y"),
        "Function:Invoke openfaas-fn:figlet",
        b"/async-function/figlet.openfaas-fn/x?y",
        None,
        id="invoke --async",
    ),
]


@pytest.mark.parametrize(("wire", "access", "target", "body"), SEEN)
def test_a_request_asks_for_one_access_and_is_forwarded_in_one_form(
    wire: Wire, access: str, target: bytes, body: bytes | None
) -> None:
    call = wire.any_call()
    asked = f"{call.access.action} {call.access.resource}" if isinstance(call, Call) else ""
    assert (asked, call.target, call.body) == (access, target, body)
    assert call.method == wire.method.replace("HEAD", "GET")


def test_every_route_of_the_table_was_seen() -> None:
    seen = set()
    for parameters in SEEN:
        wire = parameters.values[0]
        assert isinstance(wire, Wire)
        path, _, query = str(wire.target).encode("latin-1").partition(b"?")
        route = match(wire.method, path, query, wire.usual_headers()).route
        seen.add((route.method, route.path))
    any_method = {(r.method, r.path) for r in TABLE if r.kind is Kind.FUNCTION}
    assert {(r.method, r.path) for r in TABLE} - seen <= any_method


def test_every_action_has_a_route() -> None:
    assert {route.action for route in TABLE} - {None} == GATEWAY_ACTIONS


def test_only_health_asks_for_no_access() -> None:
    for route in TABLE:
        assert (route.action is None) == (route.on is On.NOTHING) == (route.kind is Kind.HEALTH)


@pytest.mark.parametrize(
    ("target", "kind"),
    [
        ("/system/functions", Kind.SYSTEM),
        ("/system/namespaces", Kind.NAMESPACES),
        ("/system/logs?name=f", Kind.LOGS),
        ("/healthz", Kind.HEALTH),
        ("/function/f", Kind.FUNCTION),
    ],
)
def test_a_call_has_the_kind_of_its_route(target: str, kind: Kind) -> None:
    assert Wire("GET", target).any_call().kind is kind
    assert kind.streams == (kind is Kind.FUNCTION)


def test_the_default_namespace_is_a_setting() -> None:
    call = Wire("DELETE", "/system/functions", {"functionName": "f"}).call(default_namespace="dev")
    assert call.access.namespace == "dev"
    assert call.target == b"/system/functions?namespace=dev"
    assert call.body == b'{"functionName":"f","namespace":"dev"}'


def deployment(**members: object) -> dict[str, object]:
    return {"service": "f", "image": "i", **members}


@pytest.mark.parametrize(
    "wire",
    [
        Wire("GET", "/system/functions?namespace="),
        Wire("POST", "/system/functions", deployment(namespace="")),
        Wire("POST", "/system/functions", deployment(namespace=None)),
        Wire("DELETE", "/system/functions?namespace=", {"functionName": "f", "namespace": ""}),
    ],
)
def test_an_empty_namespace_is_the_default_one(wire: Wire) -> None:
    access = wire.call().access
    assert access.namespace == "openfaas-fn"


def test_null_counts_as_absent_and_is_not_forwarded() -> None:
    call = Wire("PUT", "/system/functions", deployment(labels=None, secrets=None)).call()
    assert call.body == b'{"service":"f","image":"i","namespace":"openfaas-fn"}'


def test_a_body_is_forwarded_in_the_order_of_its_schema() -> None:
    members = {"namespace": "dev", "image": "i", "service": "f"}
    call = Wire("POST", "/system/functions", members).call()
    assert call.body == b'{"service":"f","image":"i","namespace":"dev"}'


def test_strings_of_a_body_are_kept_exactly() -> None:
    odd = {"A": 'quote " \\ \n \u2028 \U0001f680 </script>'}
    body = Wire("POST", "/system/functions", deployment(envVars=odd)).call().body
    again = Wire("POST", "/system/functions", body).call()
    assert again.body == body
    assert "\U0001f680".encode() in (body or b"")


@pytest.mark.parametrize(
    "wire",
    [
        Wire("POST", "/system/functions?namespace=dev", deployment(namespace="dev")),
        Wire("POST", "/system/functions?namespace=dev", deployment()),
        Wire("POST", "/system/functions", deployment(namespace="dev")),
    ],
)
def test_a_namespace_may_be_given_in_several_places_that_agree(wire: Wire) -> None:
    call = wire.call()
    assert call.access.resource == "dev:f"
    assert call.target == b"/system/functions"
    assert call.body == b'{"service":"f","image":"i","namespace":"dev"}'


def test_the_content_type_may_be_missing_as_in_one_sdk_and_may_name_utf_8() -> None:
    for headers in [(), ((b"Content-Type", b"Application/JSON; charset=utf-8"),)]:
        wire = Wire("DELETE", "/system/functions", {"functionName": "f"}, headers)
        assert wire.call().body


@pytest.mark.parametrize("written", ["1", "t", "T", "true", "TRUE", "True"])
def test_what_go_reads_as_true_is_sent_as_true(written: str) -> None:
    assert (
        Wire("GET", f"/system/logs?name=f&follow={written}")
        .call()
        .query.startswith(b"follow=true&")
    )


def test_a_secrets_value_is_not_in_the_repr() -> None:
    call = Wire("POST", "/system/secrets", {"name": "s", "value": "hidden"}).call()
    assert b"hidden" in (call.body or b"")
    assert "hidden" not in repr(call)


def test_the_largest_body_is_a_setting_and_one_byte_more_is_refused() -> None:
    wire = Wire("DELETE", "/system/functions", b'{"functionName":"figlet"}')
    assert wire.call(body_bytes=25).body
    with pytest.raises(TooLarge):
        wire.call(body_bytes=24)
    with pytest.raises(TooLarge):
        Wire(wire.method, wire.target, wire.body, ()).call(body_bytes=24)


def test_an_honest_body_of_ten_mebibytes_is_accepted() -> None:
    value = "v" * (10 * 1024 * 1024 - 100)
    call = Wire("POST", "/system/secrets", {"name": "s", "value": value}).call()
    assert len(call.body or b"") > len(value)


def refused(wire: Wire) -> RequestRefused:
    with pytest.raises(RequestRefused) as caught:
        wire.any_call()
    return caught.value


def test_a_body_of_ten_mebibytes_is_read_and_one_byte_more_is_not() -> None:
    empty = b'{"name":"s","value":""}'
    value = b"v" * (10 * 1024 * 1024 - len(empty))
    whole = empty.replace(b'""', b'"' + value + b'"')
    assert len(whole) == 10 * 1024 * 1024
    assert Wire("POST", "/system/secrets", whole).call().body
    for headers in (None, ()):  # with a length that says so, and without any
        refusal = refused(Wire("POST", "/system/secrets", whole + b" ", headers))
        assert isinstance(refusal, TooLarge)
        assert refusal.public == "The body is larger than 10485760 bytes."


@pytest.mark.parametrize("path", ["/function/f", "/system/functions"])
def test_a_query_has_at_most_16_kibibytes(path: str) -> None:
    query = "namespace=" + "d" * (16 * 1024 - 10)
    if path == "/function/f":
        assert Wire("GET", f"{path}?{query}").call().query == query.encode()
    else:
        assert not isinstance(refused(Wire("GET", f"{path}?{query}")), TooLarge)
    refusal = refused(Wire("GET", f"{path}?{query}x"))
    assert isinstance(refusal, TooLarge)
    assert refusal.public == "The query is longer than 16384 bytes."


@pytest.mark.parametrize(
    ("wire", "kind", "why"),
    [
        pytest.param(
            Wire("GET", "/system/functions", b"{}", ()), Malformed,
            "This call takes no body.", id="a body that no header announced",
        ),
        pytest.param(
            Wire("GET", "/system/logs?namespace=dev"), Malformed,
            "The request does not name what it is about.", id="logs of nothing",
        ),
        pytest.param(
            Wire("POST", "/system/secrets", {"value": "v"}), Malformed,
            "The request does not name what it is about.", id="a secret without a name",
        ),
        pytest.param(
            Wire("DELETE", "/system/functions", {"namespace": "dev"}), Malformed,
            "The request does not name what it is about.", id="a deletion of nothing",
        ),
        pytest.param(
            Wire("POST", "/system/namespace/", {"labels": {}}), Malformed,
            "The request does not name what it is about.", id="a namespace without a name",
        ),
        pytest.param(
            Wire("DELETE", "/system/functions?namespace=a", {"functionName": "f", "namespace": "b"}),
            Ambiguous, "The namespace is given in several places, and they differ.",
            id="two namespaces",
        ),
        pytest.param(
            Wire("POST", "/system/scale-function/f", {"serviceName": "g", "replicas": 1}),
            Ambiguous, "The name is given in several places, and they differ.", id="two names",
        ),
        pytest.param(
            Wire("PUT", "/system/namespace/dev", {"name": "prod"}), Ambiguous,
            "The namespace is given in several places, and they differ.",
            id="two names of a namespace",
        ),
        pytest.param(
            Wire("GET", "/function/f?a b"), Ambiguous,
            "The query holds characters that must be percent-encoded.", id="a space in a query",
        ),
        pytest.param(
            Wire("GET", "/function/f?a\x7f"), Ambiguous,
            "The query holds characters that must be percent-encoded.", id="DEL in a query",
        ),
        pytest.param(
            Wire("GET", "/function/f?a#b"), Ambiguous,
            "The query holds characters that must be percent-encoded.", id="a fragment",
        ),
        pytest.param(
            Wire("GET", "/system/nothing"), NotMapped,
            "This method and path are not offered here.", id="an unknown path",
        ),
        pytest.param(
            Wire("PURGE", "/function/f"), NotMapped,
            "This method and path are not offered here.", id="an unknown method of a function",
        ),
    ],
)  # fmt: skip
def test_a_refusal_says_what_is_wrong(wire: Wire, kind: type[RequestRefused], why: str) -> None:
    refusal = refused(wire)
    assert type(refusal) is kind
    assert refusal.public == why


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("/system/function/-f", "The name in the path"),
        ("/system/namespace/-d", "The name in the path"),
        ("/function/-f", "The function's name or namespace in the path"),
        ("/function/f.-d", "The function's name or namespace in the path"),
    ],
)
def test_a_refused_name_is_named_by_its_place(path: str, place: str) -> None:
    assert refused(Wire("GET", path)).public.startswith(place + " ")


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_a_function_is_called_with_any_of_these_methods(method: str) -> None:
    call = Wire(method, "/function/f.dev").call()
    assert (call.method, call.access) == (method, Access("Function:Invoke", "dev", "f"))


def test_the_logs_of_one_instance_may_be_asked_for() -> None:
    call = Wire("GET", "/system/logs?name=f&instance=f-1").call()
    assert call.query == b"instance=f-1&name=f&namespace=openfaas-fn"


@pytest.mark.parametrize("path", ["/system/info", "/system/namespaces"])
def test_a_call_about_the_cluster_asks_for_all_of_it(path: str) -> None:
    access = Wire("GET", path).call().access
    assert (access.namespace, access.name) == ("*", "*")


def test_the_health_check_is_one_fixed_request() -> None:
    call = Wire("HEAD", "/healthz").any_call()
    assert (call.method, call.path, call.query, call.target, call.body) == (
        *("GET", "/healthz", b"", b"/healthz", None),
    )
    assert isinstance(refused(Wire("GET", "/healthz?x=1")), Ambiguous)


NEVER = [
    ("GET", "/"),
    ("GET", "/ui/"),
    ("GET", "/ui/index.html"),
    ("GET", "/metrics"),
    ("POST", "/system/alert"),
    ("GET", "/system/telemetry"),
    ("DELETE", "/async-function/0f3e"),
    ("GET", "/async-function/figlet"),
    ("POST", "/healthz"),
    ("GET", "/health"),
    ("GET", "/system"),
    ("GET", "/system/"),
    ("GET", "/system/function"),
    ("GET", "/system/function/"),
    ("POST", "/system/scale-function/"),
    ("POST", "/system/namespace"),
    ("POST", "/system/namespace/dev"),
    ("GET", "/system/namespace/"),
    ("PATCH", "/system/functions"),
    ("HEAD", "/system/functions"),
    ("OPTIONS", "/system/functions"),
    ("POST", "/system/info"),
    ("PUT", "/system/function/figlet"),
    ("POST", "/build"),
    ("GET", "/function"),
    ("GET", "/function/"),
    ("TRACE", "/function/figlet"),
    ("CONNECT", "/function/figlet"),
    ("get", "/system/info"),
]


@pytest.mark.parametrize(("method", "path"), NEVER, ids=[" ".join(call) for call in NEVER])
def test_a_method_and_path_outside_the_table_are_refused(method: str, path: str) -> None:
    with pytest.raises(NotMapped) as caught:
        Wire(method, path).call()
    assert caught.value.status == 403


@pytest.mark.parametrize(
    ("refusal", "status"), [(NotMapped, 403), (Ambiguous, 403), (Malformed, 400), (TooLarge, 413)]
)
def test_a_refusal_has_its_status_and_says_its_sentence(
    refusal: type[RequestRefused], status: int
) -> None:
    assert refusal.status == status
    assert str(refusal("Do this.")) == refusal("Do this.").public == "Do this."


@given(
    method=st.sampled_from(sorted({route.method for route in TABLE})),
    path=st.one_of(
        st.text(alphabet="/.%25efcns;\\-_A", max_size=30).map(lambda t: "/" + t),
        st.builds(
            "{}{}{}".format,
            st.sampled_from([r.path.partition("{")[0] for r in TABLE]),
            st.text(alphabet="/.%2e5fcd;\\-_A", max_size=20),
            st.sampled_from(["", "/", "?namespace=dev", "?a=b"]),
        ),
    ),
    body=st.sampled_from([None, b"{}", b'{"name":"dev"}', b'{"functionName":"f"}']),
)
def test_a_forwarded_call_reads_as_the_same_call_again(
    method: str, path: str, body: bytes | None
) -> None:
    try:
        call = Wire(method, path, body).any_call()
    except RequestRefused:
        return
    again = Wire(call.method, call.target, call.body).any_call(default_namespace="another")
    assert again == call


def test_the_documented_table_is_the_table() -> None:
    documented = Path(__file__).parents[1].joinpath("docs", "gateway.md").read_text("utf-8")
    for route in TABLE:
        method = "any" if route.kind is Kind.FUNCTION else route.method
        action = f"`{route.action}`" if route.action else "none"
        lines = [
            line
            for line in documented.splitlines()
            if line.startswith(f"| {method} `{route.path}`")
        ]
        assert len(lines) == 1, f"{method} {route.path}"
        assert action in lines[0]
