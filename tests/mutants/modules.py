"""The modules whose mutants are tested, and the fast tests that must notice each mutant."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

WHOLE_ROOMS = ("policy", "jose", "providers")
"""The rooms in which every module has a line below, except `DECIDE_NOTHING`."""
DECIDE_NOTHING = ("providers/page",)
"""The modules of those rooms that only write text, which a test compares as a whole."""

_ROAD = ("test_verify", "advisories/test_subject_tokens", "test_pyjwt_agrees")
_LINT = ("test_rules", "test_owners", "advisories/test_open_roles")

TESTS: dict[str, tuple[str, ...]] = {
    "policy/conditions": ("test_conditions", "test_permissions", "test_claims", "test_roles"),
    "policy/explain": ("test_explain",),
    "policy/possible": ("test_who_can",),
    "policy/reaching": ("test_who_can",),
    "policy/replay": ("test_replay",),
    "policy/role_for": ("test_role_for",),
    "policy/rule_coverage": ("test_rule_tests", "test_examples"),
    "policy/rule_tests": ("test_rule_tests", "test_examples"),
    "policy/who_can": ("test_who_can",),
    "policy/index": ("test_policy_index", "test_permissions", "test_catalog"),
    "policy/permissions": ("test_permissions", "test_roles", "test_rules"),
    "policy/roles": ("test_roles", "test_explain", "test_refusals"),
    "jose/jws": ("test_jws", "test_pyjwt_agrees"),
    "jose/mistakes": ("test_jws",),
    "jose/jwk": ("test_jwk", "test_key_ring", "test_pyjwt_agrees"),
    "jose/strict_json": ("test_jws", "test_tokens"),
    "tokens/mint": ("test_tokens", "advisories/test_minted_tokens", "advisories/test_revocation"),
    "tokens/verify": (
        *("test_tokens", "advisories/test_revocation", "test_gateway_authorize"),
        *("advisories/test_taking", "advisories/test_sign_on_tokens"),
    ),
    "issuers/verify": ("test_verify", "advisories/test_sign_on_tokens", *_ROAD[1:]),
    "providers/*": (
        *("test_providers_page", "test_provider_values", "test_providers", "test_owners"),
        *("test_roles", *_ROAD, "test_rules", "advisories/test_open_roles"),
    ),
    "documents/plain_roles": ("test_plain_roles", "test_documents_pieces"),
    "documents/catalog": ("test_catalog", "test_roles"),
    "documents/rules/owners": ("test_owners", "test_roles", *_LINT),
    "documents/rules/role_facts": ("test_role_facts", *_LINT),
    "documents/resources": (
        *("test_variables_in_resources", "test_permissions", "advisories/test_policy_variables"),
        *("test_policy_index", "advisories/test_names_in_another_case"),
    ),
    "documents/rules/variables": ("test_variables_in_resources",),
    "documents/rules/trust": (*_LINT, "advisories/test_open_issuers"),
    "gateway/routes": ("test_gateway_routes", "advisories/test_hostile_requests"),
    "gateway/request_lines": ("test_request_lines",),
    "gateway/connection": (
        *("test_gateway_client", "advisories/test_hostile_answers"),
        *("advisories/test_upstream_that_fails", "test_gateway_upstreams"),
    ),
    "gateway/function_headers": ("test_function_headers",),
    "gateway/headers": ("test_gateway_headers", "advisories/test_hostile_requests"),
}
"""By module, the test files in the order in which they run. A name may end in `*`."""


@dataclass(frozen=True, slots=True)
class Module:
    """A module to mutate, and the files of the tests that must notice."""

    name: str
    """Its path below `federation`, without `.py`."""
    tests: tuple[str, ...]
    root: Path = ROOT
    package: str = "federation"

    @property
    def path(self) -> Path:
        return self.root / self.package / f"{self.name}.py"

    @property
    def dotted(self) -> str:
        """The name by which programs import it."""
        return f"{self.package}.{self.name.replace('/', '.')}"

    @property
    def test_paths(self) -> list[str]:
        return [str(self.root / "tests" / f"{test}.py") for test in self.tests]


def modules(only: str = "") -> list[Module]:
    """The modules whose names begin with *only*."""
    return [
        Module(name, tests)
        for pattern, tests in TESTS.items()
        for name in _named(pattern)
        if name.startswith(only) and name not in DECIDE_NOTHING
    ]


def _named(pattern: str) -> list[str]:
    base = ROOT / "federation"
    paths = sorted(base.glob(f"{pattern}.py"))
    return [
        path.relative_to(base).with_suffix("").as_posix()
        for path in paths
        if path.name != "__init__.py"
    ]
