"""Whether the tests of the core notice its mistakes: they are run against mutants of it.

A mutant is the core with one small change that could be a mistake: another
comparison, a constant that is one off, a forgotten statement (`mutants.py`). One
that no test notices has survived: either a test is missing, or the change makes
no difference, and then `equivalents.toml` says why. It fails if a survivor is not
explained, or if an explanation fits no survivor.

    python -m tests.mutation                                   # everything: about an hour
    python -m tests.mutation --files throttle.py demand.py
    python -m tests.mutation --sample 100 --seed 7
    python -m tests.mutation --survivors                       # those of the runs before, again

Verdicts are noted in `build/mutation/`, which git ignores, as soon as they are
known. A run that was ended goes on where it was, as long as neither the sources
nor the tests have changed. `--survivors` takes what survived whatever has changed
since, to see whether new tests kill it; `build/mutation/survivors.toml` has the
entries for the rest, without their reasons.

Why there is a runner of our own around Cosmic Ray's operators. Both tools are well
kept (Cosmic Ray 8.7.0 is of August 2026, mutmut 3.8.1 of October 2026). mutmut
changes only what is inside of functions without decorators: of `demand.py`, the
arithmetic of all scaling, it changes one function and none of the four properties,
and in `settings.py` none of the defaults. Cosmic Ray changes everything, but in the
working tree, one mutant at a time (or several in copies that are servers), and with a
new interpreter for each, which costs as much as the quick tests do. Neither gives
the slow tests only to those that the quick ones let live, nor knows a list of
equivalents outside of the sources. `trials.py` says how it is done here.
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

from tests.mutation.equivalents import as_toml, read_equivalents
from tests.mutation.mutants import Mutant, mutants_of
from tests.mutation.trials import Plan, Snapshot, Trials, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Looks = tuple[str, str, str, str]

ROOT = Path(__file__).parents[2]
EQUIVALENTS = Path(__file__).with_name("equivalents.toml")
RESULTS = ROOT / "build" / "mutation"


class Notes:
    """The verdicts that are known, in a file to which each is added at once.

    Args:
        folder: where the file is.
        digest: of what the verdicts of this run depend on.
    """

    def __init__(self, folder: Path, digest: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "verdicts.jsonl"
        self._digest = digest
        self.known: dict[str, Verdict] = {}
        self.newest: dict[str, Verdict] = {}
        if self._path.exists():
            # A run that was killed may have left half a line.
            for line in self._path.read_text().splitlines():
                if line.endswith("]"):
                    digest_then, name, verdict = json.loads(line)
                    self.newest[name] = Verdict(verdict)
                    if digest_then == digest:
                        self.known[name] = Verdict(verdict)

    def add(self, mutant: Mutant, verdict: Verdict) -> None:
        """Note a verdict."""
        self.known[mutant.name] = self.newest[mutant.name] = verdict
        with self._path.open("a") as file:
            file.write(f"\n{json.dumps([self._digest, mutant.name, verdict])}")


def options() -> argparse.Namespace:
    """Return what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation")
    parser.add_argument("--files", nargs="+", metavar="NAME", help="only these files of the core")
    parser.add_argument("--sample", type=int, metavar="N", help="only so many, taken at random")
    parser.add_argument("--seed", type=int, default=0, help="of the sample; default 0")
    parser.add_argument("--survivors", action="store_true", help="only those that survived before")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="trials at once")
    parser.add_argument("--examples", type=int, default=100, help="of each quick property")
    parser.add_argument("--machine-examples", type=int, default=100, help="of the state machine")
    return parser.parse_args()


def chosen(asked: argparse.Namespace, every: Sequence[Mutant], notes: Notes) -> list[Mutant]:
    """Return those of the mutants that are to be tried."""
    mutants = list(every)
    if asked.survivors:
        mutants = [m for m in mutants if notes.newest.get(m.name) is Verdict.SURVIVED]
    if asked.sample is not None:
        chance = random.Random(asked.seed)  # noqa: S311 - no secret
        mutants = chance.sample(mutants, min(asked.sample, len(mutants)))
    return mutants


def attempt(mutants: Sequence[Mutant], plan: Plan, jobs: int, notes: Notes) -> None:
    """Try the mutants whose verdict is not known."""
    rest = [mutant for mutant in mutants if mutant.name not in notes.known]
    say(f"{len(mutants)} mutants, {len(mutants) - len(rest)} of them have their verdict already")
    if not rest:
        return
    stages = plan.stages()
    for stage in stages:
        say(f"at most {stage.limit_seconds} s of the processor for {' '.join(stage.files)}")
    for count, (mutant, verdict) in enumerate(Trials(stages, jobs).run(rest), start=1):
        notes.add(mutant, verdict)
        if verdict is not Verdict.KILLED or count % 50 == 0:
            say(f"{count}/{len(rest)}: {mutant.file}:{mutant.line} {verdict}")


def needless(
    tried: Sequence[Mutant], every: Sequence[Mutant], files: Sequence[str], notes: Notes
) -> list[Looks]:
    """Return what is explained although it is no mutant, or none that survives."""
    exist = {mutant.looks for mutant in every}
    dead = {mutant.looks for mutant in tried}
    dead -= {mutant.looks for mutant in tried if notes.known[mutant.name] is Verdict.SURVIVED}
    explained = read_equivalents(EQUIVALENTS)
    return [one for one in explained if one[0] in files and (one in dead or one not in exist)]


def report(mutants: Sequence[Mutant], sources: Mapping[str, str], notes: Notes) -> list[Mutant]:
    """Print what became of the mutants; return the survivors that nobody has explained."""
    explained = read_equivalents(EQUIVALENTS)
    rows: dict[str, Counter[str]] = {}
    unexplained: list[Mutant] = []
    for mutant in mutants:
        verdict: str = notes.known[mutant.name]
        if verdict == Verdict.SURVIVED and mutant.looks in explained:
            verdict = "explained"
        elif verdict == Verdict.SURVIVED:
            unexplained.append(mutant)
            print(difference(mutant, sources[mutant.file]))
        for name in (mutant.file, "together"):
            rows.setdefault(name, Counter())[verdict] += 1
    together = rows.pop("together", Counter())
    for name, counts in [*sorted(rows.items()), ("together", together)]:
        told = ", ".join(f"{counts[verdict]} {verdict}" for verdict in (*Verdict, "explained"))
        print(f"{name:20} {counts.total():5} mutants: {told}")
    (RESULTS / "survivors.toml").write_text("\n\n".join(map(as_toml, unexplained)) + "\n")
    return unexplained


def difference(mutant: Mutant, source: str) -> str:
    """Return what a mutant changes, for people."""
    names = mutant.file, f"survived, in {mutant.where or 'the module'}"
    texts = source.splitlines(), mutant.source.splitlines()
    return "\n".join((*difflib.unified_diff(*texts, *names, lineterm=""), ""))


def say(text: str) -> None:
    """Tell how far it is, beside the report."""
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    """Try mutants, report, and return whether all is in order as an exit status."""
    asked = options()
    if os.environ.get("PYTHONHASHSEED") != "0":
        # So that the order of sets, and with it a verdict, is the same in every run.
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, sys.orig_argv)  # noqa: S606 - this very program
    with tempfile.TemporaryDirectory(prefix="mutation-") as name:
        snapshot = Snapshot(ROOT, Path(name))
        sources = snapshot.sources()
        files = asked.files or list(sources)
        if strangers := set(files) - set(sources):
            sys.exit(f"the core has no file {', '.join(sorted(strangers))}")
        notes = Notes(RESULTS, f"{snapshot.digest()}-{asked.examples}-{asked.machine_examples}")
        every = [mutant for file in files for mutant in mutants_of(file, sources[file])]
        tried = chosen(asked, every, notes)
        snapshot.enter()
        plan = Plan(snapshot, asked.examples, asked.machine_examples)
        attempt(tried, plan, asked.jobs, notes)
        unexplained = report(tried, sources, notes)
        wrong = needless(tried, every, files, notes)
        for looks in wrong:
            print(f"equivalents.toml explains what is no survivor: {looks}")
        os.chdir(ROOT)
        return 1 if unexplained or wrong else 0


def end(number: int, _frame: object) -> None:
    """End as an exception does, with all clean-up."""
    sys.exit(128 + number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, end)
    sys.exit(main())
