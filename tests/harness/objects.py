"""Objects as a Kubernetes API server has them, and a namespace of them beside files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from federation.claims import Claims
from federation.documents.catalog import Catalog
from federation.documents.kubernetes.unite import (
    ApiObject,
    Key,
    Rulings,
    Standing,
    United,
    Verdict,
    read_object,
    unite,
)
from federation.errors import Refusal
from federation.policy.index import PolicySets
from federation.policy.permissions import Access, decide
from federation.policy.roles import admit
from federation.tokens.mint import access_claims
from tests.harness.builders import AUDIENCE, GITHUB, NOW

Raw = dict[str, Any]

OWNER = "13420041"
"""`repository_owner_id` of the sample job on GitHub."""


def raw(kind: str, name: str, spec: object, *, created: str = "2026-01-01T00:00:00Z") -> Raw:
    """An object with this *spec*, with what an API server adds to its metadata."""
    return {
        "apiVersion": "iam.openfaas.com/v1",
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": "openfaas",
            "uid": f"uid-of-{name}",
            "generation": 1,
            "resourceVersion": "7",
            "creationTimestamp": created,
            "managedFields": [{"manager": "kubectl", "fieldsV1": {"f:spec": {}}}],
        },
        "spec": spec,
        "status": {"observedGeneration": 1},
    }


def issuer(name: str = "github", iss: str = GITHUB, *, created: str = "", **spec: Any) -> Raw:
    """A JwtIssuer."""
    made = created or "2026-01-01T00:00:00Z"
    return raw("JwtIssuer", name, {"iss": iss, "aud": [AUDIENCE], **spec}, created=made)


def allow(action: str = "Function:Get", resource: str = "dev:*", **more: Any) -> Raw:
    """A statement that allows."""
    return {"sid": "s", "effect": "Allow", "action": [action], "resource": [resource], **more}


def deny(action: str = "*", resource: str = "*", **more: Any) -> Raw:
    """A statement that denies."""
    return {**allow(action, resource), "sid": "d", "effect": "Deny", **more}


def policy(name: str, *statements: object) -> Raw:
    """A Policy."""
    return raw("Policy", name, {"statement": list(statements)})


def role(name: str, *policies: str, iss: str | Sequence[str] = GITHUB, **spec: Any) -> Raw:
    """A Role for jobs of `OWNER`."""
    listed = [iss] if isinstance(iss, str) else list(iss)
    exact = {"jwt:iss": listed, "jwt:repository_owner_id": [OWNER]}
    return raw(
        "Role", name, {"policy": list(policies), "condition": {"StringEqual": exact}, **spec}
    )


class Namespace:
    """The objects of a namespace beside the documents of files, as one process follows them."""

    def __init__(self, *raws: Raw, files: Catalog | None = None, judge: Any = None) -> None:
        self.files = files or Catalog()
        self.raws: dict[Key, Raw] = {}
        self.united = United(Catalog())
        self._judge = judge or (lambda _issuer: ())
        self._read: dict[Key, tuple[Raw, ApiObject]] = {}
        self.apply(*raws)

    def apply(self, *raws: Raw) -> None:
        """Put *raws* in the place of those with their names."""
        self.raws |= {(each["kind"], each["metadata"]["name"]): each for each in raws}
        self.read()

    def delete(self, kind: str, name: str) -> None:
        """Delete an object."""
        del self.raws[kind, name]
        self.read()

    def read(self) -> None:
        """Unite what is there now, as the process does that has seen all before."""
        self.united = self._united(self.united)

    def restart(self) -> None:
        """Unite what is there now, as a process that has seen nothing."""
        self.united = self._united(United(Catalog()))

    def _united(self, before: United) -> United:
        # As a source does, so that what has not changed is the same object.
        known = self._read
        self._read = {
            key: known[key] if key in known and known[key][0] is made else (made, read_object(made))
            for key, made in self.raws.items()
        }
        objects = [obj for _, obj in self._read.values()]
        return unite(self.files, objects, before, judge_issuer=self._judge)

    def afresh(self, before: United) -> United:
        """What `read` would unite after *before*, without anything that is taken over."""
        return self._united(replace(before, rulings=Rulings()))

    @property
    def catalog(self) -> Catalog:
        return self.united.catalog

    def verdict(self, kind: str, name: str) -> Verdict:
        """The verdict on one object."""
        return self.united.verdicts[kind, name]

    def standing(self, kind: str, name: str) -> Standing:
        """The standing of one object."""
        return self.verdict(kind, name).standing

    def codes(self, kind: str, name: str) -> list[str]:
        """The codes of its problems."""
        return [problem.code for problem in self.verdict(kind, name).problems]

    def in_force(self, kind: str = "Role") -> list[str]:
        """The names of the Roles (or documents of another *kind*) that are in force."""
        found = {
            "Role": [role.name for role in self.catalog.roles],
            "Policy": list(self.catalog.policies),
            "JwtIssuer": [issuer.name for issuer in self.catalog.issuers.values()],
        }
        return sorted(found[kind])

    def answer(self, claims: Mapping[str, object], action: str, resource: str = "dev:fn") -> str:
        """The answer to a job with *claims*: `yes`, `no`, or the slug of its refusal."""
        subject = Claims(claims)
        known = self.catalog.issuers.get(str(claims["iss"]))
        if known is None:
            return "untrusted_issuer"
        try:
            admission = admit(self.catalog, known, subject)
        except Refusal as refusal:
            return refusal.reason.value
        minted = access_claims(subject, admission, issuer_url=AUDIENCE, now=NOW, jti="j")
        policies = PolicySets().of(self.catalog, admission.held)
        return "yes" if decide(policies, Access.parse(action, resource), minted).allowed else "no"
