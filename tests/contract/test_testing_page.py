"""The page about testing lists all settings, and the cost of each test."""

from __future__ import annotations

import importlib
import re
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from fleeting._decoding import decode
from fleeting.testing import InstanceGroupContract
from fleeting.testing._contract.promises import Promise, Shown, promise_of, promises_of
from fleeting.testing._run.provider_under_test import ContractSettings

PAGE = (Path(__file__).parents[2] / "docs" / "plugins" / "testing.md").read_text()
ROWS = re.findall(r"^\| ([^|]+) \| ([^|]+) \|", PAGE, re.MULTILINE)


def cost(shown: Shown) -> str:
    """Return how the page describes the cost of a test."""
    number = str(shown.adds) if shown.adds or not shown.affordable else "up to"
    if shown.each_await:
        number += ", and one for each await of `increase`"
    return number + (" `affordable`" if shown.affordable else "")


def test_every_test_has_its_cost() -> None:
    """The table contains each test of the contract, with the number of instances it adds."""
    told = {name.strip("`"): text for name, text in ROWS if name.startswith("`test_")}
    assert set(told) == set(promises_of(InstanceGroupContract))
    for name, text in told.items():
        shown = promise_of(InstanceGroupContract, name)
        assert shown is not None
        assert text.startswith(cost(shown)), f"{name} costs {cost(shown)}"


def test_every_promise_is_explained() -> None:
    """The table of promises contains each promise that a run prints."""
    assert {promise.value for promise in Promise} <= {name for name, _ in ROWS}


def test_every_option_is_described() -> None:
    """Each option of pytest and each key of `[contract]` is in a table."""
    names = {name.strip("`").split()[0] for name, _ in ROWS}
    plugin = importlib.import_module("fleeting_pytest")
    parser = pytest.Parser(_ispytest=True)
    plugin.pytest_addoption(parser)
    options = {
        name
        for group in parser._groups
        if group.name == "fleeting"
        for option in group.options
        for name in option.names()
    }
    assert len(options) == len(plugin.OPTIONS)
    assert options <= names
    assert set(ContractSettings.__struct_fields__) <= names


def test_settings_of_the_file_are_attributes_of_the_class() -> None:
    """Each key of `[contract]` sets an attribute of the class, of the same type."""
    for field in msgspec.structs.fields(ContractSettings):
        default = getattr(InstanceGroupContract, field.name)
        if default is not None:
            written = "20s" if isinstance(default, timedelta) else default
            settings = decode({field.name: written}, ContractSettings, where="the test")
            (value,) = settings.attributes().values()
            assert isinstance(value, type(default))
