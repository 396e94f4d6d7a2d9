"""
The AdmissionReview v1 of the Kubernetes API: the question as a value, the answer as JSON.

Any client that reaches the port can send anything, so a body is read strictly. A body that is no
question about our objects gets an error with a constant text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from federation.admission.judgement import Judgement
from federation.documents.schema import GROUP, PLURALS
from federation.errors import Problem
from federation.jose.strict_json import dumps, loads_object
from federation.text import counted, printable

_KINDS = {plural: kind for kind, plural in PLURALS.items()}
_ENVELOPE = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"}
_UID = re.compile(r"[-A-Za-z0-9]{1,128}")
_LISTED = 5
_MESSAGE_CHARS = 1500
_WARNINGS = 10
_WARNING_CHARS = 250
"""The API server cuts warnings that are longer than 256 characters together."""


class NotAReview(ValueError):
    """A body that is no AdmissionReview. The text is constant."""


@dataclass(frozen=True, slots=True)
class Review:
    """A question: may this object be kept?"""

    uid: str
    """Names the question. The answer repeats it."""
    kind: str
    """The kind of the object, empty if it is none of ours."""
    name: str
    namespace: str
    operation: str
    document: Mapping[str, object] = field(repr=False)
    """The object as it would be kept."""

    @property
    def label(self) -> str:
        """The kind and the name, printable."""
        return printable(f"{self.kind}/{self.name}", 300)


def read_review(body: bytes) -> Review:
    """Return the question in *body*. Raises: NotAReview."""
    try:
        envelope = loads_object(body)
    except ValueError:
        raise NotAReview("the body is not one strict JSON object") from None
    if any(envelope.get(key) != value for key, value in _ENVELOPE.items()):
        raise NotAReview("the body is not an AdmissionReview of admission.k8s.io/v1")
    request = _map(envelope, "request")
    uid = request.get("uid")
    if not isinstance(uid, str) or not _UID.fullmatch(uid):
        raise NotAReview("the request has no usable uid")
    found = request.get("object")
    return Review(
        uid=uid,
        kind=_kind(request),
        name=_text(request, "name"),
        namespace=_text(request, "namespace"),
        operation=_text(request, "operation"),
        document=found if isinstance(found, dict) else {},
    )


def out_of_place(review: Review, namespace: str) -> str:
    """Return why *review* is none to judge in *namespace*, empty if it is one."""
    if not review.kind:
        return "it is not a JwtIssuer, Policy or Role of iam.openfaas.com"
    if review.operation not in {"CREATE", "UPDATE"}:
        return "only CREATE and UPDATE are judged"
    if review.namespace != namespace:
        return "it is in a namespace that this broker does not read"
    if review.document.get("kind") != review.kind:
        return "its kind is not the one of the resource"
    return ""


def refused(uid: str, message: str, *, code: int = 403) -> bytes:
    """Return the answer that refuses the object for a reason that is not the object's."""
    reason = "ServiceUnavailable" if code == 503 else "Forbidden"
    status = {"code": code, "reason": reason, "message": message}
    return _answer({"uid": uid, "allowed": False, "status": status})


def answered(uid: str, judgement: Judgement) -> bytes:
    """Return the answer that says what *judgement* says."""
    response: dict[str, object] = {"uid": uid, "allowed": not judgement.errors}
    if judgement.errors:
        message = _listed(judgement.errors)
        response["status"] = {"code": 422, "reason": "Invalid", "message": message}
    if judgement.warnings:
        response["warnings"] = [
            printable(_told(problem), _WARNING_CHARS) for problem in judgement.warnings[:_WARNINGS]
        ]
    return _answer(response)


def _answer(response: Mapping[str, object]) -> bytes:
    return dumps({**_ENVELOPE, "response": response})


def _listed(problems: Iterable[Problem]) -> str:
    told = [_told(problem) for problem in problems]
    more = len(told) - _LISTED
    ending = [f"and {counted(more, 'more error')}"] if more > 0 else []
    return printable(" | ".join([*told[:_LISTED], *ending]), _MESSAGE_CHARS)


def _told(problem: Problem) -> str:
    place = f" {problem.field}:" if problem.field else ""
    hint = f"; {problem.hint}" if problem.hint else ""
    return printable(f"{problem.code}{place} {problem.message}{hint}")


def _kind(request: Mapping[str, object]) -> str:
    resource = _map(request, "resource")
    if _text(request, "subResource") or _text(resource, "group") != GROUP:
        return ""
    return _KINDS.get(_text(resource, "resource"), "")


def _map(value: Mapping[str, object], key: str) -> Mapping[str, object]:
    found = value.get(key)
    if not isinstance(found, dict):
        raise NotAReview("the AdmissionReview lacks a part")
    return found


def _text(value: Mapping[str, object], key: str) -> str:
    found = value.get(key)
    return found if isinstance(found, str) else ""
