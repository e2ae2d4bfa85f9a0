"""`fleeting install` and `fleeting uninstall` from the words to the report, with a pretended uv."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

import pretend_uv
from fleeting._program import run_program
from fleeting.cli._commands import command_group
from fleeting.install import changing
from fleeting.install.environment import Environment
from made_up_plugins import make_wheel

if TYPE_CHECKING:
    from collections.abc import Sequence


class Operator:
    """Runs the command in this process, in an environment that is a folder."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.site, self.wheels = folder / "site", folder / "wheels"
        self.site.mkdir()
        uv = folder / "uv"
        uv.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{pretend_uv.__file__}" "$@"\n')
        uv.chmod(0o755)
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "path", [str(self.site), *sys.path])
        for name, path in {
            "PYTHONPATH": self.site,
            "PRETEND_SITE": self.site,
            "PRETEND_WHEELS": self.wheels,
        }.items():
            monkeypatch.setenv(name, str(path))
        monkeypatch.setattr("sysconfig.get_path", self._get_path)
        self.environment = Environment(prefix=folder, python=Path(sys.executable), uv=str(uv))
        monkeypatch.setattr(changing, "observe", lambda: self.environment)
        self._monkeypatch = monkeypatch

    def _get_path(self, *_: str) -> str:
        return str(self.site)

    def run(self, *words: str) -> int:
        """Run `fleeting` with these words, and return its exit code."""
        self._monkeypatch.setattr(sys, "argv", ["fleeting", *words])
        return run_program(command_group, "fleeting")

    def installed(self) -> Sequence[str]:
        """Return the names of the metadata folders in the environment."""
        return sorted(path.stem for path in self.site.glob("*.dist-info"))


@pytest.fixture
def operator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Operator:
    """Return an operator with a few wheels."""
    operator = Operator(tmp_path, monkeypatch)
    for version in ("1.0.0", "2.0.0"):
        make_wheel(operator.wheels, "fleeting-plugin-good", version)
    make_wheel(operator.wheels, "fleeting-plugin-waiting", requires=["fleeting-plugin-good"])
    return operator


def test_install_and_uninstall(operator: Operator, capfd: pytest.CaptureFixture[str]) -> None:
    """The installer's output comes through, and the result is one line on standard output."""
    assert operator.run("install", "good:1", "--pre", "--no-index", "--", "--no-cache") == 0
    shown, told = capfd.readouterr()
    assert shown == "installed good 1.0.0 (fleeting-plugin-good)\n"
    assert told.startswith(f"running {operator.environment.uv} pip install --python=")
    assert "--no-index --pre --no-cache" in told
    assert told.endswith("install fleeting-plugin-good==1.*\n")
    assert operator.run("install", "good", "local", "--upgrade") == 0
    assert operator.installed() == ["fleeting_plugin_good-2.0.0"]
    assert operator.run("install", "good", "local") == 0
    told = capfd.readouterr().err
    assert told.endswith(
        "good 2.0.0 (fleeting-plugin-good) is already installed\n"
        "local 1.0.0 (fleeting) is already installed\n"
    )
    assert operator.run("uninstall", "good", "--yes") == 0
    assert capfd.readouterr().out == "removed good 2.0.0 (fleeting-plugin-good)\n"
    assert operator.installed() == []


def test_what_is_not_run(operator: Operator, capfd: pytest.CaptureFixture[str]) -> None:
    """With --dry-run the command is printed; a file without plugins is warned of."""
    arguments = ["--index-url=https://a:b@x.example", "--extra-index-url=https://y.example"]
    assert operator.run("install", "--dry-run", *arguments, "--find-links=wheels", "good") == 0
    assert (
        capfd.readouterr()
        .out.rstrip()
        .endswith(
            " --index-url=https://****@x.example --extra-index-url=https://y.example "
            f"--find-links={operator.wheels} fleeting-plugin-good"
        )
    )
    Path("config.toml").write_text("concurrent = 1\n")
    assert operator.run("install") == 0
    assert capfd.readouterr().err == (
        "warning: config.toml refers to no plugin; nothing was installed\n"
    )
    assert operator.run("install", "-c", "gone.toml") == 2
    assert operator.installed() == []


def test_undo(operator: Operator, capfd: pytest.CaptureFixture[str]) -> None:
    """A plugin that does not work is removed, and an older version of it put back."""
    broken = {"fleeting_plugin_good/__init__.py": "1 / 0"}
    make_wheel(operator.wheels, "fleeting-plugin-good", "3.0.0", more=broken)
    make_wheel(operator.wheels, "fleeting-plugin-other", plugin="different")
    make_wheel(operator.wheels, "fleeting-plugin-empty", plugin="")
    assert operator.run("install", "good:1") == 0
    for word, reason in {
        "other": "fleeting-plugin-other does not register 'other', but different; ",
        "empty": "fleeting-plugin-empty registers no plugin; ",
        "good:3": "ZeroDivisionError: division by zero; ",
    }.items():
        assert operator.run("install", word) == 1
        line = capfd.readouterr().err.splitlines()[-1]
        assert reason in line
        assert line.endswith("; all packages have the versions that they had before")
        assert ("was removed again" in line) == (word != "good:3")
        assert "reinstall" not in line
        assert operator.installed() == ["fleeting_plugin_good-1.0.0"]


def test_record_is_put_back(operator: Operator) -> None:
    """After a failed check, the receipt of `uv tool` says what it said before."""
    receipt = operator.environment.prefix / "uv-receipt.toml"
    receipt.write_text('[tool]\nrequirements = [{ name = "fleeting-plugin-good" }]\n')
    text = receipt.read_text()
    operator.environment = Environment(
        prefix=operator.environment.prefix,
        python=operator.environment.python,
        uv=operator.environment.uv,
        files=frozenset({"uv-receipt.toml"}),
    )
    make_wheel(operator.wheels, "fleeting-plugin-other", plugin="different")
    # The pretended uv takes no `--with`, and so installs the tool alone.
    assert operator.run("install", "other") == 1
    assert receipt.read_text() == text


def test_installer_fails(operator: Operator, capfd: pytest.CaptureFixture[str]) -> None:
    """The message says what is installed now, and how to undo it."""
    assert operator.run("install", "failing") == 3
    assert capfd.readouterr().err.endswith(
        "install fleeting-plugin-failing\n"
        "error: uv failed, see above; all packages have the versions that they had before\n"
    )
    assert operator.run("install", "good", "dying") == 3
    python, uv = operator.environment.python, operator.environment.uv
    assert capfd.readouterr().err.endswith(
        "error: uv was killed by SIGKILL, see above; fleeting-plugin-good 2.0.0 is installed now; "
        f"to undo this, run `{uv} pip uninstall --python={python} fleeting-plugin-good`\n"
    )
    Path(operator.environment.uv).unlink()
    assert operator.run("install", "waiting") == 3
    assert "uv cannot be started: no such file" in capfd.readouterr().err


@pytest.mark.parametrize("numbers", [[signal.SIGINT], [signal.SIGTERM, signal.SIGINT]])
def test_interruption(
    operator: Operator, capfd: pytest.CaptureFixture[str], numbers: Sequence[signal.Signals]
) -> None:
    """The command waits for the installer, then says what is installed and what repeats it."""

    def interrupt() -> None:
        while not (operator.site / "waits").exists():
            time.sleep(0.01)
        for number in numbers:
            os.kill(os.getpid(), number)
            time.sleep(0.1)

    thread = threading.Thread(target=interrupt)
    thread.start()
    assert operator.run("install", "waiting") == 130
    thread.join()
    told = capfd.readouterr().err
    assert "\nfleeting-plugin-waiting 1.0.0 is installed now; to undo this, run `" in told
    assert "`; to repeat the command, run `fleeting install waiting`\n" in told
    assert told.endswith("interrupted\n")


def test_uninstall_is_refused(operator: Operator, capfd: pytest.CaptureFixture[str]) -> None:
    """A plugin that is missing, built in, or carried by two packages is not removed."""
    make_wheel(operator.wheels, "acme-good", plugin="good")
    uv = operator.environment.uv
    subprocess.run([uv, "pip", "install", "acme-good", "fleeting-plugin-good"], check=True)
    for words, reason in {
        ("gone", "--yes"): "no plugin named 'gone' is installed",
        ("local", "--yes"): "local is built into fleeting and cannot be removed",
        ("good", "--yes"): "name the package to remove, as in `fleeting uninstall acme-good`",
        ("acme-good",): "standard input is not a terminal; pass --yes",
    }.items():
        assert operator.run("uninstall", *words) == 2
        assert reason in capfd.readouterr().err


def test_uninstall_with_questions(
    operator: Operator, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a terminal the command asks, and names the packages that stay."""
    make_wheel(operator.wheels, "fleeting-plugin-needy", requires=["fleeting-plugin-good>=1"])
    assert operator.run("install", "good", "needy") == 0
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    answers = iter("ny")

    def answer(_question: str) -> str:
        return next(answers)

    monkeypatch.setattr("click.termui.visible_prompt_func", answer)
    assert [operator.run("uninstall", "needy") for _ in range(2)] == [1, 0]
    assert capfd.readouterr().out.endswith(
        "these packages, which it required, stay installed: fleeting-plugin-good\n"
    )


def test_installed_elsewhere(operator: Operator, capfd: pytest.CaptureFixture[str]) -> None:
    """A package that the installer does not remove is named."""
    make_wheel(operator.wheels, "fleeting-plugin-sticky")
    assert operator.run("install", "sticky") == 0
    Path(operator.environment.uv).write_text("#!/bin/sh\n")
    assert operator.run("uninstall", "sticky", "--yes") == 3
    assert "fleeting-plugin-sticky is still installed; see above" in capfd.readouterr().err
