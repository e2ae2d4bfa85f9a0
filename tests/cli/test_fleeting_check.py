"""`fleeting check`: what a provider finds, and whether an instance is reached."""

from __future__ import annotations

import json
import logging
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import pytest
from typing_extensions import override

from fleeting.cli._findings import check_group, finding_lines, verdict, worst_first
from fleeting.cli._signals import run_cancellable
from fleeting.errors import ConfigError, PermissionDenied, ProviderError
from fleeting.testing import FakeProvider, Reply
from fleeting.types import Finding, GroupSettings, Severity

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from farm import Farm
    from fleeting.testing import FakeConfig, FakeInstanceGroup

INFO = Finding(Severity.INFO, "fine", "all is well")
WARNING = Finding(Severity.WARNING, "az-rebalance", "it will hurt", "aws fix it")
ERROR = Finding(Severity.ERROR, "no-permission", "it may not", '{\n  "Allow":\t"*"\n}\n')


class Failing(FakeProvider):
    """Cannot say what it finds."""

    def __init__(self, error: BaseException | None) -> None:
        super().__init__()
        self.error = error

    @override
    async def check(self, config: FakeConfig, settings: GroupSettings) -> Sequence[Finding]:
        if self.error is None:
            await anyio.sleep_forever()
        raise self.error or AssertionError


def target(provider: FakeProvider) -> Target:
    """Return the name of a fake group."""
    return Target("plugin fake", provider, provider.config_type(), GroupSettings(), "--plugin fake")


def test_a_group_that_is_fine(farm: Farm) -> None:
    """With a running instance it is proven that jobs will get there."""
    [id] = farm.grow(1)
    done = farm.run("check", "local", *farm.named[2:])
    assert done.returncode == 0, done.stderr
    finding, end = done.stdout.splitlines()
    assert finding.startswith(
        f"info: reachable: instance {id} was reached, has run a command and taken"
    )
    assert end == "plugin local: nothing stands in the way"


def test_without_an_instance_nothing_is_proven(farm: Farm) -> None:
    """That none runs is a warning, no error; and none is started to find out."""
    done = farm.run("check", "local", *farm.named[2:], "--json")
    assert done.returncode == 0
    found = json.loads(done.stdout)
    [finding] = found["findings"]
    assert finding["code"] == "no-instance"
    words = "--plugin local --plugin-config root=... --plugin-config persistent=..."
    assert finding["fix"] == f"fleeting group increase 1 --wait {words}"
    assert (found["group"], found["plugin"]) == ("plugin local", "local")
    assert found["verdict"] == "warning"
    assert farm.ids() == []


def test_nobody_connects_who_was_told_not_to(farm: Farm) -> None:
    """`--no-connect` asks the provider alone, which for `local` makes no folder either."""
    done = farm.run("check", "local", *farm.named[2:], "--no-connect")
    assert done.returncode == 0
    assert done.stdout == "plugin local: nothing stands in the way\n"
    assert not (farm.folder / "farm").exists()


def test_an_error_is_exit_code_1(farm: Farm) -> None:
    """What the provider finds is told with its fix, and then nothing is opened."""
    done = farm.run("check", "local", "--plugin-config", "persistent=true")
    assert done.returncode == 1
    first, fix, end = done.stdout.splitlines()
    assert first.startswith("error: persistent-root: plugin_config.persistent: instances that ")
    assert fix == "    fix: set root to a directory, or persistent to false"
    assert end == "plugin local: 1 error"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), "no group is named; give the NAME of a plugin"),
        (("local", "-c", "f"), "both a plugin (local) and a file (f)"),
        (("local", "--plugin-config", "rot=1"), "did you mean 'root'?"),
        (("local", "--connector-config", "port=1"), "--connector-config: port: unknown key"),
        (("nimbus",), "no plugin named 'nimbus'"),
    ],
)
def test_what_is_wrong_with_the_words_is_no_finding(
    farm: Farm, words: tuple[str, ...], expected: str
) -> None:
    """A mistake in what was given is a sentence and exit code 2, before anything is checked."""
    done = farm.run("check", *words)
    assert done.returncode == 2
    assert expected in done.stderr
    assert done.stdout == ""


def test_an_instance_that_cannot_be_reached_is_an_error(farm: Farm) -> None:
    """The connector's own sentence says why, and a hint what to look at."""
    [id] = farm.grow(1)
    # Nobody listens there.
    wrong = ("--connector-config", "protocol_port=1", "--connector-config", "timeout=1s")
    done = farm.run("check", "local", *farm.named[2:], *wrong)
    assert done.returncode == 1
    first, fix, end = done.stdout.splitlines()
    assert first.startswith(f"error: unreachable: instance {id} runs and cannot be used: ")
    assert "could not be reached within 1 s" in first
    assert "connection refused" in first
    assert "connector_config" in fix
    assert end == "plugin local: 1 error"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a folder that takes no files")
def test_an_instance_that_takes_no_files_is_a_warning(farm: Farm) -> None:
    """Jobs that copy nothing would run there; what they would miss is said before the first."""
    [id] = farm.grow(1)
    home = farm.folder / "farm" / "instances" / id / "home"
    home.rmdir()
    home.symlink_to("/proc")
    done = farm.run("check", "local", *farm.named[2:])
    assert done.returncode == 0
    first, fix, end = done.stdout.splitlines()
    assert first.startswith(f"warning: no-files: instance {id} was reached and runs commands, but ")
    assert "SFTP" in fix
    assert end == "plugin local: 1 warning"


def test_the_file_says_how_to_reach_instances(farm: Farm) -> None:
    """`connector_config` of the file applies, and the command line wins over it."""
    farm.grow(1)
    path = farm.folder / "config.toml"
    path.write_text(
        '[[runners]]\nname = "a"\n[runners.autoscaler]\nplugin = "local"\n'
        f'plugin_config = {{ root = "{farm.folder / "farm"}", persistent = true }}\n'
        'connector_config = { username = "nobody", timeout = "5s" }\n'
    )
    done = farm.run("check", "-c", path)
    assert done.returncode == 1
    assert "nobody" in done.stdout
    username = farm.group("run", farm.ids()[0], options=("--", "id", "-un")).stdout.strip()
    done = farm.run("check", "-c", path, "--connector-config", f"username={username}")
    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines()[-1] == "runner a: nothing stands in the way"


def test_the_worst_comes_first() -> None:
    """Findings are in the order of their severity, and info does not count in the verdict."""
    assert worst_first([INFO, WARNING, ERROR]) == [ERROR, WARNING, INFO]
    assert verdict([WARNING, ERROR]) == "error"
    assert verdict([INFO, WARNING]) == "warning"
    assert verdict([INFO]) == "ok"


def test_a_long_fix_can_be_copied() -> None:
    """A fix of several lines is a block; what could steer a terminal is spelled out."""
    bad = Finding(Severity.ERROR, "c\x1b", "r\nr", "f\x07")
    assert list(finding_lines("g", [ERROR, bad, WARNING, INFO])) == [
        "error: no-permission: it may not",
        "    fix:",
        "        {",
        '          "Allow":    "*"',
        "        }",
        r"error: c\x1b: r\nr",
        r"    fix: f\x07",
        "warning: az-rebalance: it will hurt",
        "    fix: aws fix it",
        "info: fine: all is well",
        "g: 2 errors and 1 warning",
    ]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (PermissionDenied("the key is wrong"), "error: check-failed: the key is wrong"),
        (ConfigError("one", "two"), "error: check-failed: two"),
        (RuntimeError("oh\nno"), "not checked: the plugin has a bug (RuntimeError: oh no)"),
        (None, "plugin fake was not checked within 0.05 s"),
    ],
)
def test_a_check_that_fails_is_a_finding(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException | None,
    expected: str,
) -> None:
    """Whatever a provider raises, or if it never answers, is told as an error and no traceback."""
    monkeypatch.setattr("fleeting.cli._findings.CHECK_SECONDS", 0.05)
    provider = Failing(error)
    assert run_cancellable(check_group, selection(provider), connects=True, as_json=False) == 1
    assert expected in capsys.readouterr().out
    assert provider.groups == []


def test_a_group_that_does_not_open_is_a_finding(capsys: pytest.CaptureFixture[str]) -> None:
    """Where the check was fine and the opening is not, that is what is told."""
    provider = FakeProvider()
    provider.findings.append(WARNING)
    provider.errors.append(ProviderError("the cloud is away"))
    assert run_cancellable(check_group, selection(provider), connects=True, as_json=False) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "error: not-opened: the cloud is away"
    assert lines[1].startswith("warning: az-rebalance")


def test_a_listing_that_fails_is_a_finding(capsys: pytest.CaptureFixture[str]) -> None:
    """A group that opens and cannot be listed is of no use either."""

    class Unlisted(FakeProvider):
        @override
        @asynccontextmanager
        async def open(
            self, config: FakeConfig, settings: GroupSettings
        ) -> AsyncGenerator[FakeInstanceGroup]:
            async with super().open(config, settings) as group:
                group.script("update", Reply(error=PermissionDenied("it may not list")))
                yield group

    assert run_cancellable(check_group, selection(Unlisted()), connects=True, as_json=False) == 1
    assert "error: not-listed: it may not list" in capsys.readouterr().out


def test_what_opening_warns_of_is_not_told_twice(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """A provider warns of its findings when it opens a group; a check has told them already."""

    class Talking(FakeProvider):
        @override
        @asynccontextmanager
        async def open(
            self, config: FakeConfig, settings: GroupSettings
        ) -> AsyncGenerator[FakeInstanceGroup]:
            logging.getLogger("fleeting").warning("it will hurt")
            async with super().open(config, settings) as group:
                yield group

    assert run_cancellable(check_group, selection(Talking()), connects=True, as_json=False) == 0
    assert "no-instance" in capsys.readouterr().out
    assert caplog.records == []
