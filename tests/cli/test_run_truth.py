"""`taskscaler run` on bad machines, bad files and bad plugins: a result is true, or says why not."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from cli_command import Command


def test_killed_run_with_every_key_is_resumed(taskscaler: Command, fifo: Path) -> None:
    """A job with every key of the jobs file survives a killed command, and is run again."""
    (taskscaler.folder / "given").write_text("given\n")
    path = taskscaler.file(f"""
        [[jobs]]
        name = "a"
        script = ["cat", "echo $WORD > made", "echo begun", "cat {fifo}"]
        env = {{ WORD = "x" }}
        timeout = "10m"
        retries = 1
        count = 1
        upload = ["given"]
        download = ["made", {{ from = "given", to = "here" }}]
        stdin = "given"
    """)
    state = taskscaler.folder / "state.sqlite"
    process = taskscaler.start("--state", state, path)
    assert process.stdout is not None
    assert any(b"begun" in line for line in process.stdout)
    process.kill()
    process.wait()
    again = taskscaler.start("--state", state, path)
    fifo.write_text("go on\n")
    _, messages = again.communicate()
    assert again.returncode == 0, messages
    (job,) = taskscaler.reported()["jobs"]
    assert (job["state"], job["attempts"]) == ("success", 2)
    assert (taskscaler.folder / "a" / "made").read_text() == "x\n"
