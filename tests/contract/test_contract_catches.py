"""Each test of the contract fails for a group that breaks its promise."""

from __future__ import annotations

import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections import defaultdict
from pathlib import Path

import pytest

from http_mistakes import read_mistakes

HERE = Path(__file__).parent

# A wrong group -> the test of the contract that has to fail for it.
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
    "TestSuspendsUndeclared": "test_undeclared_capabilities_are_refused",
    "TestSuspendDoesNothing": "test_suspend_and_resume",
    "TestClosingRemoves": "test_closing_touches_no_instance",
    "TestClosingLeavesFile": "test_closing_leaves_nothing_behind",
    "TestPageLost": "test_pages_are_listed_whole",
    "TestPageBorderTwice": "test_pages_are_listed_whole",
    "TestUpdateAdds": "test_update_changes_nothing",
    "TestIncarnationChanges": "test_listing_is_stable",
    "TestIdChanges": "test_info_names_the_same_group_again",
    "TestUnknownIsCloudsError": "test_unknown_instance_is_gone",
    "TestGoneIsSick": "test_removed_instance_is_gone",
    "TestDecreaseOfManyRefused": "test_decrease_of_many_unknown_instances",
    "TestDuplicateRefused": "test_mixed_decrease_removes_what_is_there",
    "TestDecreaseLowersTooMuch": "test_repeated_decrease_lowers_the_size_once",
    "TestComingStays": "test_decrease_of_an_instance_that_comes",
    "TestConnectLoses": "test_command_runs_on_the_instance",
    "TestConnectTruncates": "test_files_are_copied",
    "TestNameless": "test_info_names_the_group",
    "TestNamesOthers": "test_increase_names_the_instances_that_come",
    "TestRunningIsSick": "test_heartbeat_of_running_instance",
    "TestNothingIsAll": "test_decrease_of_nothing_does_nothing",
    "TestConnectInfoOfAnother": "test_connect_info_is_about_the_instance",
    "TestIncreasesMix": "test_calls_at_the_same_time",
    "TestSuspendNotTwice": "test_suspend_and_resume",
    "TestReaderTakesFailures": "test_second_reader_changes_nothing",
    "TestGoalsAreForgotten": "test_suspend_and_resume_without_the_first_handle",
    "TestSuspendedNotListed": "test_suspended_instance_stays_listed",
    "TestResumeForgets": "test_resumed_instance_is_the_same",
    "TestSuspendIgnoresCancellation": "test_cancelled_call[suspend]",
    "TestWatchHangs": "test_watch_can_be_cancelled",
    "TestWatchTellsNothing": "test_watch_reports_an_interruption",
    "TestListingsMix": "test_listings_at_the_same_time",
    "TestSecondOpeningDisturbs": "test_opening_a_second_time",
    "TestSwallowsCancellation": "test_cancelled_call[heartbeat]",
    "TestGoesOnWhenCancelled": "test_cancelled_call[connect_info]",
    "TestCancellationBecomesError": "test_cancelled_call[decrease]",
    "TestCancelledIncreaseRepeats": "test_cancelled_increase",
    "TestOpeningLeaves": "test_cancelled_opening",
    "TestClosingWraps": "test_closing_after_an_exception",
    "TestCancelledUseLeaves": "test_closing_after_a_cancellation",
    "TestLeavesThread": "test_closing_leaves_nothing_behind",
    "TestLeavesProcess": "test_closing_leaves_nothing_behind",
    "TestPilesSocketsUp": "test_using_a_group_piles_nothing_up",
    "TestSecretInError": "test_no_secret_shows",
    "TestSecretInCause": "test_no_secret_shows",
    "TestSecretInLog": "test_no_secret_shows",
    "TestCheckStarts": "test_check_starts_nothing",
    "TestCheckCriesWolf": "test_findings_say_what_matters",
    "TestCheckLeaves": "test_cancelled_check",
    "TestGoneGroupIsEmpty": "test_group_that_is_gone[update]",
}


MISTAKES = read_mistakes(HERE / "http_mistakes.toml")
NEED_A_CLOUD = {
    "test_boot_that_fails",
    "test_boot_that_hangs",
    "test_check_in_trouble",
    "test_creation_that_is_refused",
    "test_error_names_the_cause",
    "test_foreign_instance_is_left_alone",
    "test_foreign_instance_is_not_ours",
    "test_group_that_is_gone",
    "test_lost_reply_of_a_decrease",
    "test_lost_reply_of_an_increase",
    "test_opening_in_trouble",
    "test_page_that_fails",
    "test_removal_that_is_refused",
    "test_strange_state_is_unknown",
}
WRONG = [HERE / "wrong_groups.py", HERE / "wrong_groups_in_trouble.py"]
WRITTEN = {
    group: path for path in WRONG for group in re.findall(r"(?m)^class (Test\w+)", path.read_text())
}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """Run the test that should fail for each wrong group; return the outcomes by group."""
    report = tmp_path_factory.mktemp("report") / "report.xml"
    command = [sys.executable, "-m", "pytest", "-n0", "-p", "no:cacheprovider"]
    command += [f"--junitxml={report}"]
    command += [f"{WRITTEN['TestRight']}::TestRight"]
    command += [f"{WRITTEN[group]}::{group}::{test}" for group, test in CAUGHT_BY.items()]
    subprocess.run(command, check=False, capture_output=True, timeout=240, cwd=HERE)
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for case in ET.parse(report).iter("testcase"):  # noqa: S314 - pytest wrote it just now
        group = case.attrib["classname"].rpartition(".")[2]
        found[group][case.attrib["name"]] = next(
            (child.tag for child in case if child.tag != "properties"), "passed"
        )
    return found


@pytest.mark.long
def test_right_group_passes(outcomes: dict[str, dict[str, str]]) -> None:
    """The group that the wrong groups are derived from passes the contract."""
    found = outcomes["TestRight"]
    others = {name for name, outcome in found.items() if outcome != "passed"}
    # The fake group has no cloud whose faults it could cause; see `test_http_providers.py`.
    assert {found[name] for name in others} == {"skipped"}
    assert {name.partition("[")[0] for name in others} == NEED_A_CLOUD


def test_every_wrong_group_is_in_the_table() -> None:
    """The table of this file contains every wrong group."""
    assert set(WRITTEN) == {"TestRight", *CAUGHT_BY}


@pytest.mark.long
def test_every_test_of_the_contract_catches_something(outcomes: dict[str, dict[str, str]]) -> None:
    """Each test of the contract fails for at least one wrong group."""
    tests = {name.partition("[")[0] for name in outcomes["TestRight"]}
    of_http = {one.caught_by.partition("[")[0] for one in MISTAKES.values()}
    assert tests - of_http - {test.partition("[")[0] for test in CAUGHT_BY.values()} == set()


@pytest.mark.long
@pytest.mark.parametrize("group", CAUGHT_BY)
def test_wrong_group_is_caught(outcomes: dict[str, dict[str, str]], group: str) -> None:
    """A group that breaks a promise fails the test of this promise."""
    assert outcomes[group][CAUGHT_BY[group]] == "failure"
