"""Sending a script to an instance and starting it, in real shells."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from taskscaler.jobs.script import (
    BOOTSTRAP_STATUS,
    bootstrap,
    command_line,
    directory_name,
    make_directory,
    remove_directories,
    script_line,
)

if TYPE_CHECKING:
    from pathlib import Path

SHELLS = [
    shell for shell in ("sh", "dash", "bash", "zsh", "ksh", "fish", "tcsh") if shutil.which(shell)
]
DIRECTORY = directory_name("0123abcd", 1, "test#1")


def start(
    shell: str, home: Path, payload: bytes, *, exists: bool = False
) -> subprocess.CompletedProcess[bytes]:
    """Run the command with its input, as an instance does."""
    command = bootstrap(DIRECTORY, "token", exists=exists)
    return subprocess.run(
        [shell, "-c", command], cwd=home, input=payload, capture_output=True, check=False
    )


def proof(status: int, text: bytes = b"") -> bytes:
    """Return the standard error of a script that began, wrote the text and ended."""
    return b"\x1etoken begin\n" + text + f"\x1etoken end {status}\n".encode()


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> str:
    """Return each shell that is installed on this computer."""
    return str(request.param)


def test_script_and_environment_arrive_unchanged(shell: str, tmp_path: Path) -> None:
    """Quotes, backslashes, percent signs, newlines and non-ASCII letters arrive unchanged."""
    value = "a'b\"c\\n%s\n$HOME `x` é"
    lines = ["printf '%s|' \"$VALUE\" '\\t' \"it's\"", "printf '%%s\\n'"]
    done = start(shell, tmp_path, script_line(lines, {"VALUE": value}))
    assert done.stdout.decode() == f"{value}|\\t|it's|%s\n"
    assert (done.returncode, done.stderr) == (0, proof(0))


def test_rest_of_the_input_belongs_to_the_script(shell: str, tmp_path: Path) -> None:
    """Reading the script consumes no byte after its line."""
    done = start(shell, tmp_path, script_line(["cat"], {}) + b"one\n\xff\x00two")
    assert done.stdout == b"one\n\xff\x00two"


def test_script_runs_in_a_fresh_working_directory(shell: str, tmp_path: Path) -> None:
    """The working directory is empty; our own files are in its parent."""
    done = start(shell, tmp_path, script_line(["pwd -P", "ls -A"], {}))
    assert done.stdout.decode() == f"{tmp_path.resolve()}/{DIRECTORY}/work\n"


def test_script_is_readable_by_its_owner_alone(shell: str, tmp_path: Path) -> None:
    """Script and environment are in a file of mode 0600 in a directory of mode 0700."""
    start(shell, tmp_path, script_line(["true"], {"SECRET": "s3cret"}))
    script = tmp_path / DIRECTORY / "script"
    assert "s3cret" in script.read_text()
    assert script.stat().st_mode & 0o777 == 0o600
    assert script.parent.stat().st_mode & 0o777 == 0o700


def test_umask_of_the_user_is_kept(shell: str, tmp_path: Path) -> None:
    """The umask for our own files does not apply to the files of the job."""
    expected = subprocess.run([shell, "-c", "umask"], capture_output=True, check=True).stdout
    done = start(shell, tmp_path, script_line(["umask"], {}))
    assert int(done.stdout, 8) == int(expected, 8)


def test_script_stops_at_the_first_failing_line(tmp_path: Path) -> None:
    """Lines after a failed one are not run; its status is that of the script."""
    done = start("sh", tmp_path, script_line(["echo one", "(exit 7)", "echo two"], {}))
    assert (done.stdout, done.returncode) == (b"one\n", 7)


def test_signal_of_the_script_is_visible(tmp_path: Path) -> None:
    """The shell that reports the end turns the signal into a status, and writes no message."""
    done = start("sh", tmp_path, script_line(["kill -KILL $$"], {}))
    assert (done.returncode, done.stderr) == (137, proof(137))


@pytest.mark.parametrize("name", ["HUP", "INT", "QUIT", "TERM", "USR1", "USR2", "PIPE", "ALRM"])
def test_end_is_reported_after_a_signal_to_the_group(tmp_path: Path, name: str) -> None:
    """A script that reacts to a signal to its whole group is reported with its own status."""
    lines = [f"trap 'echo bye >&2; exit 7' {name}", f"kill -{name} 0", "sleep 10"]
    done = subprocess.run(
        ["/bin/sh", "-c", bootstrap(DIRECTORY, "token", exists=False)],
        cwd=tmp_path,
        input=script_line(lines, {}),
        capture_output=True,
        check=False,
        start_new_session=True,
    )
    assert (done.returncode, done.stderr) == (7, proof(7, b"bye\n"))


def test_variables_of_the_shell_are_not_the_scripts(shell: str, tmp_path: Path) -> None:
    """The script is not in its own environment, and it has no descriptors but three."""
    done = start(shell, tmp_path, script_line(["env", "ls /dev/fd/9 2>&1 || true"], {}))
    assert b"_s=" not in done.stdout
    assert b"_u=" not in done.stdout
    assert b"No such file" in done.stdout


def test_line_is_a_comment_for_another_shell(shell: str, tmp_path: Path) -> None:
    """A shell that a start-up file runs in our place does nothing with the script."""
    line = script_line(["touch ran", "echo two"], {"TOKEN": "a\nb"})
    done = subprocess.run([shell], cwd=tmp_path, input=line, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert list(tmp_path.iterdir()) == []


def test_incomplete_line_runs_nothing(shell: str, tmp_path: Path) -> None:
    """If the connection ends within the line, the partial script is not run."""
    whole = script_line(["touch ran", "echo two"], {})
    done = start(shell, tmp_path, whole[: whole.index(b"echo")])
    assert done.returncode == BOOTSTRAP_STATUS
    assert done.stderr.endswith(b"\x1etoken failed\n")
    assert not (tmp_path / DIRECTORY / "work" / "ran").exists()


def test_existing_directory_is_refused(shell: str, tmp_path: Path) -> None:
    """A job never runs in the directory of another job."""
    (tmp_path / DIRECTORY).mkdir()
    done = start(shell, tmp_path, script_line(["true"], {}))
    assert done.returncode == BOOTSTRAP_STATUS
    assert b"mkdir" in done.stderr
    assert done.stderr.endswith(b"\x1etoken failed\n")


def test_prepared_directory_is_used(shell: str, tmp_path: Path) -> None:
    """Files that were uploaded before are present when the script runs."""
    subprocess.run([shell, "-c", make_directory(DIRECTORY)], cwd=tmp_path, check=True)
    (tmp_path / DIRECTORY / "work" / "input").write_text("uploaded")
    done = start(shell, tmp_path, script_line(["cat input"], {}), exists=True)
    assert done.stdout == b"uploaded"


def test_removal_includes_read_only_directories(shell: str, tmp_path: Path) -> None:
    """Read-only directories, as some tools leave them, are removed as well."""
    names = ["one", "two"]
    for name in names:
        (tmp_path / name / "cache").mkdir(parents=True)
        (tmp_path / name / "cache" / "file").touch()
        (tmp_path / name / "cache").chmod(0o555)
    subprocess.run([shell, "-c", remove_directories(names)], cwd=tmp_path, check=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["test#1", "a b;rm -rf $HOME", "../../x", "é", "x" * 300])
def test_directory_names_are_safe(name: str) -> None:
    """The directory of a run is one plain word, for any name of the run."""
    directory = directory_name("0123abcd", 7, name)
    assert directory.startswith(".taskscaler-0123abcd-7-")
    assert directory.replace(".", "").replace("-", "").replace("_", "").isalnum()
    assert len(directory) < 100


def test_words_of_a_command_are_quoted() -> None:
    """A word with spaces or quotes stays one word."""
    line = command_line(["printf", "%s,", "a b", "c'd", "$HOME", "*"])
    done = subprocess.run(["/bin/sh", "-c", line], capture_output=True, check=True)
    assert done.stdout == b"a b,c'd,$HOME,*,"
