"""Files as people have them: those in `good` can be used, those in `wrong` are explained."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from fleeting.errors import ConfigError
from taskscaler.cli.config import config
from taskscaler.config import read_config

if TYPE_CHECKING:
    from cli_command import Command

FOLDER = Path(__file__).parent.parent / "configs"
GOOD = sorted((FOLDER / "good").glob("*.toml"))
WRONG = sorted((FOLDER / "wrong").glob("*.toml"))
RUNNER = "glrt-Zq3xN8vR5mK2wB7yT4uH"

# The errors of each file of `wrong`, in the order of the file: the key, and a part of the fix.
ERRORS = {
    "autoscaling-table": [("runners[0].autoscaling", "write [runners.autoscaler]")],
    "docker-machine": [("runners[0].executor", "docker+machine")],
    "empty": [("runners", "no runner has a table [runners.autoscaler]")],
    "jobs-file": [("jobs", "taskscaler run --config CONFIG.toml JOBS.toml")],
    "kubernetes-only": [("runners", "use the executor kubernetes")],
    "left-variables": [("runners[0].autoscaler.max_instances", "the template ${max}")],
    "misplaced": [
        ("runners[0].autoscaler.name", "move it to [runners.autoscaler.plugin_config]"),
        ("runners[0].autoscaler.idle_count", "move it to [[runners.autoscaler.policy]]"),
        ("runners[0].autoscaler.policy[0].max_use_count", "move it to [runners.autoscaler]"),
    ],
    "numbers": [
        ("runners[0].autoscaler.connector_config.timeout", 'such as "10m"'),
        ("runners[0].autoscaler.policy[0].idle_time", 'such as "20m"'),
    ],
    "one-runner-twice": [("runners[1].autoscaler.plugin_config", "runners[0] uses the same group")],
    "pascal-case": [
        ("runners[0].autoscaler.policy[0].IdleCount", "did you mean 'idle_count'?"),
        ("runners[0].autoscaler.policy[0].IdleTime", "did you mean 'idle_time'?"),
    ],
    "runner-table": [("runner", "write [[runners]]")],
    "template": [("the file is not valid TOML", "the template {{ concurrent }}; render the file")],
    "unusable-plugin": [
        ("runners[0].autoscaler.plugin", "is a path, not the name of a plugin"),
        ("runners[0].autoscaler.policy[0].idle_count", "expected an integer"),
    ],
    "windows": [("runners[0].autoscaler.connector_config.protocol", "no connector named 'winrm'")],
    "zones-by-offset": [
        ("runners[0].autoscaler.policy[0].timezone", "'Etc/GMT-2' for 2 hours east of UTC"),
        ("runners[0].autoscaler.policy[1].timezone", "write the name of a region and a city"),
        ("runners[0].autoscaler.policy[2].timezone", "did you mean 'Europe/Amsterdam'?"),
    ],
}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the variables of a file that is configured by its environment."""
    monkeypatch.setenv("CI_SERVER_URL", "https://gitlab.example.com")
    monkeypatch.setenv("RUNNER_TOKEN", RUNNER)


def run(*words: object) -> Result:
    """Run `taskscaler config` in this process."""
    return CliRunner().invoke(config, [str(word) for word in words], standalone_mode=False)


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
def test_published_shape_is_valid(path: Path) -> None:
    """`check` accepts the file, `show` prints TOML, and neither prints a secret."""
    done = run("check", path)
    assert done.return_value == 0, done.stderr
    assert f"{path}: valid" in done.stdout
    assert "error:" not in done.stderr
    shown = run("show", path)
    assert shown.return_value == 0, shown.stderr
    values = tomllib.loads(shown.stdout)["runners"]
    assert all(runner["autoscaler"]["state_storage"]["enabled"] for runner in values)
    assert all(runner["autoscaler"]["extensions"]["id"] for runner in values)
    printed = done.stdout + done.stderr + shown.stdout + shown.stderr
    assert "B7yT4uH" not in printed
    assert "Not-A-Secret" not in printed


def test_file_that_gitlab_wrote_has_the_defaults() -> None:
    """Each zero that GitLab Runner writes for a missing key is the default of that key."""
    shown = run("show", FOLDER / "good/written-by-gitlab.toml").stdout
    [runner] = tomllib.loads(shown)["runners"]
    autoscaler = runner["autoscaler"]
    assert autoscaler["capacity_per_instance"] == 1
    assert autoscaler["update_interval"] == "1m"
    assert autoscaler["instance_acquire_timeout"] == "15m"
    assert autoscaler["policy"][0]["periods"] == ["* * * * *"]
    assert autoscaler["policy"][0]["idle_time"] == "0s"
    assert "connector_config" not in autoscaler


@pytest.mark.long
@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
def test_published_shape_runs(taskscaler: Command, path: Path) -> None:
    """A job runs with the file; only the plugin and the login are those of this computer."""
    text = path.read_bytes().decode()
    login = r"(?m)^\s*(username|password|use_static_credentials|use_external_addr|os|arch) = .*$"
    file = taskscaler.folder / path.name
    file.write_bytes(re.sub(login, "", text).encode())
    options: list[str | Path] = ["--config", file, "--plugin", "local"]
    if path.stem == "two-architectures":
        options += ["--runner", "arm64"]
    done = taskscaler.run_jobs(*options, "--", "true")
    assert done.returncode == 0, done.stderr
    [job] = json.loads(taskscaler.report.read_text())["jobs"]
    assert job["state"] == "success"


@pytest.mark.parametrize("path", WRONG, ids=lambda path: path.stem)
def test_wrong_shape_is_explained(path: Path) -> None:
    """Each mistake is one message with its place and the fix, in the order of the file."""
    done = run("check", path)
    assert (done.return_value, done.stdout) == (2, "")
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    expected = ERRORS[path.stem]
    assert len(errors) == len(expected), errors
    for line, (place, fix) in zip(errors, expected, strict=True):
        assert line.startswith(f"error: {path}: {place}: ")
        assert fix in line
    shown = run("show", path)
    assert (shown.return_value, shown.stdout) == (2, "")
    assert [line for line in shown.stderr.splitlines() if line.startswith("error: ")] == errors
    if path.stem != "windows":  # Its plugin's settings are valid, and connectors are checked later.
        with pytest.raises(ConfigError):
            read_config(path)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_other_encoding_is_told(taskscaler: Command, encoding: str) -> None:
    """A file that an editor of Windows has saved as UTF-16 is called that."""
    (taskscaler.folder / "c.toml").write_text("concurrent = 1\n", encoding=encoding)
    done = taskscaler.run("config", "check", "c.toml")
    assert done.stderr == "error: c.toml: the file is UTF-16; save the file as UTF-8\n"
