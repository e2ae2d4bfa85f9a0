"""Sending a script to an instance and starting it, in real shells."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from taskscaler.jobs.script import (
    BOOTSTRAP_STATUS,
    MARK,
    bootstrap,
    command_line,
    directory_name,
    make_directory,
    remove_directories,
    script_line,
)

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


def test_script_is_readable_by_its_owner_alone_and_removed_first(
    shell: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file has mode 0600, its directory 0700, and it is gone before a line of the user runs."""
    # A shell that looks at the file before it runs it.
    (tmp_path / "sh").write_text('#!/bin/sh\nls -l "$2"; grep -c s3cret "$2"; exec /bin/sh "$@"\n')
    (tmp_path / "sh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    real = "/bin/sh" if shell == "sh" else shell
    done = start(real, tmp_path, script_line(["ls -A .."], {"SECRET": "s3cret"}))
    mode, found, *files = done.stdout.decode().splitlines()
    assert mode.startswith("-rw-------")
    assert found == "1"
    # The script itself finds it removed.
    assert files == ["work"]
    assert (tmp_path / DIRECTORY).stat().st_mode & 0o777 == 0o700


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
    # Then the shell kills its group, which includes itself.
    assert (done.returncode, done.stderr) == (-9, proof(7, b"bye\n"))


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


@pytest.mark.parametrize(
    ("start", "ends_at_once"),
    [
        ("sleep 1000", True),
        ('trap "" HUP TERM; while :; do sleep 1; done', True),
        ("exec setsid sleep 1000", False),
        ('setsid sh -c "sleep 1000 & exec sleep 1000"', False),
    ],
)
def test_processes_that_a_job_leaves_behind_are_ended(
    shell: str, tmp_path: Path, start: str, *, ends_at_once: bool
) -> None:
    """Its group ends with the job, and processes that left the group with its directory."""
    if not ends_at_once and not Path("/proc/self/environ").exists():
        pytest.skip("this system does not show the environment of processes in /proc")
    lines = [f"({start}) >/dev/null 2>&1 9>&1 & echo $!"]
    # An SSH server starts each command in a session of its own, too.
    done = subprocess.run(
        [shell, "-c", bootstrap(DIRECTORY, "marker", exists=False)],
        cwd=tmp_path,
        input=script_line(lines, {}),
        stdout=subprocess.PIPE,
        check=False,
        start_new_session=True,
    )
    left = int(done.stdout)
    if ends_at_once:
        assert _is_gone(left)
    subprocess.run([shell, "-c", remove_directories([DIRECTORY])], cwd=tmp_path, check=True)
    assert _is_gone(left)
    assert not _marked(DIRECTORY)
    assert list(tmp_path.iterdir()) == []


def test_processes_of_another_job_are_not_ended(shell: str, tmp_path: Path) -> None:
    """The end of a job does not end what belongs to a job with a similar name."""
    other = directory_name("0123abcd", 11, "test#1")
    command = [shell, "-c", bootstrap(other, "marker", exists=False)]
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(script_line(["echo begun", "read word", "echo $word"], {}))
        process.stdin.flush()
        assert process.stdout.readline() == b"begun\n"
        removal = remove_directories([directory_name("0123abcd", 1, "test#1")])
        subprocess.run([shell, "-c", removal], cwd=tmp_path, check=True)
        assert process.communicate(b"alive\n")[0] == b"alive\n"


def _marked(directory: str) -> list[str]:
    """Return the environments that have the mark of a job."""
    found: list[str] = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if f"{MARK}={directory}".encode() in path.read_bytes():
                found.append(str(path))
    return found


def _is_gone(process: int) -> bool:
    """Return whether a process ends within a moment; without a parent it may stay a zombie."""
    for _ in range(100):
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return True
        status = Path(f"/proc/{process}/stat")
        if status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.05)
    return False


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
