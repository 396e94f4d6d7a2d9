"""
Commands to try by hand while the demo stays up: each block can be pasted into a shell.

They hold the request token of the demo's own issuer, which is good on this machine alone, and only as
long as the demo runs.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from federation.demo.stage import Stage

_URL, _SECRET = "ACTIONS_ID_TOKEN_REQUEST_URL", "ACTIONS_ID_TOKEN_REQUEST_TOKEN"
_IMAGE = "registry.example.com/figlet:1"


def commands_to_try(stage: Stage, program: str) -> Iterator[tuple[str, list[str]]]:
    """Yield titles, each with its lines of shell. *program* is how `federation` is called."""
    broker = stage.broker_url
    exchange = f"{program} exchange --url {broker}"
    admitted = stage.issuer.environment("github", "main")
    refused = stage.issuer.environment("github", "feature")
    yield (
        "A GitHub job on octo-org/octo-repo, branch main: it gets a token",
        [
            *(f"export {name}={shlex.quote(value)}" for name, value in admitted.items()),
            f"{exchange} --verbose",
        ],
    )
    yield (
        "The same repository, branch feature/login: it is refused, and told why",
        [f"{_URL}={shlex.quote(refused[_URL])} {exchange}"],
    )
    url = f"{stage.issuer.iss('gitlab')}/token?job=main&audience={broker}"
    token = (
        f'curl -s --noproxy "*" -H "Authorization: bearer ${_SECRET}" -H "Accept: text/plain"'
        f" {shlex.quote(url)}"
    )
    yield (
        "A GitLab job on octo-group/app, branch main: GitLab puts the token into a variable",
        [f'FEDERATION_ID_TOKEN="$({token})" {exchange} --from gitlab'],
    )
    yield (
        "What the first job's token says, and the Role that fits it",
        [f"{program} claims --url {broker} | {program} role from-token --policy dev-deploy -"],
    )
    yield (
        "The documents, and what the broker has recorded",
        [
            f"{program} check --strict {shlex.quote(str(stage.documents))}",
            f"{program} audit tail --state {shlex.quote(str(stage.state))}",
        ],
    )
    deploy = f"faas-cli deploy --name figlet --image {_IMAGE} --namespace"
    yield (
        "faas-cli, signed in as the first job, with a configuration of its own",
        [
            f'export OPENFAAS_CONFIG="$(mktemp -d)" OPENFAAS_URL={broker}',
            f"{exchange} --faas-cli",
            f"{deploy} dev",
            "faas-cli list --namespace dev",
            f"{deploy} staging   # its policies do not allow this",
        ],
    )
