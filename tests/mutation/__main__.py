"""Runs the tests of the core against mutants of it, to find mistakes that no test notices.

A mutant is the core with one small change that could be a mistake: another comparison, a constant
that is off by one, a forgotten statement (`mutants.py`). A mutant survives if all tests pass. Then
a test is missing, or the change makes no difference and `equivalents.toml` has the reason. The
check fails if a survivor has no entry there, or if an entry matches no survivor.

    python -m tests.mutation                                   # everything: about an hour
    python -m tests.mutation --files throttle.py rules/growth.py
    python -m tests.mutation --sample 100 --seed 7
    python -m tests.mutation --survivors                       # the survivors of earlier runs
    python -m tests.mutation --semantic                        # mistakes that were made by hand

With `--semantic`, only the mistakes of `semantic/` are made, and each must be noticed by the test
that its entry names. To compare suites, `--suites tests Hypothesis simulation` tries each mistake
with each of these suites instead, and prints how many each of them notices.

Each verdict is written to `build/mutation/`, which git ignores, as soon as it is known. An
interrupted run continues from there while the sources and the tests stay the same. `--survivors`
tries all earlier survivors again, even after changes, to see whether new tests kill them.
`build/mutation/survivors.toml` has the entries for the remaining ones, without reasons, and
`build/mutation/killers.json` the test that killed each of the others.

Why not one of the existing runners? Both are well maintained (Cosmic Ray 8.7.0 is of August 2026,
mutmut 3.8.1 of October 2026). mutmut changes only the bodies of functions without decorators: in
`demand.py`, the arithmetic of all scaling, it changes one function and none of the four
properties, and in `settings.py` none of the defaults. Cosmic Ray changes everything, but in the
working tree, one mutant at a time (or several in copies with a server each), with a new
interpreter for each, which costs as much as the quick tests. Neither runs the slow tests only for
mutants that survive the quick ones, nor has a list of equivalents outside the sources. So this
runner uses only the operators of Cosmic Ray; `trials.py` describes how it runs the tests.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import random
import signal
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from tests.mutation import by_hand
from tests.mutation.equivalents import as_toml, read_equivalents
from tests.mutation.mutants import Mutant, mutants_of
from tests.mutation.trials import (
    EXAMPLES,
    PROPERTIES,
    Outcome,
    Plan,
    Snapshot,
    Trials,
    Verdict,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Key = tuple[str, str, str, str]

ROOT = Path(__file__).parents[2]
EQUIVALENTS = Path(__file__).with_name("equivalents.toml")
RESULTS = ROOT / "build" / "mutation"
EXPLAINED = "explained"
COLUMNS = (
    f"killed by {EXAMPLES}",
    f"killed by {PROPERTIES}",
    Verdict.TIMED_OUT.value,
    Verdict.SURVIVED.value,
    EXPLAINED,
)


class VerdictFile:
    """The known outcomes, in a file to which each new one is added at once.

    Args:
        folder: the folder of the file.
        digest: the digest of all that the outcomes of this run depend on.

    Attributes:
        known: the outcomes with this digest, by the name of the mutant.
        newest: the newest outcome of each mutant with any digest.
    """

    def __init__(self, folder: Path, digest: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "outcomes.jsonl"
        self._digest = digest
        self.known: dict[str, Outcome] = {}
        self.newest: dict[str, Outcome] = {}
        if self._path.exists():
            # A killed run may have left an incomplete line.
            for line in self._path.read_text().splitlines():
                if line.endswith("]"):
                    digest_then, name, verdict, suite, killer = json.loads(line)
                    self.newest[name] = Outcome(Verdict(verdict), suite, killer)
                    if digest_then == digest:
                        self.known[name] = self.newest[name]

    def add(self, mutant: Mutant, outcome: Outcome) -> None:
        """Add an outcome."""
        self.known[mutant.name] = self.newest[mutant.name] = outcome
        with self._path.open("a") as file:
            file.write(f"\n{json.dumps([self._digest, mutant.name, *outcome])}")


def options() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation")
    parser.add_argument("--files", nargs="+", metavar="NAME", help="only these files of the core")
    parser.add_argument("--sample", type=int, metavar="N", help="only N mutants, drawn at random")
    parser.add_argument("--seed", type=int, default=0, help="seed of the sample; default 0")
    parser.add_argument("--survivors", action="store_true", help="only earlier survivors")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="parallel trials")
    parser.add_argument("--examples", type=int, default=100, help="of each property test")
    parser.add_argument("--semantic", action="store_true", help="mistakes that were made by hand")
    parser.add_argument(
        "--only", default="", metavar="TEXT", help="with --semantic: those with this in their name"
    )
    parser.add_argument(
        "--suites",
        nargs="+",
        choices=by_hand.SUITES,
        help="with --semantic: compare these suites",
    )
    parser.add_argument(
        "--hours", type=int, default=300, help="with --suites simulation: hours to simulate"
    )
    return parser.parse_args()


def choose_files(names: Sequence[str] | None, sources: Mapping[str, str]) -> list[str]:
    """Return the files with these names or paths; all files without names."""
    if names is None:
        return list(sources)
    found = {name: [file for file in sources if f"/{file}".endswith(f"/{name}")] for name in names}
    if missing := sorted(name for name in names if not found[name]):
        sys.exit(f"the core has no file {', '.join(missing)}")
    return [file for name in names for file in found[name]]


def choose(
    asked: argparse.Namespace, every: Sequence[Mutant], verdicts: VerdictFile
) -> list[Mutant]:
    """Return the mutants to try."""
    mutants = list(every)
    if asked.survivors:
        survived = Outcome(Verdict.SURVIVED)
        mutants = [m for m in mutants if verdicts.newest.get(m.name) == survived]
    if asked.sample is not None:
        chance = random.Random(asked.seed)  # noqa: S311 - no secret
        mutants = chance.sample(mutants, min(asked.sample, len(mutants)))
    return mutants


def attempt(mutants: Sequence[Mutant], plan: Plan, jobs: int, verdicts: VerdictFile) -> None:
    """Try the mutants without a verdict."""
    rest = [mutant for mutant in mutants if mutant.name not in verdicts.known]
    say(f"{len(mutants)} mutants, {len(mutants) - len(rest)} of them with a verdict already")
    if not rest:
        return
    stages = plan.stages()
    for stage in stages:
        say(f"at most {stage.limit_seconds} s of processor time for {stage.suite}")
    planned = ((mutant, stages) for mutant in rest)
    for count, (mutant, outcome) in enumerate(Trials(jobs).run(planned), start=1):
        verdicts.add(mutant, outcome)
        if outcome.verdict is not Verdict.KILLED or count % 50 == 0:
            say(f"{count}/{len(rest)}: {mutant.file}:{mutant.line} {outcome.verdict}")


def unused_entries(
    tried: Sequence[Mutant], every: Sequence[Mutant], files: Sequence[str], verdicts: VerdictFile
) -> list[Key]:
    """Return the entries of `equivalents.toml` that match no survivor."""
    exist = {mutant.key for mutant in every}
    dead = {mutant.key for mutant in tried}
    survived = Outcome(Verdict.SURVIVED)
    dead -= {mutant.key for mutant in tried if verdicts.known[mutant.name] == survived}
    explained = read_equivalents(EQUIVALENTS)
    return [one for one in explained if one[0] in files and (one in dead or one not in exist)]


def report(
    mutants: Sequence[Mutant], sources: Mapping[str, str], verdicts: VerdictFile
) -> list[Mutant]:
    """Print the outcomes of the mutants; return the survivors without an entry."""
    explained = read_equivalents(EQUIVALENTS)
    rows: dict[str, Counter[str]] = {}
    killers: dict[str, str] = {}
    unexplained: list[Mutant] = []
    for mutant in mutants:
        outcome = verdicts.known[mutant.name]
        column = str(outcome.verdict)
        if outcome.verdict is Verdict.KILLED:
            column = f"killed by {outcome.suite}"
            killers[f"{mutant.file}:{mutant.line}: {mutant.after}"] = outcome.killer
        elif outcome.verdict is Verdict.SURVIVED and mutant.key in explained:
            column = EXPLAINED
        elif outcome.verdict is Verdict.SURVIVED:
            unexplained.append(mutant)
            print(difference(mutant, sources[mutant.file]))
        for name in (mutant.file, "total"):
            rows.setdefault(name, Counter())[column] += 1
    total = rows.pop("total", Counter())
    for name, counts in [*sorted(rows.items()), ("total", total)]:
        numbers = ", ".join(f"{counts[column]} {column}" for column in COLUMNS)
        print(f"{name:24} {counts.total():5} mutants: {numbers}")
    (RESULTS / "survivors.toml").write_text("\n\n".join(map(as_toml, unexplained)) + "\n")
    (RESULTS / "killers.json").write_text(json.dumps(killers, indent=1))
    return unexplained


def difference(mutant: Mutant, source: str) -> str:
    """Return the change of a mutant as a readable diff."""
    names = mutant.file, f"survived, in {mutant.where or 'the module'}"
    texts = source.splitlines(), mutant.source.splitlines()
    return "\n".join((*difflib.unified_diff(*texts, *names, lineterm=""), ""))


def say(text: str) -> None:
    """Print progress to standard error."""
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    """Try mutants, report, and return the exit status."""
    asked = options()
    if os.environ.get("PYTHONHASHSEED") != "0":
        # The order of sets, and with it a verdict, must be the same in every run.
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, sys.orig_argv)  # noqa: S606 - this very program
    with tempfile.TemporaryDirectory(prefix="mutation-") as name:
        snapshot = Snapshot(ROOT, Path(name))
        try:
            if not asked.semantic:
                return run(asked, snapshot)
            status, text = by_hand.run(asked, snapshot)
            print(text)
            return status
        finally:
            os.chdir(ROOT)


def run(asked: argparse.Namespace, snapshot: Snapshot) -> int:
    """Try the mutants that were asked for, report, and return the exit status."""
    sources = snapshot.sources()
    files = choose_files(asked.files, sources)
    verdicts = VerdictFile(RESULTS, f"{snapshot.digest()}-{asked.examples}")
    every = [mutant for file in files for mutant in mutants_of(file, sources[file])]
    tried = choose(asked, every, verdicts)
    snapshot.enter()
    attempt(tried, Plan(snapshot, asked.examples), asked.jobs, verdicts)
    unexplained = report(tried, sources, verdicts)
    unused = unused_entries(tried, every, files, verdicts)
    for key in unused:
        print(f"this entry of equivalents.toml matches no survivor; delete it: {key}")
    return 1 if unexplained or unused else 0


def end(number: int, _frame: object) -> None:
    """Exit with all clean-up."""
    sys.exit(128 + number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, end)
    sys.exit(main())
