"""Kills `taskscaler run` at random moments, starts it again, and looks at what becomes of the jobs.

    python -m tests.crash --times 200 --seed 7

The manager alone is killed, by SIGKILL; its instances are persistent ones of the
local provider, and live on. Seed and number say when it is killed, and what the
jobs are like; how fast the computer is, they do not. To be run from the root of
the repository.
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
    """Run one campaign, and say in the end what it has shown."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    parser.add_argument("--times", type=int, default=200, help="how often to kill")
    parser.add_argument("--seed", type=int, default=1, help="of everything that is random")
    words = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="taskscaler-crash-"))
    campaign = Campaign(folder, seed=words.seed, times=words.times, say=_say)
    try:
        campaign.run()
    except Broken as error:
        _say(f"seed {words.seed}, round {campaign.round}: {error}")
        _say(f"everything is still in {folder}; again: {parser.prog} {' '.join(sys.argv[1:])}")
        return 1
    shutil.rmtree(folder)
    _say(f"seed {words.seed}: {campaign.summary()}")
    return 0


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
