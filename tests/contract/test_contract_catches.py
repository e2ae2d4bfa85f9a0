from __future__ import annotations

import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections import defaultdict
from pathlib import Path

import pytest

HERE = Path(__file__).parent

# What is wrong with a group -> the test of the contract that is about that promise.
CAUGHT_BY = {
    "TestDecreaseRefusesUnknown": "test_decrease_accepts_unknown_instances",
    "TestListingHasDuplicate": "test_listing_is_stable",
    "TestListingForgets": "test_listing_is_stable",
    "TestIncreaseWaits": "test_increase_brings_running_instances",
    "TestIncreaseLies": "test_increase_brings_running_instances",
    "TestIncreaseRaisesForPart": "test_full_group_accepts_in_part",
    "TestIncreaseForgetsOperation": "test_repeated_operation_adds_nothing",
    "TestReplacesRemoved": "test_decrease_removes_without_replacement",
    "TestAcceptedIdsMissing": "test_decrease_is_idempotent",
    "TestKeyErrorForUnknown": "test_unknown_instance_is_gone",
    "TestInfoChanges": "test_increase_brings_running_instances",
    "TestCancellationLeaksTask": "test_cancelled_call[heartbeat]",
    "TestCancellationKeepsLock": "test_cancelled_call[update]",
    "TestSuspendsUndeclared": "test_suspend_and_resume",
    "TestSuspendDoesNothing": "test_suspend_and_resume",
    "TestClosingRemoves": "test_closing_touches_no_instance",
    "TestClosingLeavesFile": "test_closing_leaves_nothing_behind",
}


@pytest.fixture(scope="module")
def failures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Run on each wrong group the test that should catch it; return what failed, by group."""
    report = tmp_path_factory.mktemp("report") / "report.xml"
    wrong = HERE / "wrong_groups.py"
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"--junitxml={report}"]
    command += [f"{wrong}::TestRight"]
    command += [f"{wrong}::{group}::{test}" for group, test in CAUGHT_BY.items()]
    subprocess.run(command, check=False, capture_output=True, timeout=120, cwd=HERE)
    found: dict[str, set[str]] = defaultdict(set)
    for case in ET.parse(report).iter("testcase"):  # noqa: S314 - pytest wrote it just now
        group = case.attrib["classname"].rpartition(".")[2]
        found[group] |= {case.attrib["name"]} if case.find("failure") is not None else set()
    return found


def test_right_group_passes(failures: dict[str, set[str]]) -> None:
    """The contract finds nothing wrong with the group that the wrong ones are made from."""
    assert failures["TestRight"] == set()


def test_every_wrong_group_is_expected() -> None:
    """No wrong group was forgotten in the table of this file."""
    written = re.findall(r"^class (Test\w+)", (HERE / "wrong_groups.py").read_text(), re.MULTILINE)
    assert set(written) == {"TestRight", *CAUGHT_BY}


@pytest.mark.parametrize("group", CAUGHT_BY)
def test_wrong_group_is_caught(failures: dict[str, set[str]], group: str) -> None:
    """A group that breaks a promise fails the test that is about this promise."""
    assert CAUGHT_BY[group] in failures[group]
