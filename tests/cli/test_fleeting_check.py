"""`fleeting check`: the findings of a provider, and whether an instance is reachable."""

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
from fleeting.types import Finding, Severity
from prepared_group import selected

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from farm import Farm
    from fleeting.testing import FakeConfig, FakeInstanceGroup
    from fleeting.types import GroupSettings

INFO = Finding(Severity.INFO, "fine", "all is well")
WARNING = Finding(Severity.WARNING, "az-rebalance", "it will hurt", "aws fix it")
ERROR = Finding(Severity.ERROR, "no-permission", "it may not", '{\n  "Allow":\t"*"\n}\n')


class Failing(FakeProvider):
    """Has a check that fails, or never ends if the error is None."""

    def __init__(self, error: BaseException | None) -> None:
        super().__init__()
        self.error = error

    @override
    async def check(self, config: FakeConfig, settings: GroupSettings) -> Sequence[Finding]:
        if self.error is None:
            await anyio.sleep_forever()
        raise self.error or AssertionError


def test_group_without_problems(shared_farm: Farm, instance_id: str) -> None:
    """With a running instance, the check connects to it and copies a file."""
    done = shared_farm.run("check", "local", *shared_farm.named[2:])
    assert done.returncode == 0, done.stdout
    finding, end = done.stdout.splitlines()
    assert finding.startswith(
        f"info: reachable: instance {instance_id} ran a command and accepted a file in"
    )
    assert end == "plugin local: no problems found"


def test_no_running_instance_is_a_warning(farm: Farm) -> None:
    """Without a running instance there is a warning, and the check starts none."""
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


def test_instances_that_end_with_their_command_are_not_advised(farm: Farm) -> None:
    """An instance that was added by hand would be gone; the fix is to make them persistent."""
    done = farm.run("check", "local", "--json")
    assert done.returncode == 0
    fixes = {one["code"]: one["fix"] for one in json.loads(done.stdout)["findings"]}
    assert fixes["no-instance"] == ""
    assert "set root to a directory and persistent to true" in fixes["not-persistent"]


def test_no_connect_only_asks_the_provider(farm: Farm) -> None:
    """`--no-connect` does not open the group, so `local` creates no folder."""
    done = farm.run("check", "local", *farm.named[2:], "--no-connect")
    assert done.returncode == 0
    assert done.stdout == "plugin local: no problems found\n"
    assert not (farm.folder / "farm").exists()


def test_error_is_exit_code_1(farm: Farm) -> None:
    """An error of the provider is shown with its fix, and the group is not opened."""
    done = farm.run("check", "local", "--plugin-config", "persistent=true")
    assert done.returncode == 1
    first, fix, end = done.stdout.splitlines()
    assert first.startswith("error: persistent-root: plugin_config.persistent: ")
    assert fix == "    fix: set root to a directory, or persistent to false"
    assert end == "plugin local: 1 error"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), "no group given; use the NAME of a plugin"),
        (("local", "-c", "f"), "both a plugin (local) and a config file (f)"),
        (("local", "--plugin-config", "rot=1"), "did you mean 'root'?"),
        (("local", "--connector-config", "port=1"), "--connector-config: port: unknown key"),
        (("local", "--connector-config", "protocol=shh"), "did you mean 'ssh'?"),
        (("local", "--connector-config", "key_path=gone"), "gone cannot be read"),
        (("loacl",), "no plugin named 'loacl' is installed"),
        (("loacl",), "did you mean 'local'? Otherwise run `fleeting install loacl`"),
    ],
)
def test_invalid_options_are_not_findings(
    farm: Farm, words: tuple[str, ...], expected: str
) -> None:
    """Invalid input is one message and exit code 2, before anything is checked."""
    done = farm.run("check", *words)
    assert done.returncode == 2
    assert expected in done.stderr
    assert done.stdout == ""


def test_unreachable_instance_is_an_error(shared_farm: Farm, instance_id: str) -> None:
    """The finding has the message of the connector, and a fix."""
    # No server listens on this port.
    wrong = ("--connector-config", "protocol_port=1", "--connector-config", "timeout=1s")
    done = shared_farm.run("check", "local", *shared_farm.named[2:], *wrong)
    assert done.returncode == 1
    first, fix, end = done.stdout.splitlines()
    assert first.startswith(
        f"error: unreachable: instance {instance_id} is running but cannot be used: "
    )
    assert "could not be reached within 1 s" in first
    assert "connection refused" in first
    assert "connector_config" in fix
    assert end == "plugin local: 1 error"


@pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux has a directory that accepts no files"
)
def test_instance_that_accepts_no_files_is_a_warning(farm: Farm) -> None:
    """If commands run but files cannot be copied, the check warns."""
    [id] = farm.grow(1)
    home = farm.folder / "farm" / "instances" / id / "home"
    home.rmdir()
    home.symlink_to("/proc")
    done = farm.run("check", "local", *farm.named[2:])
    assert done.returncode == 0
    first, fix, end = done.stdout.splitlines()
    assert first.startswith(
        f"warning: no-files: instance {id} runs commands, but does not accept files: "
    )
    assert "SFTP" in fix
    assert end == "plugin local: 1 warning"


def test_connector_config_of_the_file(farm: Farm) -> None:
    """`connector_config` of the file applies, and the command line overrides it."""
    farm.grow(1)
    path = farm.folder / "config.toml"
    path.write_text(
        '[[runners]]\nname = "a"\n[runners.autoscaler]\nplugin = "local"\n'
        f'plugin_config = {{ root = "{farm.folder / "farm"}", persistent = true }}\n'
        'connector_config = { username = "stranger", timeout = "5s" }\n'
    )
    done = farm.run("check", "-c", path)
    assert done.returncode == 1
    assert "stranger" in done.stdout
    username = farm.remote(farm.ids()[0], "id", "-un").stdout.strip()
    done = farm.run("check", "-c", path, "--connector-config", f"username={username}")
    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines()[-1] == "runner a: no problems found"


def test_worst_finding_is_first() -> None:
    """Findings are sorted by severity, and info does not count for the verdict."""
    assert worst_first([INFO, WARNING, ERROR]) == [ERROR, WARNING, INFO]
    assert verdict([WARNING, ERROR]) == "error"
    assert verdict([INFO, WARNING]) == "warning"
    assert verdict([INFO]) == "ok"


def test_fix_of_several_lines_is_a_block() -> None:
    """A fix of several lines can be copied; control characters are escaped."""
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
def test_failed_check_is_a_finding(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException | None,
    expected: str,
) -> None:
    """An exception or a timeout of the provider becomes an error without a traceback."""
    monkeypatch.setattr("fleeting.cli._findings.CHECK_SECONDS", 0.05)
    provider = Failing(error)
    assert run_cancellable(check_group, selected(provider), connects=True, as_json=False) == 1
    assert expected in capsys.readouterr().out
    assert provider.groups == []


def test_failed_opening_is_a_finding(capsys: pytest.CaptureFixture[str]) -> None:
    """If the provider finds no error but the group does not open, that is an error."""
    provider = FakeProvider()
    provider.findings.append(WARNING)
    provider.errors.append(ProviderError("the cloud is away"))
    assert run_cancellable(check_group, selected(provider), connects=True, as_json=False) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "error: not-opened: the cloud is away"
    assert lines[1].startswith("warning: az-rebalance")


def test_failed_listing_is_a_finding(capsys: pytest.CaptureFixture[str]) -> None:
    """If the group opens but cannot be listed, that is an error."""

    class Unlisted(FakeProvider):
        @override
        @asynccontextmanager
        async def open(
            self, config: FakeConfig, settings: GroupSettings
        ) -> AsyncGenerator[FakeInstanceGroup]:
            async with super().open(config, settings) as group:
                group.script("update", Reply(error=PermissionDenied("it may not list")))
                yield group

    assert run_cancellable(check_group, selected(Unlisted()), connects=True, as_json=False) == 1
    assert "error: not-listed: it may not list" in capsys.readouterr().out


def test_warnings_of_opening_are_not_repeated(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Opening a group logs the findings of its provider, which the check shows already."""

    class Talking(FakeProvider):
        @override
        @asynccontextmanager
        async def open(
            self, config: FakeConfig, settings: GroupSettings
        ) -> AsyncGenerator[FakeInstanceGroup]:
            logging.getLogger("fleeting").warning("it will hurt")
            async with super().open(config, settings) as group:
                yield group

    assert run_cancellable(check_group, selected(Talking()), connects=True, as_json=False) == 0
    assert "no-instance" in capsys.readouterr().out
    assert caplog.records == []
