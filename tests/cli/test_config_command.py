"""`taskscaler config`: its output and its exit code."""

from __future__ import annotations

import itertools
import json
import re
import tomllib
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from taskscaler.config import read_config

if TYPE_CHECKING:
    from cli_command import Command
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
BAD = GOOD.replace("max_instances = 5", "max_instances = 5\nmax_use = 1").replace(
    "_per_instance = 4", "_per_instance = -4"
)
HURTS = GOOD.replace("concurrent = 20", "concurrent = 10")


@pytest.fixture
def command(taskscaler: Command) -> Command:
    """Return the command in a directory with the files."""
    for name, text in (("good", GOOD), ("bad", BAD), ("hurts", HURTS)):
        (taskscaler.folder / f"{name}.toml").write_text(text)
    return taskscaler


def meaning(settings: Settings) -> Settings:
    """Return settings with all derived values set explicitly."""

    def explicit(policy: Policy) -> Policy:
        return replace(policy, preemptive_mode=policy.preemptive)

    return replace(
        settings,
        throttle_burst=settings.throttle_burst or settings.max_instances,
        policy=explicit(settings.policy),
        schedule=tuple(replace(e, policy=explicit(e.policy)) for e in settings.schedule),
    )


def test_valid_file(command: Command) -> None:
    """The exit code is 0, standard error is empty, and ignored keys are listed."""
    done = command.run("config", "check", "good.toml")
    assert (done.returncode, done.stderr) == (0, "")
    above = "runners[0].autoscaler.extensions.group"
    groups = f"{above}[0].plugin_config, {above}[1].plugin_config"
    assert done.stdout.splitlines() == [
        "good.toml: valid; runners with an autoscaler: 'builders'",
        "the plugin 'acme' is not installed; run `fleeting install acme`",
        f"not checked (plugin not installed): {groups}",
        "ignored (not used for scaling): runners[0].token",
    ]


def test_a_runner_without_a_name_is_named_by_its_place(command: Command) -> None:
    """An empty name tells an operator nothing."""
    text = '[[runners]]\n[runners.autoscaler]\nplugin = "local"\nmax_instances = 1\n'
    (command.folder / "nameless.toml").write_text(text)
    done = command.run("config", "check", "nameless.toml")
    expected = "nameless.toml: valid; runners with an autoscaler: runners[0], which has no name"
    assert done.stdout.splitlines()[0] == expected


def test_warning_goes_to_standard_error(command: Command) -> None:
    """A warning does not change the exit code 0."""
    done = command.run("config", "check", "hurts.toml")
    assert done.returncode == 0
    assert done.stderr.startswith("warning: hurts.toml: concurrent: 10 jobs at once are fewer than")
    assert done.stdout.startswith("hurts.toml: valid")


def test_all_errors_are_printed(command: Command) -> None:
    """Each error is a line with file, path and fix; the exit code is 2."""
    done = command.run("config", "check", "bad.toml")
    assert (done.returncode, done.stdout) == (2, "")
    above, of = "error: bad.toml: runners[0].autoscaler", "(runner 'builders')"
    assert done.stderr.splitlines() == [
        f"{above}.capacity_per_instance: {of} must be at least 1, got -4",
        f"{above}.max_use: {of} unknown key; did you mean 'max_use_count'?",
    ]


def test_check_as_json(command: Command) -> None:
    """`--json` prints the same as data, also for a missing file."""
    done = command.run("config", "check", "--json", "bad.toml")
    found = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (2, "")
    assert found["file"] == "bad.toml"
    assert found["runners"] == ["builders"]
    assert found["ignored"] == ["runners[0].token"]
    assert found["problems"][0] == {
        "severity": "error",
        "path": "runners[0].autoscaler.capacity_per_instance",
        "text": "(runner 'builders') must be at least 1, got -4",
    }
    done = command.run("config", "check", "--json", "none.toml")
    assert done.returncode == 2
    assert json.loads(done.stdout)["problems"] == [
        {"severity": "error", "path": "", "text": "the file does not exist; check the path"}
    ]


def test_settings_of_an_installed_plugin_are_checked(command: Command) -> None:
    """Errors in the settings of a plugin are reported with the others."""
    text = HURTS.replace('"acme"', '"local"').replace('name = "s3cret too"', "max_size = 3")
    (command.folder / "local.toml").write_text(text.replace('name = "s3cret"\n', "max_sise = 2\n"))
    done = command.run("config", "check", "local.toml")
    assert (done.returncode, done.stdout) == (2, "")
    above, of = "local.toml: runners[0].autoscaler.extensions.group", "(runner 'builders') "
    assert [line.partition(";")[0] for line in done.stderr.splitlines()[1:]] == [
        f"error: {above}[0].plugin_config.max_sise: {of}unknown key",
        f'error: {above}[0].plugin_config."odd key": {of}unknown key',
        f"error: {above}[1].plugin_config.max_sise: {of}unknown key",
        f'error: {above}[1].plugin_config."odd key": {of}unknown key',
    ]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('protocol = "shh"', "protocol: no connector named 'shh' is installed"),
        ('key_path = "gone"', "key_path: gone cannot be read"),
    ],
)
def test_connector_that_cannot_work_is_an_error(command: Command, line: str, expected: str) -> None:
    """Instances that could never be reached are not created: `check` and `run` refuse them."""
    text = GOOD.replace('"acme"', '"local"').replace('username = "me"', line)
    text = text.partition("[[runners.autoscaler.policy]]")[0].replace("failure_threshold = 0\n", "")
    text = text.replace("[runners.autoscaler.plugin_config]\n", "")
    text = text.replace('name = "s3cret"\n"odd key" = "s3cret"\n', "")
    (command.folder / "c.toml").write_text(text)
    done = command.run("config", "check", "c.toml")
    assert (done.returncode, done.stdout) == (2, "")
    key, _, text = expected.partition(": ")
    place = f"runners[0].autoscaler.connector_config.{key}: (runner 'builders') {text}"
    assert f"error: c.toml: {place}" in done.stderr
    done = command.run("run", "--config", "c.toml", "--", "true")
    assert done.returncode == 2
    assert f"error: c.toml: runners.autoscaler.connector_config.{expected}" in done.stderr


def test_missing_plugin_is_named_with_its_place(command: Command) -> None:
    """A misspelt plugin in a file is reported with the file, the runner and the meant name."""
    (command.folder / "c.toml").write_text(GOOD.replace('"acme"', '"loacl"'))
    done = command.run("run", "--config", "c.toml", "--runner", "builders", "--", "true")
    assert done.returncode == 2
    place = "c.toml: runner 'builders': runners.autoscaler.extensions.group 'spot': plugin: "
    assert f"error: {place}no plugin named 'loacl' is installed" in done.stderr
    assert "did you mean 'local'?" in done.stderr


def test_wrong_version_of_a_plugin_is_an_error(command: Command) -> None:
    """If another version of a plugin is installed than the file requires, that is an error."""
    text = '[[runners]]\nname = "a"\n[runners.autoscaler]\nplugin = "local:99"\nmax_instances = 1\n'
    (command.folder / "other.toml").write_text(text)
    done = command.run("config", "check", "other.toml")
    assert (done.returncode, done.stdout) == (2, "")
    assert "error: other.toml: runners[0].autoscaler.plugin: (runner 'a') " in done.stderr
    assert "but 'local:99' was requested; run `fleeting install --upgrade local:99`" in done.stderr


def test_shown_settings_are_those_of_the_file(command: Command) -> None:
    """`show` prints TOML that has the same settings when it is read again."""
    done = command.run("config", "show", "good.toml")
    assert (done.returncode, done.stderr) == (0, "")
    again = command.folder / "again.toml"
    # Secrets are masked; write a different value for each.
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


def test_missing_plugin_is_said(command: Command) -> None:
    """The source of a plugin that is not installed says how to install it."""
    shown = command.run("config", "show", "good.toml").stdout
    assert "# file; not installed, run `fleeting install acme`\n" in shown
    assert shown.count("not installed") == shown.count('plugin = "acme"')


def test_each_value_has_its_source(command: Command) -> None:
    """The source of a value is the file, our default, or GitLab's default if that is the same."""
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


@pytest.mark.parametrize(
    ("change", "shown"),
    [
        ("id = 42", 'id = "gitlab.example.com-42" # from url and id of the runner'),
        ("id = 0", 'id = "gitlab.example.com-s3cret-to" # from url and token of the runner'),
        (
            'url = "https://user:s3cret@gitlab.example.com/"',
            'id = "c.toml-builders" # from the names of the file and of the runner',
        ),
    ],
)
def test_identity_is_shown_with_its_origin(command: Command, change: str, shown: str) -> None:
    """`show` prints the name of the state, what it is made from, and that a change loses it."""
    text = GOOD.replace('token = "s3cret"', 'token = "glrt-s3cret-token-of-a-runner"')
    first = "url" if change.startswith("url") else "id"
    text = text.replace(change, "") if first == "url" else text.replace("id = 42", change)
    (command.folder / "c.toml").write_text(text)
    lines = command.run("config", "show", "c.toml").stdout.splitlines()
    found = [" ".join(line.split()) for line in lines if line.startswith('id = "')]
    assert found == [f"{shown}; if they change, the state is not found again"]


@pytest.mark.parametrize("words", [[], ["--json"]])
def test_no_secret_is_shown(command: Command, words: list[str]) -> None:
    """Token, password and the settings of a plugin are printed as `(set)`."""
    done = command.run("config", "show", *words, "good.toml")
    assert done.returncode == 0
    assert "s3cret" not in done.stdout + done.stderr
    assert done.stdout.count("(set)") == 9


def test_one_runner_is_shown(command: Command) -> None:
    """`--runner` selects a runner; for a wrong name the valid names are listed."""
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


def test_invalid_file_is_not_shown(command: Command) -> None:
    """`show` of an invalid file prints the errors; the exit code is 2."""
    done = command.run("config", "show", "bad.toml")
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 2


def test_schema_is_printed(command: Command) -> None:
    """`schema` prints one JSON object."""
    done = command.run("config", "schema")
    assert done.returncode == 0
    assert json.loads(done.stdout)["$ref"] == "#/$defs/FileConfig"
