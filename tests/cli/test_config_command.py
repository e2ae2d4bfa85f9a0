"""`taskscaler config`: what it prints, where, and its exit code."""

from __future__ import annotations

import itertools
import json
import re
import tomllib
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from cli_command import Command
from taskscaler.config import read_config

if TYPE_CHECKING:
    from pathlib import Path

    from taskscaler.core import Policy, Settings

GOOD = """
concurrent = 20
[[runners]]
name = "builders"
id = 42
url = "https://user:s3cret@gitlab.example.com/"
token = "s3cret"
[runners.autoscaler]
plugin = "acme"
capacity_per_instance = 4
max_instances = 5
failure_threshold = 0
update_interval = "30s"
[runners.autoscaler.plugin_config]
name = "s3cret"
"odd key" = "s3cret"
[runners.autoscaler.connector_config]
username = "me"
password = "s3cret"
timeout = "1m"
[[runners.autoscaler.policy]]
periods = ["* 8-17 * * 1-5"]
timezone = "Europe/Berlin"
idle_count = 2
[[runners.autoscaler.policy]]
periods = ["* 20 * * *"]
timezone = "UTC"
idle_time = "1h"
[runners.autoscaler.extensions]
placement = "spread"
[[runners.autoscaler.extensions.group]]
name = "spot"
max_instances = 3
[[runners.autoscaler.extensions.group]]
plugin_config = { name = "s3cret too" }
"""
BAD = GOOD.replace("max_instances = 5", "max_instances = -5\nmax_use = 1")
HURTS = GOOD.replace("concurrent = 20", "concurrent = 10")


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """Give a folder with the files, and the command in it."""
    command = Command(tmp_path)
    for name, text in (("good", GOOD), ("bad", BAD), ("hurts", HURTS)):
        (tmp_path / f"{name}.toml").write_text(text)
    return command


def meaning(settings: Settings) -> Settings:
    """Return settings in which nothing is left to be derived from something else."""

    def explicit(policy: Policy) -> Policy:
        return replace(policy, preemptive_mode=policy.preemptive)

    return replace(
        settings,
        throttle_burst=settings.throttle_burst or settings.max_instances,
        policy=explicit(settings.policy),
        schedule=tuple(replace(e, policy=explicit(e.policy)) for e in settings.schedule),
    )


def test_a_good_file_is_called_good(command: Command) -> None:
    """Exit code 0, nothing on standard error, and what is ignored is said."""
    done = command.run("config", "check", "good.toml")
    assert (done.returncode, done.stderr) == (0, "")
    above = "runners[0].autoscaler.extensions.group"
    groups = f"{above}[0].plugin_config, {above}[1].plugin_config"
    assert done.stdout.splitlines() == [
        "good.toml: valid; runners with an autoscaler: 'builders'",
        f"not checked (plugin not installed): {groups}",
        "ignored (not used for scaling): runners[0].token",
    ]


def test_a_warning_goes_to_standard_error(command: Command) -> None:
    """What will probably hurt is said, and the exit code is 0 all the same."""
    done = command.run("config", "check", "hurts.toml")
    assert done.returncode == 0
    assert done.stderr.startswith("warning: hurts.toml: concurrent: 10 jobs at once are fewer than")
    assert done.stdout.startswith("hurts.toml: valid")


def test_all_errors_are_printed(command: Command) -> None:
    """Each error is a line with file, path and fix, and the exit code is 2."""
    done = command.run("config", "check", "bad.toml")
    assert (done.returncode, done.stdout) == (2, "")
    above, of = "error: bad.toml: runners[0].autoscaler", "(runner 'builders')"
    assert done.stderr.splitlines() == [
        f"{above}.max_instances: {of} must be at least 0, got -5",
        f"{above}.max_use: {of} unknown key; did you mean 'max_use_count'?",
    ]


def test_a_check_for_programs(command: Command) -> None:
    """`--json` has the same as data, also for a file that is not there."""
    done = command.run("config", "check", "--json", "bad.toml")
    found = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (2, "")
    assert found["file"] == "bad.toml"
    assert found["runners"] == ["builders"]
    assert found["ignored"] == ["runners[0].token"]
    assert found["problems"][0] == {
        "severity": "error",
        "path": "runners[0].autoscaler.max_instances",
        "text": "(runner 'builders') must be at least 0, got -5",
    }
    done = command.run("config", "check", "--json", "none.toml")
    assert done.returncode == 2
    assert json.loads(done.stdout)["problems"] == [
        {"severity": "error", "path": "", "text": "the file does not exist; check the path"}
    ]


def test_the_settings_of_an_installed_plugin_are_checked(command: Command) -> None:
    """What the plugin itself would refuse is told with the rest."""
    text = HURTS.replace('"acme"', '"local"').replace('name = "s3cret too"', "max_size = 3")
    (command.folder / "local.toml").write_text(text.replace('name = "s3cret"\n', "max_sise = 2\n"))
    done = command.run("config", "check", "local.toml")
    assert (done.returncode, done.stdout) == (2, "")
    above = "local.toml: runners[0].autoscaler.extensions.group"
    assert [line.partition(";")[0] for line in done.stderr.splitlines()[1:]] == [
        f"error: {above}[0].plugin_config.max_sise: unknown key",
        f'error: {above}[0].plugin_config."odd key": unknown key',
        f"error: {above}[1].plugin_config.max_sise: unknown key",
        f'error: {above}[1].plugin_config."odd key": unknown key',
    ]


def test_another_version_of_a_plugin_is_an_error(command: Command) -> None:
    """That a plugin is installed in a version which the file does not mean stops a run, too."""
    text = '[[runners]]\nname = "a"\n[runners.autoscaler]\nplugin = "local:99"\nmax_instances = 1\n'
    (command.folder / "other.toml").write_text(text)
    done = command.run("config", "check", "other.toml")
    assert (done.returncode, done.stdout) == (2, "")
    assert "error: other.toml: runners[0].autoscaler.plugin_config: " in done.stderr
    assert "but 'local:99' was requested; run `fleeting install --upgrade local:99`" in done.stderr


def test_what_is_shown_is_what_was_read(command: Command) -> None:
    """What `show` prints is TOML, and as a file it means the same settings."""
    done = command.run("config", "show", "good.toml")
    assert (done.returncode, done.stderr) == (0, "")
    again = command.folder / "again.toml"
    # The secrets are not there; that each is one of its own is.
    numbers = itertools.count()
    again.write_text(re.sub(r"\(set\)", lambda _: f"secret {next(numbers)}", done.stdout))
    good = command.folder / "good.toml"
    first, second = (read_config(path).runner("builders") for path in (good, again))
    assert first.autoscaler is not None
    assert second.autoscaler is not None
    assert meaning(first.autoscaler.settings()) == meaning(second.autoscaler.settings())
    assert first.state_path(good) == second.state_path(again)
    groups, others = first.autoscaler.groups(), second.autoscaler.groups()
    assert [(g.name, g.plugin, g.max_instances) for g in groups] == [
        (g.name, g.plugin, g.max_instances) for g in others
    ]


def test_each_value_says_where_it_came_from(command: Command) -> None:
    """The source of a value is the file, our default, or GitLab's where that is the same."""
    lines = command.run("config", "show", "good.toml").stdout.splitlines()
    sources = {
        line.partition(" = ")[0]: [part.strip() for part in line.partition(" = ")[2].split("#")]
        for line in reversed(lines)
        if " = " in line
    }
    assert sources["update_interval"] == ['"30s"', "file"]
    assert sources["failure_threshold"] == ["3", "GitLab's default"]
    assert sources["max_use_count"] == ["0", "GitLab's default"]
    assert sources["reservation_throttling"] == ["false", "default"]
    assert sources["placement"] == ['"spread"', "file"]
    assert sources["cooldown"] == ['"5m"', "default"]
    assert sources["preemptive_mode"] == ["true", "GitLab's default"]
    assert sources["url"] == ['"https://gitlab.example.com"', "file"]


@pytest.mark.parametrize("words", [[], ["--json"]])
def test_no_secret_is_shown(command: Command, words: list[str]) -> None:
    """Token, password and the settings of a plugin are not printed, only that they are set."""
    done = command.run("config", "show", *words, "good.toml")
    assert done.returncode == 0
    assert "s3cret" not in done.stdout + done.stderr
    assert done.stdout.count("(set)") == 9


def test_one_runner_is_shown(command: Command) -> None:
    """`--runner` takes the name of one, and a wrong name is answered with the right ones."""
    other = GOOD.replace('"builders"', '"testers"').replace("id = 42", "id = 43")
    other = other.replace("concurrent = 20", "").replace("s3cret", "other")
    (command.folder / "two.toml").write_text(GOOD + other)
    done = command.run("config", "show", "--runner", "testers", "two.toml")
    assert tomllib.loads(done.stdout)["runners"][0]["name"] == "testers"
    done = command.run("config", "show", "two.toml")
    assert [runner["name"] for runner in tomllib.loads(done.stdout)["runners"]] == [
        "builders",
        "testers",
    ]
    done = command.run("config", "show", "--json", "two.toml")
    assert len(json.loads(done.stdout)) == 2
    done = command.run("config", "show", "--runner", "x", "two.toml")
    assert (done.returncode, done.stdout) == (2, "")
    assert "no runner with an autoscaler is named 'x'; the file has: 'builders'" in done.stderr


def test_what_cannot_be_used_is_not_shown(command: Command) -> None:
    """`show` of a wrong file prints the errors, and its exit code is 2."""
    done = command.run("config", "show", "bad.toml")
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 2


def test_the_schema_is_printed(command: Command) -> None:
    """`schema` prints one JSON object."""
    done = command.run("config", "schema")
    assert done.returncode == 0
    assert json.loads(done.stdout)["$ref"] == "#/$defs/FileConfig"
