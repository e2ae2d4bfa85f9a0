"""The fake cloud finds wrong requests, wrong answers and operations that are not modelled."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import aiohttp
import pytest
from botocore.exceptions import ClientError
from botocore.parsers import create_parser
from botocore.serialize import create_serializer

from aws_shapes import answer_problems, request_problems
from aws_wire import BadRequest, answer_body, error_body, read_request, service_model

if TYPE_CHECKING:
    from aws_cloud import AwsCloud

anyio_mark = pytest.mark.anyio


def signed_for(service: str) -> dict[str, str]:
    """Return the header of a request to a service."""
    credential = f"AKIAIOSFODNN7EXAMPLE/20260101/eu-central-1/{service}/aws4_request"
    return {"Authorization": f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders=host"}


def form(service: str, operation: str, **fields: str) -> bytes:
    """Return the body of a request in the query protocol."""
    version = service_model(service).metadata["apiVersion"]
    pairs = {"Action": operation, "Version": version, **fields}
    return "&".join(f"{name}={value}" for name, value in pairs.items()).encode()


@pytest.mark.parametrize(
    ("service", "operation", "parameters"),
    [
        (
            "autoscaling",
            "DescribeAutoScalingGroups",
            {
                "AutoScalingGroupNames": ["a", "b"],
                "MaxRecords": 7,
                "Filters": [{"Name": "tag:x", "Values": ["1", "2"]}],
            },
        ),
        (
            "autoscaling",
            "SetDesiredCapacity",
            {"AutoScalingGroupName": "a b&c", "DesiredCapacity": 0, "HonorCooldown": False},
        ),
        (
            "autoscaling",
            "EnterStandby",
            {
                "InstanceIds": [],
                "AutoScalingGroupName": "a",
                "ShouldDecrementDesiredCapacity": True,
            },
        ),
        (
            "ec2",
            "DescribeInstances",
            {"InstanceIds": ["i-1", "i-2"], "Filters": [{"Name": "n", "Values": ["v"]}]},
        ),
        ("ec2", "StopInstances", {"InstanceIds": ["i-1"], "Hibernate": True, "DryRun": False}),
        ("sqs", "SendMessage", {"QueueUrl": "http://x/1/q", "MessageBody": "é"}),
        ("sqs", "CreateQueue", {"QueueName": "q", "Attributes": {"VisibilityTimeout": "5"}}),
        (
            "sts",
            "AssumeRole",
            {"RoleArn": "a" * 20, "RoleSessionName": "bc", "DurationSeconds": 900},
        ),
    ],
)
def test_requests_are_read_as_botocore_writes_them(
    service: str, operation: str, parameters: dict[str, Any]
) -> None:
    """Requests of botocore are parsed correctly, in each protocol."""
    model = service_model(service).operation_model(operation)
    create: Any = create_serializer
    serializer = create(service_model(service).metadata["protocol"])
    request = serializer.serialize_to_request(parameters, model)
    body = request["body"]
    if not isinstance(body, bytes):
        body = urlencode(body).encode()
    read = read_request(signed_for(service) | request["headers"], body)
    assert (read.service, read.operation.name) == (service, operation)
    assert read.parameters == parameters


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (form("autoscaling", "SetDesiredCapacity", DesiredCapasity="3"), "DesiredCapasity"),
        (form("autoscaling", "SetDesired"), "no operation 'SetDesired'"),
        (form("ec2", "DescribeAutoScalingGroups"), "no version"),
        (
            form("autoscaling", "EnterStandby", ShouldDecrementDesiredCapacity="yes"),
            "not a boolean",
        ),
    ],
)
def test_wrong_requests_are_found(body: bytes, words: str) -> None:
    """An unknown parameter, operation or version, and a value of the wrong type are refused."""
    with pytest.raises(BadRequest, match=words):
        read_request(signed_for("autoscaling"), body)


def test_unsigned_requests_are_found() -> None:
    """A request without a signature, or for an unknown service, is refused."""
    with pytest.raises(BadRequest, match="not signed"):
        read_request({}, form("autoscaling", "DescribeAutoScalingGroups"))
    with pytest.raises(BadRequest, match="no service s3"):
        read_request(signed_for("s3"), b"")


def test_missing_parameters_are_found() -> None:
    """A required parameter that is missing, and a value out of its enumeration, are problems."""
    model = service_model("autoscaling").operation_model("SetDesiredCapacity")
    [problem] = request_problems(model, {"AutoScalingGroupName": "a"})
    assert 'Missing required parameter in input: "DesiredCapacity"' in problem
    model = service_model("ec2").operation_model("RunInstances")
    problems = request_problems(
        model, {"MinCount": 1, "MaxCount": 1, "InstanceInitiatedShutdownBehavior": "explode"}
    )
    assert ["explode" in problem for problem in problems] == [True]


GOOD: dict[str, Any] = {"Instances": [], "MinSize": 0, "MaxSize": 1, "DesiredCapacity": 0}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"MinSize": "0"}, "Invalid type"),
        ({"Colour": "red"}, 'Unknown parameter in AutoScalingGroups\\[0\\]: "Colour"'),
        ({"DefaultCooldown": None}, "Invalid type"),
        (
            {
                "Instances": [
                    {
                        "InstanceId": "i-1",
                        "AvailabilityZone": "a",
                        "LifecycleState": "Sleeping",
                        "HealthStatus": "Healthy",
                        "ProtectedFromScaleIn": False,
                    }
                ]
            },
            "LifecycleState is 'Sleeping'",
        ),
    ],
)
def test_wrong_answers_are_found(change: dict[str, Any], words: str) -> None:
    """A wrong type, an unknown key, a missing one and an unknown value are problems."""
    model = service_model("autoscaling").operation_model("DescribeAutoScalingGroups")
    answer: dict[str, Any] = {"AutoScalingGroups": [GOOD | change]}
    problems = answer_problems(model, answer, answer_body(model, answer))
    assert any(re.search(words, problem) for problem in problems)
    assert any("Missing required" in problem for problem in problems)


def test_deliberate_unknown_values_are_allowed() -> None:
    """A value outside of its enumeration is allowed if a test has set it."""
    model = service_model("autoscaling").operation_model("DescribeScalingActivities")
    answer: dict[str, Any] = {"Activities": []}
    assert answer_problems(model, answer, answer_body(model, answer)) == []
    model = service_model("ec2").operation_model("StopInstances")
    answer = {"StoppingInstances": [{"CurrentState": {"Name": "dreaming", "Code": 99}}]}
    body = answer_body(model, answer)
    assert len(answer_problems(model, answer, body)) == 1
    assert answer_problems(model, answer, body, frozenset({"dreaming"})) == []


def test_answers_that_botocore_parses_differently_are_found() -> None:
    """A body that botocore parses differently is a problem."""
    model = service_model("ec2").operation_model("GetPasswordData")
    answer = {"InstanceId": "i-1", "PasswordData": "x"}
    body = answer_body(model, answer)
    assert answer_problems(model, answer, body) == []
    [problem] = answer_problems(model, answer, body.replace(b"passwordData", b"password"))
    assert "botocore reads" in problem


@pytest.mark.parametrize("service", ["autoscaling", "ec2", "ec2-instance-connect", "sqs", "sts"])
def test_errors_are_read(service: str) -> None:
    """Code and message of an error are parsed by botocore, in each protocol."""
    model = service_model(service)
    create: Any = create_parser
    parsed = create(model.metadata["protocol"]).parse(
        {"status_code": 400, "headers": {}, "body": error_body(service, "Code", "what < why")},
        model.operation_model(model.operation_names[0]).output_shape,
    )
    assert (parsed["Error"]["Code"], parsed["Error"]["Message"]) == ("Code", "what < why")


@anyio_mark
async def test_wrong_requests_fail_a_test(cloud: AwsCloud) -> None:
    """A wrong request is a problem, and the fixture fails the test."""
    body = form("autoscaling", "SetDesiredCapacity", DesiredCapasity="3")
    async with (
        aiohttp.ClientSession() as session,
        session.post(cloud.url, data=body, headers=signed_for("autoscaling")) as response,
    ):
        assert response.status == 400
    assert cloud.take_problems() == [
        "request: SetDesiredCapacity has no parameters ['DesiredCapasity']"
    ]


@anyio_mark
async def test_unmodelled_operations_fail_a_test(cloud: AwsCloud) -> None:
    """An operation that is not modelled is a problem."""
    async with cloud.client("autoscaling") as autoscaling:
        with pytest.raises(ClientError, match="InternalFailure"):
            await autoscaling.describe_account_limits()
    [problem] = cloud.take_problems()
    assert "not modelled: DescribeAccountLimits" in problem


@anyio_mark
async def test_wrong_answers_fail_a_test(cloud: AwsCloud) -> None:
    """An answer that violates the model is a problem."""
    cloud.group("builders", facts={"MaxInstanceLifetime": "a day"})
    async with cloud.client("autoscaling") as autoscaling:
        with pytest.raises(ValueError, match="invalid literal"):
            await autoscaling.describe_auto_scaling_groups()
    assert any("MaxInstanceLifetime" in problem for problem in cloud.take_problems())
