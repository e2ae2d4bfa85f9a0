"""How failed launches are read from the activity history and classified."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from fleeting.errors import (
    OutOfCapacity,
    PermissionDenied,
    ProviderError,
    QuotaExceeded,
    Throttled,
)
from fleeting_plugin_aws._activities import (
    LaunchTemplateError,
    classify,
    launch_failures,
    read_activities,
)

NOON = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
FAILED = "Launching EC2 instance failed."

# Sentences from AWS's documentation and from reports of users.
CAPACITY = [
    (
        "We currently do not have sufficient m5.large capacity in the Availability Zone you "
        "requested "
        "(eu-central-1a). Our system will be working on provisioning additional capacity. You can "
        "currently get m5.large capacity by not specifying an Availability Zone in your request or "
        "choosing eu-central-1b, eu-central-1c."
    ),
    (
        "Could not launch Spot Instances. InsufficientInstanceCapacity - There is no Spot capacity "
        "available that matches your request."
    ),
    (
        "Could not launch On-Demand Instances. UnfulfillableCapacity - Unable to fulfill "
        "capacity due "
        "to your request configuration. Please adjust your request and try again."
    ),
    (
        "Your requested instance type (t4g.micro) is not supported in your requested "
        "Availability Zone "
        "(us-east-1e). Please retry your request by not specifying an Availability Zone."
    ),
    (
        "Could not launch Spot Instances. SpotMaxPriceTooLow - Your Spot request price of 0.01 is "
        "lower than the minimum required Spot request fulfillment price of 0.03."
    ),
]
QUOTA = [
    (
        "You have requested more vCPU capacity than your current vCPU limit of 32 allows for the "
        "instance bucket that the specified instance type belongs to."
    ),
    (
        "You have requested more instances (21) than your current instance limit of 20 allows "
        "for the "
        "specified instance type."
    ),
    (
        "Could not launch Spot Instances. MaxSpotInstanceCountExceeded - Max spot instance count "
        "exceeded."
    ),
    "20 instance(s) are already running.",
    (
        "Could not launch On-Demand Instances. VcpuLimitExceeded - You have requested more vCPU "
        "capacity than your current vCPU limit of 32 allows."
    ),
]
PERMISSION = [
    (
        "You are not authorized to perform this operation. Encoded authorization failure message: "
        "1Q2w3E"
    ),
    "You are not subscribed to this service. Please see https://aws.amazon.com/.",
    "Client.InternalError: Client error on launch.",
]
TEMPLATE = [
    "The key pair 'builders' does not exist.",
    "The security group 'sg-0123456789abcdef0' does not exist.",
    "The image id '[ami-0123456789abcdef0]' does not exist",
    (
        "The requested configuration is currently not supported. Please check the documentation "
        "for "
        "supported configurations."
    ),
    "Invalid device name upload.",
    "Placement groups may not be used with instances of type 'm1.large'.",
    "You must use a valid fully-formed launch template. Value () for parameter groupId is invalid.",
]
SENTENCES = [
    *((one, OutOfCapacity) for one in CAPACITY),
    *((one, QuotaExceeded) for one in QUOTA),
    *((one, PermissionDenied) for one in PERMISSION),
    *((one, LaunchTemplateError) for one in TEMPLATE),
    ("Request limit exceeded.", Throttled),
    ("Something new happened.", ProviderError),
]


def activity(message: str = "", **facts: Any) -> dict[str, Any]:
    """Return an activity as AWS describes it."""
    return {
        "ActivityId": "a-1",
        "Description": f"Launching a new EC2 instance.  Status Reason: {message}",
        "StatusCode": "Failed",
        "StatusMessage": message,
        "StartTime": NOON,
        "EndTime": NOON,
        "Details": '{"Subnet ID":"subnet-1","Availability Zone":"eu-central-1a"}',
        **facts,
    }


@pytest.mark.parametrize(("text", "kind"), SENTENCES)
def test_sentences_are_classified(text: str, kind: type[ProviderError]) -> None:
    """AWS's sentence about a failed launch becomes an error of the right class."""
    [found] = read_activities({"Activities": [activity(f"{text} {FAILED}")]})
    assert type(classify(found, "builders")) is kind


def test_capacity_names_type_zone_and_reason() -> None:
    """An error about capacity names the instance type, the zone and AWS's reason."""
    [found] = read_activities({"Activities": [activity(f"{CAPACITY[0]} {FAILED}")]})
    text = str(classify(found, "builders"))
    assert text.startswith("the launch of an m5.large in eu-central-1a for builders failed: We")
    assert FAILED not in text


def test_template_errors_are_not_retryable() -> None:
    """Only an operator can correct a launch template, so a retry does not help."""
    [found] = read_activities({"Activities": [activity(TEMPLATE[0])]})
    assert not classify(found, "builders").retryable


def test_one_error_for_each_instance() -> None:
    """A failed launch can be for several instances; each of them gets an error."""
    found = read_activities(
        {
            "Activities": [
                activity(CAPACITY[0], Details='{"Availability Zone":"eu-central-1b"}'),
                activity(CAPACITY[0]),
            ]
        }
    )
    text = [str(one.error) for one in launch_failures(found, 3, "builders")]
    assert ["1b" in one.split(" for ")[0] for one in text] == [True, False, True]


@pytest.mark.parametrize(
    ("description", "status", "failed", "launching"),
    [
        ("Launching a new EC2 instance: i-0a1b", "Successful", False, False),
        ("Launching a new EC2 instance: i-0a1b", "PreInService", False, True),
        ("Launching a new EC2 instance", "WaitingForInstanceId", False, True),
        ("Launching a new EC2 instance.  Status Reason: no", "Failed", True, False),
        ("Launching a new EC2 instance", "Cancelled", False, False),
        ("Terminating EC2 instance: i-0a1b", "Failed", False, False),
        ("Terminating EC2 instance: i-0a1b", "InProgress", False, False),
    ],
)
def test_kinds_of_activities(
    description: str,
    status: str,
    failed: bool,  # noqa: FBT001 - what is expected
    launching: bool,  # noqa: FBT001
) -> None:
    """Failed launches and launches under way are recognised; other activities are neither."""
    [found] = read_activities(
        {"Activities": [activity(Description=description, StatusCode=status)]}
    )
    assert (found.is_failed_launch, found.is_launching) == (failed, launching)
    assert found.instance == ("i-0a1b" if "i-0a1b" in description else "")


@pytest.mark.parametrize("details", ["", "no JSON", "[]", "{}", "null"])
def test_details_can_be_missing(details: str) -> None:
    """An activity whose details cannot be parsed has no zone, but is still read."""
    [found] = read_activities({"Activities": [activity(CAPACITY[1], Details=details)]})
    assert found.zone == ""
    assert str(classify(found, "builders")).startswith("the launch for builders failed: Could not")


def test_activity_under_way_ended_when_it_started() -> None:
    """An activity without an end time ends when it started."""
    given = activity(StatusCode="InProgress")
    del given["EndTime"]
    [found] = read_activities({"Activities": [given]})
    assert found.ended == NOON
