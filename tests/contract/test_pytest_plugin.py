"""`pytest --fleeting-provider NAME`, run as an author or an operator runs it."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

import folder_plugin

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "correct-horse-battery"  # noqa: S105
FAILING = "def test_other():\n    assert False\n"


@dataclass(frozen=True)
class Place:
    """A directory for runs of pytest, with the plugin `folder` installed.

    Attributes:
        path: the directory.
        instances: the folder of the group, which already has one instance.
    """

    path: Path
    instances: Path

    @property
    def command(self) -> list[str]:
        """Return the command line of pytest, without plugins that slow down its start."""
        unused = [f"-pno:{name}" for name in ("cacheprovider", "hypothesispytest", "pytest_cov")]
        return [sys.executable, "-m", "pytest", "-pno:xdist", *unused]

    @property
    def environment(self) -> dict[str, str]:
        """Return the environment of the command."""
        return {**os.environ, "PYTHONPATH": str(self.path / "site"), "COLUMNS": "80"}

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run pytest."""
        return subprocess.run(
            [*self.command, *arguments],
            cwd=self.path,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def run_in_process(self, *arguments: str) -> tuple[int, str, str]:
        """Run pytest in this process, for runs that end before they collect tests."""
        with (
            pytest.MonkeyPatch.context() as patch,
            redirect_stdout(io.StringIO()) as stdout,
            redirect_stderr(io.StringIO()) as stderr,
        ):
            patch.setattr(sys, "path", [str(self.path / "site"), *sys.path])
            patch.chdir(self.path)
            code = pytest.main(["-s", "-p", "no:cacheprovider", "-p", "no:xdist", *arguments])
        return code, stdout.getvalue(), stderr.getvalue()

    def write(self, text: str) -> list[str]:
        """Write a config file for the plugin, and return the options that select it."""
        (self.path / "contract.toml").write_text(text)
        return ["--fleeting-provider", "folder", "--fleeting-config", "contract.toml"]

    def settings(self, **more: str) -> list[str]:
        """Write a valid config file for the plugin, and return the options that select it."""
        lines = [f'{key} = "{value}"' for key, value in more.items()]
        table = "\n".join([f'[plugin_config]\nfolder = "{self.instances}"', *lines])
        return self.write(
            f'{table}\n[contract]\ncan_connect = false\npage_size = 0\ninstance_timeout = "2s"\n'
        )


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Return a place that contains a failing test, which no run may collect."""
    (tmp_path / "site").mkdir()
    (tmp_path / "instances").mkdir()
    (tmp_path / "instances" / "mine").touch()
    (tmp_path / "test_other.py").write_text(FAILING)
    folder_plugin.install(tmp_path / "site")
    return Place(tmp_path, tmp_path / "instances")


def verdicts(report: Path) -> dict[str, str]:
    """Return the verdicts of the only group of a report, by promise."""
    (group,) = json.loads(report.read_text())["groups"]
    return {promise["promise"]: promise["verdict"] for promise in group["promises"]}


@pytest.mark.long
def test_local_keeps_the_contract(place: Place) -> None:
    """The provider `local` keeps every promise that applies to it."""
    (place.path / "local.toml").write_text(
        "[plugin_config]\nmax_size = 3\n[contract]\naffordable = 3\npage_size = 0\n"
        "repeats_operations = true\nkeeps_instances = false\ncancellation_points = 3\n"
    )
    run = place.run(
        *("--fleeting-provider", "local", "--fleeting-config", "local.toml"),
        *("--fleeting-report", "report.json"),
    )
    assert run.returncode == 0, run.stdout
    found = verdicts(place.path / "report.json")
    shown = {promise for promise, verdict in found.items() if verdict == "kept"}
    assert set(found) - shown == {
        "errors name their cause",  # These need a hook of the author.
        "foreign instances",
        "lost replies",
        "suspend and resume",
        "watch",
    }
    assert f"{len(shown)} kept, 0 broken, 5 not shown" in run.stdout


def test_right_plugin_keeps_the_contract(place: Place) -> None:
    """A run tests an installed plugin, and does not touch existing instances."""
    run = place.run(*place.settings(password=SECRET))
    assert run.returncode == 0, run.stdout
    assert "kept       idempotency" in run.stdout
    assert "not shown  suspend and resume" in run.stdout
    assert "test_other" not in run.stdout
    assert [path.name for path in place.instances.iterdir()] == ["mine"]


def test_broken_promise_is_reported(place: Place) -> None:
    """A broken promise is in the table and the report, with the test and the reason."""
    options = place.settings(mistake="refuses")
    run = place.run(*options, "--fleeting-report", "report.json", "-k", "unknown or info_names")
    assert run.returncode == 1, run.stdout
    assert "broken     unknown ids" in run.stdout
    assert "test_decrease_accepts_unknown_instances failed" in " ".join(run.stdout.split())
    found = verdicts(place.path / "report.json")
    assert found["unknown ids"] == "broken"
    assert found["identity"] == "kept"
    assert found["watch"] == "not shown"
    assert [path.name for path in place.instances.iterdir()] == ["mine"]


@pytest.mark.parametrize("option", ["-ra", "-l", "--tb=long"])
def test_secrets_are_hidden(place: Place, option: str) -> None:
    """Neither the output nor a report shows a password that the provider leaks."""
    options = place.settings(password=SECRET, mistake="leaks")
    reports = ["--junitxml=report.xml", "--fleeting-report", "report.json"]
    run = place.run(*options, *reports, option, "-k", "heartbeat or secret")
    assert run.returncode == 1, run.stdout
    for part in ("print: ***", "log: ***", "raise: "):
        assert part in run.stdout
    texts = [run.stdout, run.stderr]
    texts += [(place.path / f"report.{kind}").read_text() for kind in ("xml", "json")]
    assert [SECRET in text for text in texts] == [False] * 4


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_run_removes_its_instances(place: Place, number: signal.Signals) -> None:
    """A run that is interrupted or terminated removes the instances that it added."""
    options = place.settings(mistake="hangs")
    reached = place.instances.with_suffix(".reached")
    with subprocess.Popen(
        [*place.command, *options, "-k", "heartbeat_of_running"],
        cwd=place.path,
        env=place.environment,
        stdout=subprocess.PIPE,
        # A shell that runs tests in the background makes them ignore SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
        text=True,
    ) as run:
        while not reached.exists() and run.poll() is None:
            time.sleep(0.01)
        assert len(list(place.instances.iterdir())) == 2
        run.send_signal(number)
        output, _ = run.communicate(timeout=60)
    assert run.returncode == pytest.ExitCode.INTERRUPTED, output
    assert [path.name for path in place.instances.iterdir()] == ["mine"]


def test_affordable_limits_the_instances(place: Place) -> None:
    """If no instance is affordable, tests that need one are skipped with the reason."""
    options = place.settings(mistake="hangs")  # It hangs as soon as it has an instance.
    file = place.path / "contract.toml"
    file.write_text(f"{file.read_text()}affordable = 0\n")
    run = place.run(*options)
    assert run.returncode == 0, run.stdout
    assert "not shown  growing and shrinking" in run.stdout
    assert "it needs 1 instances, but affordable is 0" in " ".join(run.stdout.split())
    assert "kept       check starts nothing" in run.stdout
    assert [path.name for path in place.instances.iterdir()] == ["mine"]


def test_group_that_cannot_be_opened(place: Place) -> None:
    """A group that cannot be opened is one message, not a failure of each test."""
    run = place.run(*place.settings(mistake="denies", password=SECRET))
    assert run.returncode == 1
    assert "cannot open the group: the password [hidden] is wrong; use another one" in run.stdout
    assert "FAILED" not in run.stdout


PROVIDER = ("--fleeting-provider", "folder")
CONFIG = ("--fleeting-config", "contract.toml")


@pytest.mark.parametrize(
    ("options", "text", "sentence"),
    [
        (PROVIDER, "", "--fleeting-provider needs --fleeting-config FILE"),
        (CONFIG, "", "--fleeting-config needs --fleeting-provider NAME"),
        (("--fleeting-runner", "a"), "", "--fleeting-runner needs --fleeting-provider NAME"),
        (("--fleeting-provider", "nimbus", *CONFIG), "", "no plugin named 'nimbus' is installed"),
        ((*PROVIDER, "--fleeting-config", "gone.toml"), "", "gone.toml: the file does not exist"),
        ((*PROVIDER, *CONFIG), "a = ", "contract.toml: the file is not valid TOML"),
        ((*PROVIDER, *CONFIG), "folder = 1", "contract.toml: folder: unknown key"),
        ((*PROVIDER, *CONFIG), "", "plugin_config: the key 'folder' is missing"),
        (
            (*PROVIDER, *CONFIG),
            '[plugin_config]\nfolder = "gone"',
            "plugin_config.folder: gone does not exist",
        ),
        ((*PROVIDER, *CONFIG), "[contract]\naffordable = -1", "contract.affordable: "),
        ((*PROVIDER, *CONFIG, "--fleeting-runner", "a"), "", "the file has no [[runners]]; drop"),
        ((*PROVIDER, *CONFIG, "test_other.py"), "", "drop test_other.py"),
        (
            ("--fleeting-report", "gone/report.json"),
            "",
            "gone/report.json: the directory does not exist",
        ),
        (
            (*PROVIDER, *CONFIG),
            '[[runners]]\nname = "a"\n[runners.autoscaler]\nplugin = "local"\n',
            "group 'a' uses plugin 'local', not 'folder'",
        ),
    ],
)
def test_wrong_usage(place: Place, options: tuple[str, ...], text: str, sentence: str) -> None:
    """Invalid options and files are one message, with pytest's exit code for usage errors."""
    place.write(text)
    code, stdout, stderr = place.run_in_process(*options)
    assert code == pytest.ExitCode.USAGE_ERROR
    (line,) = stderr.split("\n\n")[0].splitlines()
    assert line.startswith("ERROR: ")
    assert sentence in line
    assert "Traceback" not in stdout + stderr


def test_group_of_a_config_toml(place: Place) -> None:
    """`--fleeting-runner` selects a group of a `config.toml` with its inherited settings."""
    group = f'name = "slow"\nplugin_config = {{ folder = "{place.instances}" }}\n'
    options = place.write(
        '[[runners]]\nname = "a"\n[runners.autoscaler]\nplugin = "folder:1"\n'
        f"[[runners.autoscaler.extensions.group]]\n{group}"
        '[[runners]]\nname = "b"\n[runners.autoscaler]\nplugin = "local"\n'
        "[contract]\ncan_connect = false\n"
    )
    run = place.run(*options, "--fleeting-runner", "a", "-k", "listing")
    assert run.returncode == 0, run.stdout + run.stderr
    assert "kept       listing stability" in run.stdout


OWN = """
import pytest
from fleeting.testing import FakeInstanceGroup, InstanceGroupContract
from contextlib import asynccontextmanager

class TestMine(InstanceGroupContract):
    @pytest.fixture
    def open_group(self):
        @asynccontextmanager
        async def open_group():
            yield FakeInstanceGroup()
        return open_group

    def test_more(self):
        pass
"""


@pytest.mark.parametrize("options", [[], ["--fleeting-table"]])
def test_table_of_a_subclass(place: Place, options: list[str]) -> None:
    """`--fleeting-table` prints the table of a subclass; its other tests run as well."""
    (place.path / "test_mine.py").write_text(OWN)
    run = place.run("test_mine.py", "-k", "listing or more", *options)
    assert run.returncode == 0, run.stdout
    assert "3 passed" in run.stdout
    assert ("kept       listing stability" in run.stdout) == bool(options)
    assert ("contract of test_mine.py::TestMine" in run.stdout) == bool(options)


def test_runs_without_options_import_nothing(place: Place) -> None:
    """A run of pytest without these options imports nothing of `fleeting`."""
    program = (
        "import sys, pytest; pytest.main(['-q', 'test_other.py']); "
        "print(*[name for name in sys.modules if name.split('.')[0].startswith('fleeting')])"
    )
    completed = subprocess.run(
        [sys.executable, "-c", program],
        cwd=place.path,
        env=place.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert completed.stdout.splitlines()[-1] == "fleeting_pytest"
