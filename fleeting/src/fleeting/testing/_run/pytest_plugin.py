"""The implementation of the options of `fleeting_pytest`; imported only if one is used."""

from __future__ import annotations

import json
import shutil
import signal
import threading
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest

from fleeting.errors import ConfigError, FleetingError, PluginError
from fleeting.testing._contract.base import CALLS, REQUESTS
from fleeting.testing._contract.promises import promise_of, promises_of
from fleeting.testing._contract.secrets import redact, shows_secret
from fleeting.testing._run.provider_under_test import ProviderUnderTest, read_provider_under_test
from fleeting.testing._run.table import ContractOutcome, Judgement, Result, judge, render, report_of

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ("PROVIDER", "configure")

PROVIDER = pytest.StashKey[ProviderUnderTest]()
PROMISE = "fleeting-promise"
GROUP = "fleeting-group"

# The only test file of a run with --fleeting-provider.
INSTALLED = Path(__file__).with_name("installed.py")

OPENING_SECONDS = 60.0


def configure(config: pytest.Config) -> None:
    """Set up a run according to its options.

    Raises:
        pytest.UsageError: the options contradict each other, or name something missing.
    """
    name, file = config.getoption("fleeting_provider"), config.getoption("fleeting_config")
    runner, report = config.getoption("fleeting_runner"), config.getoption("fleeting_report")
    if report and not Path(report).absolute().parent.is_dir():
        raise pytest.UsageError(
            f"--fleeting-report {report}: the directory does not exist; create it first"
        )
    if name and not file:
        raise pytest.UsageError(
            "--fleeting-provider needs --fleeting-config FILE; for a plugin that needs no "
            "settings, an empty file is enough"
        )
    if (file or runner) and not name:
        option = "--fleeting-config" if file else "--fleeting-runner"
        raise pytest.UsageError(f"{option} needs --fleeting-provider NAME, the name of a plugin")
    if name and file:
        _aim(config, name, Path(file), runner)
    if not hasattr(config, "workerinput"):  # With pytest-xdist, only the main process reports.
        config.pluginmanager.register(_ContractSummary(config, report), "fleeting-table")


def _aim(config: pytest.Config, name: str, file: Path, runner: str | None) -> None:
    """Make the run collect only the contract of a provider."""
    if config.args_source is pytest.Config.ArgsSource.ARGS:
        raise pytest.UsageError(
            f"--fleeting-provider runs only the contract; drop {config.args[0]}, and select tests "
            "of the contract with -k"
        )
    try:
        tested = read_provider_under_test(name, file, runner)
    except ConfigError as error:
        raise pytest.UsageError(*error.problems) from None
    except PluginError as error:
        raise pytest.UsageError(str(error)) from None
    config.stash[PROVIDER] = tested
    config.args = [str(INSTALLED)]
    if config.option.tbstyle == "auto":
        # A long traceback would show the arguments of functions, such as a configuration.
        config.option.tbstyle = "short"
    if threading.current_thread() is threading.main_thread():
        # SIGTERM has to remove the instances of the test, as Ctrl-C does.
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)

        def restore() -> None:
            signal.signal(signal.SIGTERM, before)

        config.add_cleanup(restore)
    config.pluginmanager.register(_ProviderRun(tested), "fleeting-provider")


class _ProviderRun:
    """Runs the test file of this package on one provider."""

    def __init__(self, tested: ProviderUnderTest) -> None:
        self._tested = tested

    def pytest_report_header(self) -> str:
        return f"fleeting: the contract of provider {self._tested.name!r}"

    def pytest_pycollect_makemodule(
        self, module_path: Path, parent: pytest.Collector
    ) -> pytest.Module | None:
        if not module_path.samefile(INSTALLED):
            return None
        # Name the module after the provider, not after a file inside this package.
        return pytest.Module.from_parent(  # pyright: ignore[reportUnknownMemberType] - half typed
            parent, path=module_path, nodeid=self._tested.name
        )

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Open the group once, so that a wrong setting is one message and not forty failures."""
        if session.config.option.collectonly:
            return
        try:
            anyio.run(_open_once, self._tested)
        except ConfigError as error:
            problems = [redact(problem, self._tested.secrets) for problem in error.problems]
            raise pytest.UsageError(*problems) from None
        except FleetingError as error:
            message = redact(str(error), self._tested.secrets)
            pytest.exit(
                f"cannot open the group: {message}", returncode=pytest.ExitCode.TESTS_FAILED
            )
        except Exception:  # noqa: BLE001 - the tests will show it with a traceback
            return

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(self) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        secrets = self._tested.secrets
        if isinstance(report.longrepr, tuple):
            path, line, reason = report.longrepr
            report.longrepr = (path, line, redact(reason, secrets))
        elif report.longrepr is not None and shows_secret(text := str(report.longrepr), secrets):
            report.longrepr = redact(text, secrets)
        report.sections = [(name, redact(text, secrets)) for name, text in report.sections]
        return report


async def _open_once(tested: ProviderUnderTest) -> None:
    with anyio.fail_after(OPENING_SECONDS):
        async with tested.open():
            pass


class _ContractSummary:
    """Collects the results of the contract, and prints and writes them at the end."""

    def __init__(self, config: pytest.Config, report: str | None) -> None:
        self._config = config
        self._report = report
        self._outcomes: dict[str, dict[str, ContractOutcome]] = {}
        self._counts: dict[str, Counter[str]] = {}

    def pytest_itemcollected(self, item: pytest.Item) -> None:
        """Add the promise and the group of a test to the properties of its reports."""
        owner = getattr(item, "cls", None)
        shown = owner and promise_of(owner, getattr(item, "originalname", item.name))
        if shown and item.parent is not None:
            tested = self._config.stash.get(PROVIDER, None)
            group = tested.name if tested else item.parent.nodeid
            item.user_properties += [(PROMISE, shown.promise.value), (GROUP, group)]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        noted = dict(report.user_properties)
        if PROMISE in noted and report.when == "teardown":
            counts = self._counts.setdefault(str(noted[GROUP]), Counter())
            counts.update({name: int(str(noted.get(name, 0))) for name in (CALLS, REQUESTS)})
        if PROMISE not in noted or (report.when != "call" and report.passed):
            return
        name = report.nodeid.rpartition("::")[2]
        outcome = ContractOutcome(name, str(noted[PROMISE]), _result(report), _reason(report))
        known = self._outcomes.setdefault(str(noted[GROUP]), {})
        # A failure in the teardown of a test counts as well.
        if known.get(name) is None or outcome.result is Result.FAILED:
            known[name] = outcome

    def pytest_sessionfinish(self) -> None:
        if self._report is None:
            return
        data = report_of(self._judgements())
        Path(self._report).write_text(json.dumps(data, indent=2) + "\n")

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        width = shutil.get_terminal_size().columns
        for name, judgements in self._judgements().items():
            terminalreporter.section(f"contract of {name}")
            for line in render(judgements, width):
                terminalreporter.write_line(line.text, **line.markup)
            terminalreporter.write_line(_cost(self._counts.get(name, Counter())))

    def _judgements(self) -> dict[str, list[Judgement]]:
        from fleeting.testing import InstanceGroupContract

        known = promises_of(InstanceGroupContract)
        return {name: judge(found.values(), known) for name, found in self._outcomes.items()}


def _cost(counts: Counter[str]) -> str:
    """Return how much a run asked of the cloud."""
    requests = counts[REQUESTS]
    counted = f"{requests:,} requests" if requests else "requests: not counted (see `requests`)"
    return f"{counts[CALLS]:,} calls of the group, {counted}"


def _result(report: pytest.TestReport) -> Result:
    return Result.FAILED if report.failed else Result.SKIPPED if report.skipped else Result.PASSED


def _reason(report: pytest.TestReport) -> str:
    """Return why a test failed or was skipped, on one line."""
    if report.passed:
        return ""
    if isinstance(report.longrepr, tuple):
        return report.longrepr[2].removeprefix("Skipped: ")
    crash = getattr(report.longrepr, "reprcrash", None)
    text = str(crash.message if crash else report.longrepr).strip()
    lines = text.splitlines() or [""]
    return (lines[0] if crash else lines[-1]).removeprefix("AssertionError: ")
