"""
`make bench`: measure the broker against its targets, in one run.

`python -m bench [--long] [--only PART]… [--json FILE]`. Rates differ from machine to machine, so
most figures are ratios from the same run. `python -m bench --against TREE [--rounds N]` compares
this checkout with another one, and nothing else.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from bench import (
    against,
    claims,
    deciding,
    exchanges,
    gateway,
    large,
    machine,
    memory,
    oauth2_proxy,
    reloading,
    starting,
    table,
    workers,
)
from bench.servers import Place, compile_code, cores
from bench.table import Found

RESULTS = Path("bench/results/latest.json")

PARTS: Mapping[str, Callable[[Place], Found]] = MappingProxyType(
    {
        "exchanges": exchanges.measured,
        "claims": claims.measured,
        "reloading": reloading.measured,
        "deciding": deciding.measured,
        "gateway": gateway.measured,
        "oauth2-proxy": oauth2_proxy.measured,
        "workers": workers.measured,
        "memory": memory.measured,
        "start": starting.measured,
        "large": large.measured,
    }
)


def main(words: Sequence[str] | None = None) -> None:
    """Measure, print the table, and write all of it as JSON."""
    given = arguments().parse_args(words)
    seen = machine.described()
    print(machine.python_line())
    print("{machine}, {cores} cores, {busy_before} busy already".format(**seen))
    server_core, client_core = cores() or (None, None)
    print(
        "There is no second core to choose: servers and client share."
        if server_core is None
        else f"Servers have core {server_core}, the client has core {client_core}."
    )
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        place = Place(Path(folder), server_core, client_core, given.long)
        compile_code(place.folder)
        if given.against:
            against.measured(place, given.against, given.rounds)
            return
        found = _measured(place, given.only or PARTS)
    print(f"\n{table.shown(found, machine.python_line())}\n\nwritten to {given.json}")
    given.json.parent.mkdir(parents=True, exist_ok=True)
    given.json.write_text(
        json.dumps(table.document(found, seen), indent=2, ensure_ascii=False, allow_nan=False)
        + "\n",
        "utf-8",
    )


def _measured(place: Place, parts: Iterable[str]) -> dict[str, Found]:
    found = {}
    for name in parts:
        print(name, flush=True)
        began = time.monotonic()
        found[name] = PARTS[name](place)
        print(f"  {time.monotonic() - began:.0f} s", flush=True)
    return found


def _checkout(text: str) -> Path:
    tree = Path(text).resolve()
    if not (tree / "federation" / "__main__.py").is_file():
        raise argparse.ArgumentTypeError(f"{text} is no checkout of this project")
    return tree


def arguments() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="Measures the broker against its targets."
    )
    parser.add_argument(
        "--long",
        action="store_true",
        help=f"measure memory after {memory.MANY_EXCHANGES:,} exchanges,"
        f" not after {memory.EXCHANGES:,}, and {large.DOCUMENTS:,} documents",
    )
    parser.add_argument(
        "--only", action="append", choices=list(PARTS), help="measure this part; repeatable"
    )
    parser.add_argument(
        "--json", type=Path, default=RESULTS, help="where the figures go (default: %(default)s)"
    )
    parser.add_argument(
        "--against",
        type=_checkout,
        metavar="TREE",
        help="compare the processor time of requests with that of the checkout TREE, and no more",
    )
    parser.add_argument(
        "--rounds", type=int, default=5, help="rounds of such a comparison (default: %(default)s)"
    )
    return parser


if __name__ == "__main__":
    main()
