"""Names of plugins -> distributions -> the package installer of this environment.

How an installation goes, whichever installer does it:

1. The words become requirements (`words`), and what is there already is left alone.
2. It is decided who drives this environment: pip, uv, pipx or `uv tool` (`environment`).
3. The installer says what it would do, with all that already works as a condition, so that a
   plugin never breaks fleeting or another plugin.
4. All of that is installed into a scratch folder. What cannot be had, is broken, or fits no
   hash is refused here, and so is what registers no plugin (`contents`).
5. The installer changes the environment, and what was there before is kept until it has
   succeeded. If it fails, or is interrupted, everything is put back (`undo`).

What decides is pure: the words, the environment, the command lines (`commands`), and which
sentence an installer's output comes to (`failures`).
"""

from __future__ import annotations
