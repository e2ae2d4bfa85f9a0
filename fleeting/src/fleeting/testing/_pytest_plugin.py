"""What the options of `fleeting_pytest` do; imported only when one of them is used."""

from __future__ import annotations

import json
import shutil
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest

from fleeting.errors import ConfigError, FleetingError, PluginError
from fleeting.testing._promises import promise_of, promises_of
from fleeting.testing._secrets import redact, shows_secret
from fleeting.testing._table import Judgement, Outcome, Result, judge, render, report_of
from fleeting.testing._target import Target, read_target

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ("TARGET", "configure")

TARGET = pytest.StashKey[Target]()
PROMISE = "fleeting-promise"
GROUP = "fleeting-group"

# The one file of tests of such a run.
INSTALLED = Path(__file__).with_name("_installed.py")

OPENING_SECONDS = 60.0


def configure(config: pytest.Config) -> None:
    """Set a run up as its options say.

    Raises:
        pytest.UsageError: they do not fit together, or cannot be followed.
    """
    name, file = config.getoption("fleeting_provider"), config.getoption("fleeting_config")
    runner, report = config.getoption("fleeting_runner"), config.getoption("fleeting_report")
    if report and not Path(report).absolute().parent.is_dir():
        raise pytest.UsageError(f"--fleeting-report {report}: there is no such folder; make it")
    if name and not file:
        raise pytest.UsageError(
            "--fleeting-provider needs --fleeting-config FILE; an empty file is enough for a "
            "plugin that needs no settings"
        )
    if (file or runner) and not name:
        option = "--fleeting-config" if file else "--fleeting-runner"
        raise pytest.UsageError(f"{option} needs --fleeting-provider NAME, the name of a plugin")
    if name and file:
        _aim(config, name, Path(file), runner)
    if not hasattr(config, "workerinput"):  # The main process of a distributed run tells it all.
        config.pluginmanager.register(_Table(config, report), "fleeting-table")


def _aim(config: pytest.Config, name: str, file: Path, runner: str | None) -> None:
    """Have the run collect the contract of a provider, and nothing else."""
    if config.args_source is pytest.Config.ArgsSource.ARGS:
        raise pytest.UsageError(
            f"--fleeting-provider runs the contract and no other test; drop {config.args[0]}, and "
            "choose tests of the contract by -k"
        )
    try:
        target = read_target(name, file, runner)
    except ConfigError as error:
        raise pytest.UsageError(*error.problems) from None
    except PluginError as error:
        raise pytest.UsageError(str(error)) from None
    config.stash[TARGET] = target
    config.args = [str(INSTALLED)]
    if config.option.tbstyle == "auto":
        # A long traceback shows the arguments of functions, such as a configuration.
        config.option.tbstyle = "short"
    if threading.current_thread() is threading.main_thread():
        # Who ends a run in this way too wants the instances of the test removed.
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)

        def restore() -> None:
            signal.signal(signal.SIGTERM, before)

        config.add_cleanup(restore)
    config.pluginmanager.register(_ProviderRun(target), "fleeting-provider")


class _ProviderRun:
    """Turns the file of tests that is shipped into the tests of one provider."""

    def __init__(self, target: Target) -> None:
        self._target = target

    def pytest_report_header(self) -> str:
        return f"fleeting: the contract of provider {self._target.name!r}"

    def pytest_pycollect_makemodule(
        self, module_path: Path, parent: pytest.Collector
    ) -> pytest.Module | None:
        if not module_path.samefile(INSTALLED):
            return None
        # In messages its name is that of the provider, and not of a file far away.
        return pytest.Module.from_parent(  # pyright: ignore[reportUnknownMemberType] - half typed
            parent, path=module_path, nodeid=self._target.name
        )

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Open the group once, so that a wrong setting is one sentence and not forty failures."""
        if session.config.option.collectonly:
            return
        try:
            anyio.run(_open_once, self._target)
        except ConfigError as error:
            problems = [redact(problem, self._target.secrets) for problem in error.problems]
            raise pytest.UsageError(*problems) from None
        except FleetingError as error:
            told = redact(str(error), self._target.secrets)
            pytest.exit(
                f"the group cannot be opened: {told}", returncode=pytest.ExitCode.TESTS_FAILED
            )
        except Exception:  # noqa: BLE001 - the tests show it, with all that belongs to it
            return

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(self) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        secrets = self._target.secrets
        if isinstance(report.longrepr, tuple):
            path, line, reason = report.longrepr
            report.longrepr = (path, line, redact(reason, secrets))
        elif report.longrepr is not None and shows_secret(text := str(report.longrepr), secrets):
            report.longrepr = redact(text, secrets)
        report.sections = [(name, redact(text, secrets)) for name, text in report.sections]
        return report


async def _open_once(target: Target) -> None:
    with anyio.fail_after(OPENING_SECONDS):
        async with target.open():
            pass


class _Table:
    """Keeps what came of the tests of the contract, and tells it in the end."""

    def __init__(self, config: pytest.Config, report: str | None) -> None:
        self._config = config
        self._report = report
        self._outcomes: dict[str, dict[str, Outcome]] = {}

    def pytest_itemcollected(self, item: pytest.Item) -> None:
        """Note what a test is about, where its reports take it along."""
        owner = getattr(item, "cls", None)
        shown = owner and promise_of(owner, getattr(item, "originalname", item.name))
        if shown and item.parent is not None:
            target = self._config.stash.get(TARGET, None)
            group = target.name if target else item.parent.nodeid
            item.user_properties += [(PROMISE, shown.promise.value), (GROUP, group)]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        noted = dict(report.user_properties)
        if PROMISE not in noted or (report.when != "call" and report.passed):
            return
        name = report.nodeid.rpartition("::")[2]
        outcome = Outcome(name, str(noted[PROMISE]), _result(report), _reason(report))
        known = self._outcomes.setdefault(str(noted[GROUP]), {})
        # What goes wrong when the test is over counts, too.
        if known.get(name) is None or outcome.result is Result.FAILED:
            known[name] = outcome

    def pytest_sessionfinish(self) -> None:
        if self._report is None:
            return
        told = report_of(self._judgements())
        Path(self._report).write_text(json.dumps(told, indent=2) + "\n")

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        width = shutil.get_terminal_size().columns
        for name, judgements in self._judgements().items():
            terminalreporter.section(f"what {name} keeps of the contract")
            for line in render(judgements, width):
                terminalreporter.write_line(line.text, **line.markup)

    def _judgements(self) -> dict[str, list[Judgement]]:
        from fleeting.testing import InstanceGroupContract

        known = promises_of(InstanceGroupContract)
        return {name: judge(found.values(), known) for name, found in self._outcomes.items()}


def _result(report: pytest.TestReport) -> Result:
    return Result.FAILED if report.failed else Result.SKIPPED if report.skipped else Result.PASSED


def _reason(report: pytest.TestReport) -> str:
    """Return in one line why a test failed or was skipped."""
    if report.passed:
        return ""
    if isinstance(report.longrepr, tuple):
        return report.longrepr[2].removeprefix("Skipped: ")
    crash = getattr(report.longrepr, "reprcrash", None)
    text = str(crash.message if crash else report.longrepr).strip()
    lines = text.splitlines() or [""]
    return (lines[0] if crash else lines[-1]).removeprefix("AssertionError: ")
