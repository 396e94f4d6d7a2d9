"""
`federation completion`: prints the script that completes commands and options in a shell.

The script asks this program for the words that fit, each time that the tab key is pressed.
"""

from __future__ import annotations

import click
from click.shell_completion import BashComplete, FishComplete, ShellComplete, ZshComplete

_VARIABLE = "_FEDERATION_COMPLETE"
"""The variable by which click is asked for completions of a program called federation."""


class _Bash(BashComplete):
    @staticmethod
    def _check_version() -> None:
        """Ask no bash for its version: the script may be printed where there is none."""


_SHELLS: dict[str, type[ShellComplete]] = {
    "bash": _Bash,
    "zsh": ZshComplete,
    "fish": FishComplete,
}


@click.command()
@click.argument("shell", type=click.Choice(list(_SHELLS)))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """
    Print the script that completes commands and options in SHELL.

    \b
    bash: federation completion bash >~/.local/share/bash-completion/completions/federation
    zsh:  federation completion zsh >"${fpath[1]}/_federation"
    fish: federation completion fish >~/.config/fish/completions/federation.fish

    Or for this shell alone: eval "$(federation completion bash)"
    """
    main = context.find_root().command
    click.echo(_SHELLS[shell](main, {}, "federation", _VARIABLE).source())
