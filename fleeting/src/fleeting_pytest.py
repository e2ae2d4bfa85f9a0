"""The options that `fleeting` adds to pytest.

pytest imports this module in every run of everybody who has fleeting installed, before it
knows what the run is about. So it stands outside of the package and imports nothing, not
even `fleeting`, until one of its options is used: it costs no time, and whoever measures
the coverage of `fleeting` or of a plugin still sees all of it imported.
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
    group = parser.getgroup("fleeting", "the contract of instance groups (fleeting)")
    group.addoption(
        "--fleeting-provider",
        metavar="NAME",
        help="hold the provider of an installed plugin to the contract; no other test is run",
    )
    group.addoption(
        "--fleeting-config",
        metavar="FILE",
        help="what to open the provider's group with: a TOML file with [plugin_config], or the "
        "config.toml of a runner",
    )
    group.addoption(
        "--fleeting-runner",
        metavar="NAME",
        help="which group of a config.toml: RUNNER, or RUNNER/GROUP if the runner has several",
    )
    group.addoption(
        "--fleeting-table",
        action="store_true",
        help="print which promises were kept by each group whose tests were run",
    )
    group.addoption(
        "--fleeting-report",
        metavar="FILE",
        help="write the same to a file, as JSON",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Do nothing, unless an option was used."""
    if any(config.getoption(option) for option in OPTIONS):
        from fleeting.testing._pytest_plugin import configure

        configure(config)
