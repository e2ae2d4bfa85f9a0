"""A uv that unpacks wheels into a folder, for tests of the commands in their own process.

The variables `PRETEND_SITE` and `PRETEND_WHEELS` name the folders. A distribution named
`failing`, `dying` or `waiting` does so instead; the last one is unpacked first.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
import zipfile
from pathlib import Path

__all__ = ("main",)


def main() -> None:
    """Install or uninstall, as `uv pip` does."""
    _, verb, *arguments = sys.argv[1:]
    site, wheels = (Path(os.environ[f"PRETEND_{name}"]) for name in ("SITE", "WHEELS"))
    for requirement in (one for one in arguments if not one.startswith("-")):
        name, _, version = requirement.partition("==")
        module = name.replace("-", "_")
        sys.stdout.write(f"{verb} {requirement}\n")
        sys.stdout.flush()
        if name.endswith("failing"):
            sys.exit(2)
        if name.endswith("dying"):
            os.kill(os.getpid(), signal.SIGKILL)
        for folder in (site / module, *site.glob(f"{module}-*")):
            shutil.rmtree(folder, ignore_errors=True)
        if verb == "install":
            wheel = max(wheels.glob(f"{module}-{version.rstrip('*')}*.whl"))
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(site)
        if name.endswith("waiting"):
            (site / "waits").touch()
            time.sleep(60)


if __name__ == "__main__":
    main()
