"""The decision about a call: who gets a permit to forward it."""

from __future__ import annotations

import pytest

from federation.claims import Claims
from federation.documents.resources import Resource
from federation.gateway.authorize import (
    Anonymous,
    Caller,
    Granted,
    GrantedList,
    Public,
    TokenCaller,
    authorize,
)
from federation.gateway.refusals import Denied, NotAuthenticated
from federation.gateway.routes import TABLE, HealthCall, Kind
from federation.policy.index import PolicyNames, PolicySet
from federation.tokens.verify import Bearer, FunctionBearer
from tests.harness.builders import Document, policy
from tests.harness.gateway_request import Wire

LIST = Wire("GET", "/system/functions?namespace=dev").call()
NAMESPACES = Wire("GET", "/system/namespaces").call()
INVOKE = Wire("POST", "/function/figlet.dev").call()


def bearer(*statements: Document) -> TokenCaller:
    return caller(PolicySet([policy("p", *statements)]))


def caller(policies: PolicySet) -> TokenCaller:
    names = PolicyNames(("p",))
    held = Bearer(Claims({"sub": "fed:someone"}), names, ("deployer",), "ours", 0, 900)
    return TokenCaller(held, policies)


def allow(action: str, *resource: str, **more: object) -> Document:
    return {"action": [action], "resource": list(resource), **more}


def function_token(*permissions: str) -> FunctionBearer:
    opened = tuple(Resource(text) for text in permissions)
    return FunctionBearer(Claims({"sub": "fed:someone"}), opened, (), "ours", 0, 900, "")


def test_a_statement_that_allows_the_call_grants_it_and_is_named() -> None:
    permit = authorize(bearer(allow("Function:List", "dev:*", sid="look")), LIST)
    assert isinstance(permit, Granted)
    assert (permit.decision.policy, permit.decision.sid) == ("p", "look")


@pytest.mark.parametrize(
    ("caller", "sentence"),
    [
        pytest.param(
            bearer(allow("Function:Get", "dev:*")),
            "Function:List on dev:* is not allowed by this token's policies (p).",
            id="nothing allows it",
        ),
        pytest.param(
            bearer(allow("*", "*"), allow("Function:List", "*", effect="Deny", sid="no")),
            "Function:List on dev:* is denied by statement no of policy p.",
            id="a statement denies it",
        ),
        pytest.param(
            caller(PolicySet(missing=("p",))),
            "Function:List on dev:* is not allowed, because policy p of this token is not in force;"
            " a new token has the policies of now.",
            id="a policy is missing",
        ),
        pytest.param(
            function_token("dev:figlet"),
            "Function:List on dev:* is not what this function token is for.",
            id="a function token",
        ),
    ],
)
def test_a_denial_says_what_was_asked_and_why_not(caller: Caller, sentence: str) -> None:
    with pytest.raises(Denied) as denied:
        authorize(caller, LIST)
    assert denied.value.public == sentence
    assert not denied.value.decision.allowed


def test_only_the_list_of_namespaces_gets_a_permit_that_narrows_the_response() -> None:
    everything = bearer(allow("*", "*"))
    permit = authorize(everything, NAMESPACES)
    assert isinstance(permit, GrantedList)
    assert permit.caller is everything
    assert not isinstance(authorize(everything, LIST), GrantedList)


def test_a_function_token_invokes_its_function() -> None:
    assert isinstance(authorize(function_token("dev:figlet"), INVOKE), Granted)
    with pytest.raises(Denied):
        authorize(function_token("dev:other"), INVOKE)


def test_the_health_check_is_public_whoever_the_caller_is() -> None:
    for caller in (Anonymous(), bearer(), function_token()):
        assert authorize(caller, HealthCall()) == Public()


def test_without_a_token_a_function_is_public_and_the_api_never_is() -> None:
    assert authorize(Anonymous(), INVOKE) == Public()
    for call in (LIST, NAMESPACES):
        with pytest.raises(NotAuthenticated):
            authorize(Anonymous(), call)


def test_every_route_but_the_health_check_asks_for_an_access() -> None:
    for route in TABLE:
        assert (route.action is None) == (route.kind is Kind.HEALTH)
