"""`fleeting install` and `fleeting uninstall`: a thin layer on pip, uv, pipx and `uv tool`.

`requests` reads what the operator asks for, `environment` finds the installer of this Python
environment, `commands` builds its command line, `running` runs it, `checking` imports what was
installed, and `changing` does these in order.
"""

from __future__ import annotations
