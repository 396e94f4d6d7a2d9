"""
`python -m tests.mutants [--only policy/conditions] [--jobs 4]`: what `make mutants` runs.

It prints each mutant that no test noticed and a score for each module. It exits with 1 if the
score is below 96 % in total, or if `judged.toml` is out of date, and with 2 if the tests fail
without any change.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.mutants.modules import Module, modules
from tests.mutants.mutations import Mutant, mutants
from tests.mutants.runner import Outcome, TestsDoNotPass, run

LEAST = 96.0
JUDGED = Path(__file__).with_name("judged.toml")


@dataclass(frozen=True, slots=True)
class Judged:
    """A mutant that behaves as the original does, found again by its text and not its line."""

    module: str
    where: str
    original: str
    mutated: str
    reason: str

    def means(self, module: Module, mutant: Mutant) -> bool:
        return (self.module, self.where, self.original, self.mutated) == (
            module.name,
            mutant.where,
            mutant.original,
            mutant.mutated,
        )


@dataclass(frozen=True, slots=True)
class Score:
    """The figures of one module, or of several."""

    killed: int
    counted: int
    """The mutants that were not judged equivalent."""

    @property
    def percent(self) -> float:
        return 100 * self.killed / self.counted if self.counted else 100.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Test the mutants, print what was found, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants")
    parser.add_argument("--only", default="", help="modules whose names begin so")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    given = parser.parse_args(arguments)
    chosen = modules(given.only)
    if not chosen:
        parser.error(f"no module begins with {given.only!r}")
    return report(chosen, read_judged(JUDGED), given.jobs)


def report(chosen: Iterable[Module], judged: Sequence[Judged], jobs: int) -> int:
    """Test the mutants of the *chosen* modules, and return the exit status."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # ends the forks too
    scores: list[Score] = []
    stale: list[str] = []
    for module in chosen:
        about = [each for each in judged if each.module == module.name]
        try:
            score, problems = _test(module, about, jobs)
        except TestsDoNotPass as error:
            _say(str(error))
            return 2
        scores.append(score)
        stale += problems
    total = Score(sum(each.killed for each in scores), sum(each.counted for each in scores))
    _say(f"{total.percent:5.1f} %  of {total.counted} mutants in total")
    for problem in stale:
        _say(problem)
    return 1 if stale or total.percent < LEAST else 0


def read_judged(path: Path) -> list[Judged]:
    """The judged mutants in the file at *path*."""
    entries = tomllib.loads(path.read_text("utf-8")).get("equivalent", [])
    return [Judged(**entry) for entry in entries]


def _test(module: Module, judged: Sequence[Judged], jobs: int) -> tuple[Score, list[str]]:
    """
    Test one module, and print its score and each open survivor as it is found.

    Returns: the score, and what is wrong with the judgements about the module.
    """
    started = time.monotonic()
    every = mutants(module.path.read_text("utf-8"))
    survivors: list[Mutant] = []
    still_open = late = 0
    for done, result in enumerate(run(module, every, jobs), start=1):
        if result.outcome is Outcome.SURVIVED:
            survivors.append(result.mutant)
            if not any(each.means(module, result.mutant) for each in judged):
                still_open += 1
                _say(_described(module, result.mutant))
        late += result.outcome is Outcome.LATE
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{done} of {len(every)} \r")
    counted = len(every) - (len(survivors) - still_open)
    score = Score(len(every) - len(survivors), counted)
    took = time.monotonic() - started
    by_time = f", {late} noticed only by time" if late else ""
    _say(f"{score.percent:5.1f} %  {module.name}: {counted} mutants, {took:.0f} s{by_time}")
    return score, list(_stale(module, judged, every, survivors))


def _described(module: Module, mutant: Mutant) -> str:
    place = module.path.relative_to(module.root)
    within = f"  ({mutant.where})" if mutant.where else ""
    return f"  {place}:{mutant.line}{within}\n    - {mutant.original}\n    + {mutant.mutated}"


def _stale(
    module: Module, judged: Sequence[Judged], every: Sequence[Mutant], survivors: Sequence[Mutant]
) -> Iterable[str]:
    for each in judged:
        if any(each.means(module, mutant) for mutant in survivors):
            continue
        known = any(each.means(module, mutant) for mutant in every)
        why = "a test notices it now" if known else "there is no such mutant any more"
        yield f"judged.toml: {module.name}: {why}; remove it:\n    + {each.mutated}"


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201  a command's output


if __name__ == "__main__":
    sys.exit(main())
