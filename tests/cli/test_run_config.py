"""`taskscaler run --config`: the config.toml, its state, its groups, and its changes."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from cli_command import Command

CONFIG = """
[[runners]]
name = "builders"
[runners.autoscaler]
plugin = "local"
max_instances = {most}
capacity_per_instance = {capacity}
update_interval_when_expecting = "200ms"
delete_instances_on_shutdown = {delete}
[runners.autoscaler.plugin_config]
root = "{root}"
persistent = true
[runners.autoscaler.extensions]
{extensions}
"""
ID = 'id = "builders"'


@pytest.fixture
def config(taskscaler: Command) -> Path:
    """Return a config.toml that removes its instances at the end."""
    return write_config(taskscaler)


def write_config(
    taskscaler: Command,
    *,
    most: int = 2,
    capacity: int = 1,
    delete: str = "true",
    extensions: str = ID,
) -> Path:
    """Write a config.toml."""
    path = taskscaler.folder / "config.toml"
    root = taskscaler.folder / "root"
    path.write_text(
        CONFIG.format(most=most, capacity=capacity, delete=delete, extensions=extensions, root=root)
    )
    return path


def until_gate(taskscaler: Command, before: str = "") -> tuple[str, ...]:
    """Return the command of a job that runs until a file named `gate` exists."""
    gate = taskscaler.folder / "gate"
    return ("sh", "-c", f"{before}until [ -e {gate} ]; do sleep 0.05; done")


def read_until(process: subprocess.Popen[bytes], text: bytes) -> None:
    """Read standard error until a line contains the text."""
    assert process.stderr is not None
    assert any(text in line for line in process.stderr), f"{text!r} never came"


def test_another_plugin_uses_nothing_that_the_file_says_of_its_own(taskscaler: Command) -> None:
    """A file for a cloud can be tried on this computer, where its user name does not exist."""
    (taskscaler.folder / "cloud.toml").write_text(
        '[[runners]]\nname = "r"\n[runners.autoscaler]\nplugin = "acme:1"\n'
        'plugin_config = { name = "asg" }\n'
        'connector_config = { username = "nosuchuser", protocol = "nosuchprotocol" }\n'
    )
    done = taskscaler.run("run", "-c", "cloud.toml", "--plugin", "local", "--", "echo", "hello")
    assert (done.returncode, done.stdout) == (0, "hello\n"), done.stderr
    assert (
        "warning: cloud.toml: runners.autoscaler: --plugin local replaces the plugin 'acme:1'; "
        "not used: plugin_config and connector_config of the file" in done.stderr
    )


def test_an_interrupted_run_does_not_promise_to_keep_what_ends_with_it(
    taskscaler: Command, config: Path
) -> None:
    """Without `persistent`, the instances of `local` end with the command."""
    text = config.read_text().replace("persistent = true", "persistent = false")
    config.write_text(text.replace("shutdown = true", "shutdown = false"))
    process = taskscaler.start("--config", "config.toml", "--", *until_gate(taskscaler))
    read_until(process, b"started")
    process.send_signal(signal.SIGTERM)
    read_until(process, b"cancelling jobs and removing instances")
    process.communicate()


def test_the_settings_with_which_no_group_opens_are_told_with_their_file(
    taskscaler: Command, config: Path
) -> None:
    """A plugin does not know in which file its settings are."""
    (taskscaler.folder / "root").write_text("a file, and not a folder")
    done = taskscaler.run("run", "--config", "config.toml", "--", "true")
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {config.name}: ")


def test_a_plugin_that_an_option_names_is_not_blamed_on_the_file(
    taskscaler: Command, config: Path
) -> None:
    """The message names no line of the file, because changing it would not help."""
    done = taskscaler.run("run", "--config", "config.toml", "--plugin", "nosuch", "--", "true")
    assert done.returncode == 2
    assert done.stderr.startswith("error: no plugin named 'nosuch' is installed")
    assert config.exists()


def test_the_same_plugin_in_another_spelling_keeps_what_the_file_says(
    taskscaler: Command, config: Path
) -> None:
    """An option may name the file's own plugin without its version."""
    config.write_text(config.read_text().replace('"local"', '"local:latest"'))
    done = taskscaler.run("run", "--config", "config.toml", "--plugin", "local", "--", "true")
    assert done.returncode == 0
    assert "not used" not in done.stderr
    assert (taskscaler.folder / "root").is_dir()


def test_jobs_run_on_the_only_runner(taskscaler: Command, config: Path) -> None:
    """Without `--runner` the only runner is used; the state is at its place in the file."""
    done = taskscaler.run_jobs("--config", config, "--", "true")
    assert done.returncode == 0, done.stderr
    assert (taskscaler.folder / ".taskscaler/builders.sqlite").exists()
    assert taskscaler.states() == {"command": "success"}


def test_instances_are_kept_for_the_next_run(taskscaler: Command) -> None:
    """By default instances are kept; the next run reuses them and may remove them."""
    config = write_config(taskscaler, delete="false", extensions=ID)
    text = config.read_text()
    keep = '\n[[runners.autoscaler.policy]]\nidle_time = "10m"\n'
    config.write_text(text + keep)
    done = taskscaler.run_jobs("--config", config, "--", "true")
    assert done.returncode == 0, done.stderr
    assert (
        "1 instance was kept (delete_instances_on_shutdown = false); the next run finds"
        in done.stderr
    )
    (first,) = json.loads(taskscaler.report.read_text())["jobs"]
    config.write_text(text.replace("shutdown = false", "shutdown = true") + keep)
    assert taskscaler.run_jobs("--config", config, "--", "true").returncode == 0
    report = taskscaler.reported()
    assert report["jobs"][0]["instance"] == first["instance"]
    assert [one["tasks_run"] for one in report["instances"]] == [2]


def test_several_groups_are_used_in_order(taskscaler: Command) -> None:
    """When the first group is full, the next one is used."""
    folder = taskscaler.folder
    entry = (
        '[[runners.autoscaler.extensions.group]]\nname = "{name}"\nmax_instances = 1\n'
        'plugin_config = {{ root = "{root}" }}\n'
    )
    groups = "".join(entry.format(name=name, root=folder / name) for name in ("one", "two"))
    config = write_config(taskscaler, extensions=f"{ID}\n{groups}")
    gate = folder / "gate"
    gate.mkdir()
    script = f"mkdir {gate}/$$; until [ $(ls {gate} | wc -l) -ge 2 ]; do sleep 0.1; done"
    done = taskscaler.run_jobs("--config", config, "--count", "2", "--", "sh", "-c", script)
    assert done.returncode == 0, done.stderr
    one, two = f"local{folder}/one", f"local{folder}/two"
    assert f"instance groups, in order of preference: one is {one}, two is {two}\n" in done.stderr
    report = taskscaler.reported()
    for kind in ("jobs", "instances"):
        used = {(found["group"], found["group_name"]) for found in report[kind]}
        assert used == {(one, "one"), (two, "two")}


def test_group_that_cannot_be_opened_is_named(taskscaler: Command) -> None:
    """A run does not begin with a part of its groups."""
    entry = (
        '[[runners.autoscaler.extensions.group]]\nname = "{name}"\n'
        'plugin_config = {{ root = "{root}" }}\n'
    )
    groups = entry.format(name="one", root=taskscaler.folder / "one")
    groups += entry.format(name="two", root="/proc/x")
    config = write_config(taskscaler, extensions=f"{ID}\n{groups}")
    done = taskscaler.run_jobs("--config", config, "--", "true")
    assert done.returncode == 2
    assert "cannot open group 'two' (plugin local): " in done.stderr
    assert taskscaler.states() == {"command": "canceled"}


def test_changed_file_is_reloaded(taskscaler: Command, config: Path) -> None:
    """Waiting jobs use more instances; settings that cannot change are reported and kept."""
    write_config(taskscaler, most=1)
    words = ("--config", str(config), "--count", "2", "--", *until_gate(taskscaler))
    process = taskscaler.start(*words)
    read_until(process, b"command#1: started")
    write_config(taskscaler, most=2, capacity=3)
    read_until(process, b"was reloaded: max_instances 1 -> 2")
    read_until(process, b"to apply the new value of: capacity_per_instance")
    read_until(process, b"command#2: started")
    (taskscaler.folder / "gate").touch()
    assert process.wait() == 0
    assert set(taskscaler.states().values()) == {"success"}


def test_invalid_file_changes_nothing(taskscaler: Command, config: Path) -> None:
    """The errors of a changed file are reported, and the jobs go on."""
    process = taskscaler.start("--config", config, "--", *until_gate(taskscaler))
    read_until(process, b"command: started")
    config.write_text("[[runners]\n")
    read_until(process, b"the previous settings stay in effect")
    read_until(process, b"is not valid TOML")
    (taskscaler.folder / "gate").touch()
    assert process.wait() == 0


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--config", "config.toml", "jobs.toml"], "remove this table, or leave --config out"),
        (["--config", "missing.toml", "--", "true"], "missing.toml: the file does not exist"),
        (["--config", "config.toml", "--runner", "x", "--", "true"], "the file has: 'builders'"),
        (["--runner", "builders", "--", "true"], "add --config FILE"),
    ],
)
@pytest.mark.usefixtures("config")
def test_conflict_of_options_is_one_sentence(
    taskscaler: Command, words: list[str], expected: str
) -> None:
    """Options that conflict are reported in one sentence, and nothing is started."""
    taskscaler.file('[autoscaler]\n[[jobs]]\nname = "a"\nscript = ["true"]\n')
    done = taskscaler.run_jobs(*words)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert expected in done.stderr


def test_runner_without_an_id_keeps_its_state(taskscaler: Command) -> None:
    """Without `id`, URL and token, the names of the file and of the runner name the state."""
    config = write_config(taskscaler, extensions="")
    done = taskscaler.run_jobs("--config", config, "--", "true")
    assert done.returncode == 0, done.stderr
    assert (taskscaler.folder / ".taskscaler/config.toml-builders.sqlite").exists()
    explained = taskscaler.run("explain", "--config", config)
    assert explained.returncode == 0, explained.stderr


def test_second_run_on_one_state_is_refused(taskscaler: Command) -> None:
    """The error names the first run, which goes on; `explain` does not disturb it either."""
    words = ("--state", "s.sqlite", "--", *until_gate(taskscaler))
    process = taskscaler.start(*words)
    read_until(process, b"command: started")
    done = taskscaler.run("run", *words)
    assert done.returncode == 3
    assert f"process {process.pid}" in done.stderr
    explained = taskscaler.run("explain", "--state", "s.sqlite")
    assert explained.returncode == 0
    assert "the scaler is running" in explained.stdout
    (taskscaler.folder / "gate").touch()
    assert process.wait() == 0
    assert taskscaler.states() == {"command": "success"}


def test_third_interrupt_exits_immediately(taskscaler: Command) -> None:
    """The message names the instances that are left, and the next run removes them."""
    words = ["--plugin-config", f"root={taskscaler.folder}/root"]
    words += ["--plugin-config", "persistent=true", "--state", "s.sqlite"]
    # The job ignores TERM, so that the cancellation takes some seconds.
    process = taskscaler.start(*words, "--", *until_gate(taskscaler, "trap '' TERM; "))
    read_until(process, b"command: started")
    process.send_signal(signal.SIGINT)
    read_until(process, b"no more jobs will start")
    process.send_signal(signal.SIGINT)
    read_until(process, b"cancelling jobs")
    process.send_signal(signal.SIGINT)
    read_until(process, b"were not removed and may cost money: local")
    assert process.wait() == 130
    summary = json.loads(taskscaler.report.read_text())["summary"]
    assert (summary["canceled"], summary["exit_code"]) == (1, 130)
    done = taskscaler.run("run", *words, "--", "true")
    assert done.returncode == 0, done.stderr
    assert not (taskscaler.folder / "root/instances").exists()
