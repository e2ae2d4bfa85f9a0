"""The findings of a check, and the errors that stop a group from being opened."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import msgspec
import pytest

from aws_errors import AccessDenied, CredentialsExpired, Throttled
from aws_plugin import configure, drive, open_group
from fleeting import Registry, decode
from fleeting.errors import ConfigError, PermissionDenied, ProviderError
from fleeting.types import Capability, ConnectorSettings, Duration, GroupSettings, Severity, State
from fleeting_plugin_aws import AwsConfig, AwsProvider, _check, _findings, _preflight
from fleeting_plugin_aws._policy import minimal_policy, policy_text

if TYPE_CHECKING:
    from aws_cloud import AwsCloud
    from fleeting.abc import InstanceGroup
    from fleeting.types import Finding

pytestmark = pytest.mark.anyio

CHANGING = {"SetDesiredCapacity", "TerminateInstanceInAutoScalingGroup", "SendSSHPublicKey"}


async def check(
    cloud: AwsCloud, settings: GroupSettings | None = None, **changes: Any
) -> dict[str, Finding]:
    """Return the findings by their codes, after asserting that nothing was changed."""
    found = await AwsProvider().check(configure(cloud, **changes), settings or GroupSettings())
    order = [Severity.ERROR, Severity.WARNING, Severity.INFO]
    places = [order.index(one.severity) for one in found]
    assert places == sorted(places)
    assert not CHANGING & {call.operation for call in cloud.calls()}
    return {one.code: one for one in found}


async def test_good_group(cloud: AwsCloud) -> None:
    """The check of a good group reports the identity and the policy only."""
    cloud.group("builders")
    found = await check(cloud)
    assert set(found) == {"identity", "iam-policy"}
    assert found["identity"].severity is Severity.INFO


async def test_policy_is_for_this_group(cloud: AwsCloud) -> None:
    """The policy can be copied: it names the group, the region and the account."""
    cloud.group("builders")
    text = (await check(cloud))["iam-policy"].fix
    resources = {str(one["Resource"]) for one in json.loads(text)["Statement"]}
    assert (
        "arn:aws:autoscaling:eu-central-1:123456789012:autoScalingGroup:*"
        ":autoScalingGroupName/builders"
    ) in resources


async def test_policy_suffices(cloud: AwsCloud) -> None:
    """The policy allows exactly the actions that the plugin uses."""
    port = cloud.use_machines()
    cloud.group("builders")
    queue = cloud.queue("interruptions")
    changes: dict[str, Any] = {"host_keys": "console", "interruption_queue_url": queue.url}
    found = await check(cloud, **changes)
    async with open_group(cloud, **changes) as group:
        cloud.room(1)
        await group.increase(2, "one")
        while not (await group.update()).instances:
            pass
        cloud.settle()
        [instance] = (await group.update()).instances
        await group.connect_info(instance.id)
        notices = group.watch()
        for _ in range(2):  # The second waits until the first has been deleted.
            queue.recommend_rebalance(instance.id)
            await anext(notices)
        await notices.aclose()  # type: ignore[attr-defined] # pyright: ignore[reportAttributeAccessIssue]
        await group.suspend([instance.id])
        await becomes(cloud, group, State.SUSPENDED)
        await group.resume([instance.id])
        await becomes(cloud, group, State.RUNNING)
        await group.decrease([instance.id])
    statements = json.loads(found["iam-policy"].fix)["Statement"]
    allowed = {action for one in statements for action in one["Action"]}
    asked = {f"{call.service}:{call.operation}" for call in cloud.calls()}
    asked = {one.replace("MessageBatch", "Message") for one in asked}
    assert port
    assert asked - allowed == {"sts:GetCallerIdentity"}  # Which needs no permission.
    assert allowed - asked == set()


async def becomes(cloud: AwsCloud, group: InstanceGroup, state: State) -> None:
    """Wait until every instance is in a state."""
    for _ in range(10):
        cloud.settle()
        if {one.state for one in (await drive(group)).instances} == {state}:
            return
    pytest.fail(f"the instances did not become {state}")


async def test_all_problems_are_found(cloud: AwsCloud) -> None:
    """One check finds all harmful settings, each with its own code."""
    cloud.group(
        "builders",
        minimum=1,
        maximum=2,
        zones=3,
        protected=False,
        suspended=(),
        facts={"CapacityRebalance": True, "MaxInstanceLifetime": 86400},
    )
    found = await check(cloud, GroupSettings(maximum=5))
    assert {code for code, one in found.items() if one.severity is Severity.WARNING} == {
        "az-rebalance",
        "capacity-rebalance",
        "max-instance-lifetime",
        "max-size",
        "min-size",
        "scale-in-protection",
    }


async def test_unreadable_refreshes_are_not_an_error(cloud: AwsCloud) -> None:
    """If the instance refreshes cannot be read, the check only says so."""
    cloud.group("builders")
    cloud.fail("DescribeInstanceRefreshes", AccessDenied(), times=None)
    found = await check(cloud)
    assert found["instance-refresh-unknown"].severity is Severity.INFO


async def influence(cloud: AwsCloud) -> None:
    """Put a hook for each transition, a policy and a scheduled action on the group."""
    name = "builders"
    async with cloud.client("autoscaling") as autoscaling:
        for hook, transition in (("farewell", "TERMINATING"), ("set-up", "LAUNCHING")):
            await autoscaling.put_lifecycle_hook(
                AutoScalingGroupName=name,
                LifecycleHookName=hook,
                LifecycleTransition=f"autoscaling:EC2_INSTANCE_{transition}",
                HeartbeatTimeout=300,
            )
        await autoscaling.put_scaling_policy(
            AutoScalingGroupName=name,
            PolicyName="cpu",
            PolicyType="SimpleScaling",
            AdjustmentType="ChangeInCapacity",
            ScalingAdjustment=1,
        )
        await autoscaling.put_scheduled_update_group_action(
            AutoScalingGroupName=name,
            ScheduledActionName="night",
            DesiredCapacity=0,
            Recurrence="0 22 * * *",
        )


async def test_what_works_on_the_group_from_outside(cloud: AwsCloud) -> None:
    """Hooks, policies and scheduled actions are warnings, each with its command."""
    cloud.group("builders")
    await influence(cloud)
    found = await AwsProvider().check(configure(cloud), GroupSettings())
    warned = [one for one in found if one.severity is Severity.WARNING]
    assert sorted(one.code for one in warned) == [
        "lifecycle-hook",
        "lifecycle-hook",
        "scaling-policy",
        "scheduled-action",
    ]
    assert any("farewell" in one.fix and "for up to 5m" in one.reason for one in warned)


async def test_group_without_room(cloud: AwsCloud) -> None:
    """Instances that fill `max_instances` before the scaler starts are a warning of the check."""
    cloud.group("builders", desired=2)
    assert "occupied" not in await check(cloud, GroupSettings(maximum=3))
    found = (await check(cloud, GroupSettings(maximum=2)))["occupied"]
    assert found.severity is Severity.WARNING
    assert "2 instances already, and max_instances is 2" in found.reason
    assert all(f"--instance-id {id} " in found.fix for id in cloud.members("builders"))


async def test_influences_that_may_not_be_read(cloud: AwsCloud) -> None:
    """If the policy does not allow to look for them, the check says what it does not know."""
    cloud.group("builders")
    for what in ("LifecycleHooks", "Policies", "ScheduledActions"):
        cloud.fail(f"Describe{what}", AccessDenied(), times=None)
    found = await check(cloud)
    for code, action in (
        ("lifecycle-hook-unknown", "DescribeLifecycleHooks"),
        ("scaling-policy-unknown", "DescribePolicies"),
        ("scheduled-action-unknown", "DescribeScheduledActions"),
    ):
        assert found[code].severity is Severity.INFO
        assert f"autoscaling:{action}" in found[code].reason


async def test_missing_group(cloud: AwsCloud) -> None:
    """A missing group is an error of the check and when opening it."""
    found = await check(cloud, name="bilders")
    assert found["group-missing"].severity is Severity.ERROR
    with pytest.raises(ConfigError, match="no Auto Scaling group bilders in eu-central-1"):
        async with open_group(cloud, name="bilders"):
            pass


async def test_refused_credentials(cloud: AwsCloud) -> None:
    """If AWS refuses the credentials, the check reports nothing else about AWS."""
    cloud.group("builders")
    cloud.fail("*", CredentialsExpired(), times=None)
    found = await check(cloud)
    assert set(found) == {"credentials", "iam-policy"}
    assert "expired" in found["credentials"].reason
    with pytest.raises(PermissionDenied, match="renew the credentials"):
        async with open_group(cloud):
            pass


async def test_missing_permissions(cloud: AwsCloud) -> None:
    """Missing permissions are found where AWS supports a dry run."""
    cloud.group("builders")
    queue = cloud.queue("interruptions").url
    for operation in ("DescribeInstances", "GetQueueAttributes"):
        cloud.fail(operation, AccessDenied(), times=None)
    found = await check(cloud, interruption_queue_url=queue)
    assert found["permission"].severity is Severity.ERROR
    assert found["interruption-queue"].severity is Severity.ERROR
    cloud.mend()
    cloud.fail("DescribeAutoScalingGroups", AccessDenied(), times=None)
    assert (await check(cloud))["group"].severity is Severity.ERROR


async def test_credentials_are_missing(cloud: AwsCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any credentials, the error says where to put them."""
    cloud.group("builders")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    found = await check(cloud)
    assert "credentials_file" in found["credentials"].reason


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"profile": "missing"}, "missing"),
        ({"region": None}, "plugin_config.region"),
        ({"read_timeout": Duration(0)}, "read_timeout"),
        ({"launch_patience": Duration(seconds=-1)}, "launch_patience"),
        ({"credentials_file": Path("/nowhere")}, "credentials_file: /nowhere cannot be read"),
        ({"config_file": Path("/nowhere")}, "config_file: /nowhere cannot be read"),
        ({"interruption_queue_url": "builders"}, "interruption_queue_url"),
    ],
)
async def test_wrong_settings(cloud: AwsCloud, changes: dict[str, Any], words: str) -> None:
    """An unusable setting is named by the check and when opening the group."""
    cloud.group("builders")
    found = await check(cloud, **changes)
    errors = [one for one in found.values() if one.severity is Severity.ERROR]
    assert [words in one.reason for one in errors] == [True]
    with pytest.raises(ConfigError, match=words.replace(".", r"\.")):
        async with open_group(cloud, **changes):
            pass


@pytest.mark.parametrize("url", ["127.0.0.1:9", "autoscaling.example.com"])
async def test_endpoint_without_a_scheme(cloud: AwsCloud, url: str) -> None:
    """An endpoint without a scheme is a configuration error, and not retried."""
    found = await check(cloud, endpoint_url=url)
    assert "plugin_config.endpoint_url" in found["configuration"].reason
    with pytest.raises(ConfigError, match="https://"):
        async with open_group(cloud, endpoint_url=url):
            pass


async def test_missing_queue(cloud: AwsCloud) -> None:
    """A missing queue is an error, and the fix does not suggest a policy."""
    cloud.group("builders")
    found = await check(cloud, interruption_queue_url=f"{cloud.queue('one').url}-more")
    assert "NonExistentQueue" in found["interruption-queue"].reason
    assert "policy" not in found["interruption-queue"].fix
    with pytest.raises(ConfigError, match="NonExistentQueue"):
        async with open_group(cloud, interruption_queue_url=f"{cloud.queue('two').url}-more"):
            pass


async def test_windows_needs_a_key(cloud: AwsCloud) -> None:
    """Windows instances need the key of their launch, or a password."""
    cloud.group("builders")
    connector = ConnectorSettings(os="windows")
    found = await check(cloud, GroupSettings(connector=connector))
    assert found["key-path"].severity is Severity.ERROR
    password = ConnectorSettings(os="windows", password="x")  # noqa: S106 - made up
    assert "key-path" not in await check(cloud, GroupSettings(connector=password))


async def test_warnings_are_logged_once(cloud: AwsCloud, caplog: pytest.LogCaptureFixture) -> None:
    """Opening a group logs each warning once, with the exact command."""
    cloud.group("builders", protected=False)
    async with open_group(cloud) as group:
        await group.update()
        await group.update()
    assert [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING] == [
        (
            "group builders does not protect new instances from scale-in, so AWS may end those "
            "with running jobs, and failed launches cannot be given up safely; to fix it: "
            "aws autoscaling update-auto-scaling-group --region eu-central-1 "
            "--auto-scaling-group-name builders --new-instances-protected-from-scale-in"
        )
    ]


async def test_group_info(cloud: AwsCloud) -> None:
    """A group is named by account, region and name, and can be watched if there is a queue."""
    cloud.group("builders", maximum=7)
    async with open_group(cloud) as group:
        assert group.info.id == "aws/123456789012/eu-central-1/builders"
        assert group.info.max_size == 7
        assert group.info.version == "1.0.0"
        assert group.info.capabilities == {Capability.SUSPEND}
    async with open_group(cloud, interruption_queue_url=cloud.queue("q").url) as group:
        assert group.info.capabilities == {Capability.SUSPEND, Capability.WATCH}


async def test_opening_changes_nothing(cloud: AwsCloud) -> None:
    """Opening and closing a group takes two requests, and neither changes anything."""
    cloud.group("builders", desired=2)
    async with open_group(cloud):
        pass
    assert [call.operation for call in cloud.calls()] == [
        "DescribeAutoScalingGroups",
        "DescribeInstanceRefreshes",
    ]


async def test_unreachable_endpoint(cloud: AwsCloud) -> None:
    """The error for an unreachable endpoint names the endpoint."""
    with pytest.raises(ProviderError, match=r"no connection to AWS.*127\.0\.0\.1:9"):
        async with open_group(cloud, endpoint_url="http://127.0.0.1:9", max_attempts=1):
            pass


async def test_throttled_opening_fails_as_throttled(cloud: AwsCloud) -> None:
    """An error of AWS while a group is opened keeps its class."""
    cloud.group("builders")
    cloud.fail("*", Throttled(), times=None)
    with pytest.raises(ProviderError, match="requests_per_second"):
        async with open_group(cloud, max_attempts=1):
            pass


def test_trio_is_refused(environment: dict[str, str]) -> None:
    """Opening a group on trio raises an error that says so."""
    assert environment

    async def main() -> None:
        async with AwsProvider().open(AwsConfig(name="builders"), GroupSettings()):
            pass

    with pytest.raises(ConfigError, match="runs on asyncio only"):
        anyio.run(main, backend="trio")


def test_plugin_is_found() -> None:
    """The registry finds the provider by its name, with its capabilities."""
    provider = Registry().provider("aws")
    assert isinstance(provider, AwsProvider)
    assert provider.capabilities == {Capability.SUSPEND, Capability.WATCH}


async def test_same_name_in_another_account(cloud: AwsCloud) -> None:
    """Groups of the same name in two accounts have different ids."""
    arn = "arn:aws:autoscaling:eu-central-1:{}:autoScalingGroup:x:autoScalingGroupName/builders"
    cloud.group("builders")
    ids: set[str] = set()
    for account in ("111111111111", "222222222222"):
        cloud.say_of_group("builders", AutoScalingGroupARN=arn.format(account))
        async with open_group(cloud) as group:
            ids.add(group.info.id)
    assert len(ids) == 2


def test_unknown_keys_are_refused() -> None:
    """An unknown key is refused, with a suggestion."""
    with pytest.raises(ConfigError, match="did you mean 'assume_role_arn'"):
        decode({"name": "x", "assume_role_arm": "y"}, AwsConfig, where="plugin_config")
    with pytest.raises(ConfigError, match="'name' is missing"):
        decode({}, AwsConfig, where="plugin_config")


@pytest.fixture
def page(request: pytest.FixtureRequest) -> str:
    """Return the README."""
    path: Path = request.path.parents[1] / "README.md"
    return path.read_text()


def test_policy_in_the_readme(page: str) -> None:
    """The README shows the policy that the check prints."""
    document = minimal_policy("builders", "eu-central-1", account="123456789012")
    assert f"```json\n{policy_text(document)}\n```" in page


def test_codes_in_the_readme(page: str) -> None:
    """The README explains each code of a finding."""
    modules = (_findings, _preflight, _check)
    source = "".join(Path(str(module.__file__)).read_text() for module in modules)
    found = re.findall(
        r'(?:_error|_warning|Finding|refusal_finding)\((?:\s*Severity\.\w+,)?\s*"([a-z-]+)"', source
    )
    assert len(set(found)) > 15
    assert [code for code in sorted(set(found)) if f"`{code}`" not in page] == []


def test_keys_in_the_readme(page: str) -> None:
    """Each key has a row in the README's table."""
    keys = [field.name for field in msgspec.structs.fields(AwsConfig)]
    assert [key for key in keys if f"| `{key}` |" not in page] == []
