"""The admission webhook's answer to a question, without a server."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from federation.admission.judgement import (
    Judgement,
    Neighbours,
    issuers_needed,
    judge,
    policies_needed,
)
from federation.admission.review import NotAReview, answered, out_of_place, read_review, refused
from federation.documents.kubernetes.api_objects import read_object
from federation.documents.model import JwtIssuer
from federation.documents.parse import Parsed
from tests.harness.admission import GITHUB, IDP, PINNED, document, issuer, policy, question, role
from tests.harness.process import ROOT


def parsed(raw: Mapping[str, Any]) -> Parsed:
    return read_object(raw).parsed


def in_force(*issuers: Mapping[str, Any]) -> dict[str, JwtIssuer]:
    found = [read_object(each).document for each in issuers]
    return {each.iss: each for each in found if isinstance(each, JwtIssuer)}


def judged(
    raw: Mapping[str, Any], *issuers: Mapping[str, Any], missing: tuple[str, ...] = ()
) -> tuple[list[str], list[str]]:
    """The codes of the errors and of the warnings."""
    judgement = judge(parsed(raw), Neighbours(in_force(*issuers), missing))
    return [p.code for p in judgement.errors], [p.code for p in judgement.warnings]


# What is the object's own


@pytest.mark.parametrize(
    ("spec", "code"),
    [
        pytest.param({"policy": []}, "D008", id="empty list"),
        pytest.param({"policy": ["a"], "conditions": {}}, "D005", id="unknown field"),
        pytest.param({"policy": ["a"]}, "D019", id="no conditions"),
        pytest.param(
            {"policy": ["a"], "condition": {"StringEqual": {"iss": ["x"]}}}, "D013", id="bad key"
        ),
        pytest.param(
            {"policy": ["a"], "condition": {"StringEqual": {"jwt:sub": ["x"]}}},
            "T001",
            id="no issuer is named",
        ),
        pytest.param(
            {"policy": ["a"], "condition": {"StringLike": {"jwt:iss": ["https://*"]}}},
            "T001",
            id="no issuer is named exactly",
        ),
    ],
)
def test_an_error_of_the_object_itself_is_refused(spec: Mapping[str, Any], code: str) -> None:
    errors, _ = judged(document("Role", "r", spec), issuer("github"))
    assert code in errors


def test_contradicting_issuers_are_an_error_whatever_may_come() -> None:
    spec = {
        "policy": ["a"],
        "principal": {"jwt:sub": ["x"]},
        "condition": {
            "StringEqual": {"jwt:iss": [GITHUB]},
            "StringEquals": {"jwt:iss": [IDP]},
        },
    }
    errors, _ = judged(document("Role", "r", spec))
    assert "T001" in errors


def test_a_role_that_pins_nobody_is_refused() -> None:
    assert judged(role("r", ref="refs/heads/main"), issuer("github"))[0] == ["T002"]


def test_a_good_role_passes_without_a_word() -> None:
    assert judged(role("r", **PINNED), issuer("github")) == ([], [])


def test_what_check_warns_about_is_a_warning() -> None:
    errors, warnings = judged(role("r", repository_owner_id="13420041"), issuer("github"))
    assert errors == []
    assert warnings == ["W102"]


def test_a_forgotten_provider_is_the_error_of_the_issuer() -> None:
    errors, _ = judged(issuer("ghes", iss="https://ghes.example/_services/token"))
    assert errors == ["D025"]


# What another object may cure


def test_a_missing_policy_is_a_warning() -> None:
    assert judged(role("r", **PINNED), issuer("github"), missing=("deploy",)) == ([], ["D011"])


def test_a_missing_issuer_is_a_warning() -> None:
    assert judged(role("r", iss=IDP, sub="somebody")) == ([], ["T001"])


def test_a_second_issuer_with_one_iss_is_a_warning() -> None:
    assert judged(issuer("new"), issuer("old")) == ([], ["D010"])


def test_an_issuer_is_not_compared_with_itself() -> None:
    assert judged(issuer("same"), issuer("same")) == ([], [])


def test_a_policy_that_comes_before_its_role_is_no_warning() -> None:
    assert judged(policy("deploy")) == ([], [])


# A Role that comes before its issuer


@pytest.mark.parametrize(
    ("pins", "code"),
    [
        ({"ref": "refs/heads/main"}, "T002"),
        ({"workflow": "deploy"}, "T002"),
    ],
)
def test_strangers_are_not_admitted_by_coming_first(pins: dict[str, str], code: str) -> None:
    errors, warnings = judged(role("r", **pins))
    assert code in errors
    assert warnings == ["T001"]


def test_a_wildcard_in_the_owner_is_refused_before_the_issuer_is_there() -> None:
    condition = {
        "StringEqual": {"jwt:iss": [GITHUB]},
        "StringLike": {"jwt:repository": ["octo*/repo"]},
    }
    errors, _ = judged(document("Role", "r", {"policy": ["a"], "condition": condition}))
    assert "T003" in errors


def test_a_role_of_two_issuers_of_which_one_is_to_come_is_judged_as_if_both_were_there() -> None:
    both = role("r", **PINNED)
    both["spec"]["condition"]["StringEqual"]["jwt:iss"] = [GITHUB, IDP]
    errors, _ = judged(both, issuer("idp", iss=IDP, provider="keycloak"))
    assert "T005" in errors


def test_no_rule_about_an_unknown_provider_is_guessed() -> None:
    gitlab = "https://gitlab.internal.example"
    assert judged(role("r", iss=gitlab, project_id="7", ref="main")) == ([], ["T001"])


# What is read for it


def test_only_roles_and_issuers_need_the_issuers() -> None:
    assert issuers_needed(parsed(role("r", **PINNED)))
    assert issuers_needed(parsed(issuer("github")))
    assert not issuers_needed(parsed(policy("deploy")))
    assert not issuers_needed(parsed(document("Role", "broken", {})))


def test_each_policy_is_looked_for_once() -> None:
    spec = role("r", **PINNED)["spec"] | {"policy": ["a", "b", "a"]}
    assert policies_needed(parsed(document("Role", "r", spec))) == ("a", "b")


# The question


def test_a_question_is_read() -> None:
    review = read_review(question(role("r", **PINNED)))
    assert (review.kind, review.name, review.label) == ("Role", "r", "Role/r")
    assert out_of_place(review, "openfaas") == ""


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"operation": "DELETE"}, "CREATE and UPDATE"),
        ({"subResource": "status"}, "not a JwtIssuer"),
        ({"resource": {"group": "", "version": "v1", "resource": "secrets"}}, "not a JwtIssuer"),
        (
            {"resource": {"group": "rbac.authorization.k8s.io", "resource": "roles"}},
            "not a JwtIssuer",
        ),
        ({"namespace": "elsewhere"}, "namespace"),
        ({"object": None}, "kind"),
        ({"object": policy("p")}, "kind"),
    ],
)
def test_what_is_none_of_ours_is_refused(changes: Mapping[str, Any], why: str) -> None:
    review = read_review(question(role("r", **PINNED), **changes))
    assert why in out_of_place(review, "openfaas")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"a": NaN}',
        b'{"kind": "AdmissionReview", "kind": "AdmissionReview"}',
        b"\xff\xfe",
        b'{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}',
        b'{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":[]}',
        b'{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":7}}',
        b'{"apiVersion":"admission.k8s.io/v1beta1","kind":"AdmissionReview","request":{"uid":"a"}}',
        b'{"a":' * 5000 + b"1" + b"}" * 5000,
        question(role("r", **PINNED), uid='"},"allowed":true'),
        question(role("r", **PINNED), uid="x" * 200),
        question(role("r", **PINNED), resource="roles"),
    ],
)
def test_what_is_no_question_is_refused_with_constant_words(body: bytes) -> None:
    with pytest.raises(NotAReview) as refusal:
        read_review(body)
    assert str(refusal.value).isascii()
    assert len(str(refusal.value)) < 60


# The answer


def answer(body: bytes) -> dict[str, Any]:
    envelope = json.loads(body)
    assert (envelope["apiVersion"], envelope["kind"]) == ("admission.k8s.io/v1", "AdmissionReview")
    response: dict[str, Any] = envelope["response"]
    return response


def test_a_refusal_says_the_code_the_place_and_what_to_write() -> None:
    judgement = judge(parsed(role("r", ref="refs/heads/main")), Neighbours(in_force(issuer("g"))))
    response = answer(answered("u", judgement))
    assert (response["uid"], response["allowed"]) == ("u", False)
    assert response["status"]["code"] == 422
    message = response["status"]["message"]
    assert message.startswith("T002 condition: anybody can get a token from")
    assert "; add " in message


def test_the_docs_show_the_refusal_as_it_is() -> None:
    judgement = judge(parsed(role("r", ref="refs/heads/main")), Neighbours(in_force(issuer("g"))))
    message = answer(answered("u", judgement))["status"]["message"]
    page = (ROOT / "docs" / "kubernetes.md").read_text("utf-8")
    assert message in " ".join(page.split())


def test_an_object_without_errors_is_allowed_with_its_warnings() -> None:
    judgement = judge(parsed(issuer("new")), Neighbours(in_force(issuer("old"))))
    response = answer(answered("u", judgement))
    assert response["allowed"] is True
    assert [each.partition(" ")[0] for each in response["warnings"]] == ["D010"]


def test_the_words_of_a_hostile_object_stay_on_one_line_and_within_bounds() -> None:
    evil = "x\r\nWarning: 299 - \x1b[31m\u202e" + "y" * 5000
    spec = {f"{evil}{number}": 1 for number in range(400)}
    response = answer(answered("u", judge(parsed(document("Role", "r", spec)), Neighbours({}))))
    message = response["status"]["message"]
    assert message.isprintable()
    assert len(message) <= 1500


def test_warnings_fit_into_what_api_servers_show() -> None:
    equal = {f"jwt:unheard_of_{number}": ["v" * 300] for number in range(50)}
    many = role("r", **PINNED)
    many["spec"]["condition"]["StringEqual"].update(equal)
    judgement = judge(parsed(many), Neighbours(in_force(issuer("github"))))
    assert len(judgement.warnings) > 10
    warnings = answer(answered("u", judgement))["warnings"]
    assert len(warnings) == 10
    assert all(each.isprintable() and len(each) <= 250 for each in warnings)


def test_an_object_that_could_not_be_judged_is_not_allowed() -> None:
    response = answer(refused("u", "try again", code=503))
    assert response == {
        "uid": "u",
        "allowed": False,
        "status": {"code": 503, "reason": "ServiceUnavailable", "message": "try again"},
    }
    assert answer(answered("u", Judgement()))["allowed"] is True
