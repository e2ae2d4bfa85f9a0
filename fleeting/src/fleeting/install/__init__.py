"""`fleeting install` and `fleeting uninstall`: a thin layer on pip, uv, pipx and `uv tool`.

`requests` reads what is asked for, `environment` finds the installer, `commands` builds its command
line, `running` runs it, `checking` imports the plugins, and `changing` does these in order.
"""

from __future__ import annotations
