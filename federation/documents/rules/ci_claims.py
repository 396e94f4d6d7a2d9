"""
Which claims the tokens of the two CI systems have, as data for the rules that ask.

GitHub also sends `repo_property_*` claims that an administrator names, so a key that stands in
no table here is never called wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from federation.documents.rules.role_facts import keys
from federation.providers.table import Provider

__all__ = ["FOREIGN", "LISTS", "SCALARS", "STARLESS"]

_OF_GITHUB = keys(
    "repository",
    "repository_id",
    "repository_owner",
    "repository_owner_id",
    "repository_visibility",
    "base_ref",
    "head_ref",
    "event_name",
    "workflow",
    "workflow_ref",
    "workflow_sha",
    "job_workflow_ref",
    "job_workflow_sha",
    "actor",
    "actor_id",
    "run_id",
    "run_number",
    "run_attempt",
    "check_run_id",
    "enterprise",
    "enterprise_id",
    "environment_node_id",
)
_OF_GITLAB = keys(
    "project_id",
    "project_path",
    "namespace_id",
    "namespace_path",
    "job_project_id",
    "job_project_path",
    "job_namespace_id",
    "job_namespace_path",
    "user_id",
    "user_login",
    "user_email",
    "user_access_level",
    "pipeline_id",
    "pipeline_source",
    "job_id",
    "ref_path",
    "environment_protected",
    "environment_action",
    "deployment_tier",
    "runner_id",
    "ci_config_ref_uri",
    "ci_config_sha",
    "project_visibility",
)
LISTS = keys("groups_direct", "user_identities")
_OF_BOTH = keys(
    "iss", "sub", "ref", "ref_type", "ref_protected", "environment", "runner_environment", "sha"
)
SCALARS = _OF_GITHUB | _OF_GITLAB | _OF_BOTH
FOREIGN: Mapping[Provider, frozenset[str]] = MappingProxyType(
    {
        Provider.GITHUB: _OF_GITLAB | LISTS,
        Provider.GITLAB: _OF_GITHUB,
        Provider.GENERIC: frozenset(),
    }
)
STARLESS = keys(
    "iss",
    "sub",
    "repository",
    "repository_id",
    "repository_owner",
    "repository_owner_id",
    "project_path",
    "project_id",
    "namespace_path",
    "namespace_id",
    "job_project_path",
    "job_project_id",
    "job_namespace_path",
    "job_namespace_id",
    "ref",
    "ref_path",
    "ref_type",
    "base_ref",
    "head_ref",
    "event_name",
    "pipeline_source",
    "actor",
    "user_login",
    "sha",
)
"""Claims of CI tokens that no platform lets hold a `*`."""
