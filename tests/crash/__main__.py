"""Kills `taskscaler run` at random moments, restarts it, and checks what happened to the jobs.

    python -m tests.crash --times 200 --seed 7

Only the manager is killed, by SIGKILL; its instances are persistent ones of the
local provider and survive. The seed determines when the manager is killed and which
jobs it runs, but not how far it gets until then. Run this from the root of the
repository.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from tests.crash.checks import Broken
from tests.crash.rounds import Campaign


def main() -> int:
    """Run one campaign and print its summary."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    parser.add_argument("--times", type=int, default=200, help="how often to kill the manager")
    parser.add_argument("--seed", type=int, default=1, help="seed of all random choices")
    words = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="taskscaler-crash-"))
    campaign = Campaign(folder, seed=words.seed, times=words.times, say=_say)
    try:
        campaign.run()
    except Broken as error:
        _say(f"seed {words.seed}, round {campaign.round}: {error}")
        _say(f"the files are kept in {folder}; to repeat: {parser.prog} {' '.join(sys.argv[1:])}")
        return 1
    shutil.rmtree(folder)
    _say(f"seed {words.seed}: {campaign.summary()}")
    return 0


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
