"""
`make bench`: measure the broker against its targets, in one run.

`python -m bench [--long] [--only PART]… [--json FILE]`. Rates differ from machine to machine, so
most figures are ratios of two rates from the same run.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from bench import against, deciding, exchanges, gateway, machine, memory, oauth2_proxy, starting, table, workers
from bench.servers import Place, cores
from bench.table import Found

RESULTS = Path("bench/results/latest.json")

PARTS: Mapping[str, Callable[[Place], Found]] = MappingProxyType(
    {
        "exchanges": exchanges.measured,
        "deciding": deciding.measured,
        "gateway": gateway.measured,
        "oauth2-proxy": oauth2_proxy.measured,
        "workers": workers.measured,
        "memory": memory.measured,
        "start": starting.measured,
    }
)


def main(words: Sequence[str] | None = None) -> None:
    """Measure, print the table, and write all of it as JSON."""
    given = arguments().parse_args(words)
    seen = machine.described()
    print("Python {python}, {machine}, {cores} cores, {busy_before} busy already".format(**seen))
    server_core, client_core = cores() or (None, None)
    print(
        "There is no second core to choose: servers and client share."
        if server_core is None
        else f"Servers have core {server_core}, the client has core {client_core}."
    )
    found = {}
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        place = Place(Path(folder), server_core, client_core, given.long)
        if given.against:
            against.measured(place, given.against.resolve(), given.rounds)
            return
        for name in given.only or PARTS:
            print(name, flush=True)
            began = time.monotonic()
            found[name] = PARTS[name](place)
            print(f"  {time.monotonic() - began:.0f} s", flush=True)
    print(f"\n{table.shown(found)}\n\nwritten to {given.json}")
    given.json.parent.mkdir(parents=True, exist_ok=True)
    given.json.write_text(
        json.dumps(table.document(found, seen), indent=2, ensure_ascii=False, allow_nan=False)
        + "\n",
        "utf-8",
    )


def arguments() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="Measures the broker against its targets."
    )
    parser.add_argument(
        "--long",
        action="store_true",
        help=f"measure memory after {memory.MANY_EXCHANGES:,} exchanges,"
        f" not after {memory.EXCHANGES:,}",
    )
    parser.add_argument(
        "--only", action="append", choices=list(PARTS), help="measure this part; repeatable"
    )
    parser.add_argument(
        "--json", type=Path, default=RESULTS, help="where the figures go (default: %(default)s)"
    )
    parser.add_argument(
        "--against",
        type=Path,
        metavar="TREE",
        help="compare the processor time of requests with that of the checkout TREE, and no more",
    )
    parser.add_argument(
        "--rounds", type=int, default=5, help="rounds of such a comparison (default: %(default)s)"
    )
    return parser


if __name__ == "__main__":
    main()
