"""The options that `fleeting` adds to pytest.

pytest imports this module in every run in an environment that has fleeting, whatever the run
tests. So the module is outside of the package, and imports nothing of it until one of its
options is used: it costs no time, and does not disturb a measurement of coverage.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

__all__ = ("pytest_addoption", "pytest_configure")

OPTIONS = (
    "fleeting_provider",
    "fleeting_config",
    "fleeting_runner",
    "fleeting_table",
    "fleeting_report",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("fleeting", "contract of instance groups (fleeting)")
    group.addoption(
        "--fleeting-provider",
        metavar="NAME",
        help="run the contract on the provider of this installed plugin, and no other tests",
    )
    group.addoption(
        "--fleeting-config",
        metavar="FILE",
        help="the configuration of the provider: a TOML file with [plugin_config], or the "
        "config.toml of a runner",
    )
    group.addoption(
        "--fleeting-runner",
        metavar="NAME",
        help="select a group of a config.toml: RUNNER, or RUNNER/GROUP if it has several groups",
    )
    group.addoption(
        "--fleeting-table",
        action="store_true",
        help="print a table of the promises that each tested group keeps",
    )
    group.addoption(
        "--fleeting-report",
        metavar="FILE",
        help="write the table to a file, as JSON",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Do nothing, unless an option was used."""
    if any(config.getoption(option) for option in OPTIONS):
        from fleeting.testing._run.pytest_plugin import configure

        configure(config)
