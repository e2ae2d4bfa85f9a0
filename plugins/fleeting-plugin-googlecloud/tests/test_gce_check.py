"""The findings of a check, and the errors that stop a group from being opened."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fleeting import Registry, decode
from fleeting.errors import ConfigError, FleetingError, PermissionDenied
from fleeting.types import Capability, ConnectorSettings, Duration, GroupSettings, Severity
from fleeting_plugin_googlecloud import GoogleConfig, GoogleProvider
from fleeting_plugin_googlecloud._role import minimal_permissions
from gce_api import PERMISSIONS
from gce_faults import Hang, forbidden, rate_limited, unauthorized
from gce_plugin import configure, open_group

if TYPE_CHECKING:
    from fleeting.types import Finding
    from gce_cloud import GoogleCloud

pytestmark = pytest.mark.anyio


async def check(
    cloud: GoogleCloud, connector: ConnectorSettings | None = None, **changes: Any
) -> dict[str, Finding]:
    """Return the findings by their codes, after asserting that nothing was changed."""
    settings = GroupSettings(connector=connector or ConnectorSettings())
    found = await GoogleProvider().check(configure(cloud, **changes), settings)
    order = [Severity.ERROR, Severity.WARNING, Severity.INFO]
    places = [order.index(one.severity) for one in found]
    assert places == sorted(places)
    assert cloud.engine.operations == {}
    return {one.code: one for one in found}


@pytest.mark.parametrize("regional", [False, True])
async def test_good_group(cloud: GoogleCloud, *, regional: bool) -> None:
    """The check of a good group reports the least role only."""
    cloud.group(regional=regional)
    found = await check(cloud, regional=regional)
    assert set(found) == {"iam-role"}
    assert found["iam-role"].fix.startswith("gcloud iam roles create fleeting --project=builders")


ZONAL = "--zone=europe-west1-b --project=builders-project"


@pytest.mark.parametrize(
    ("code", "severity", "settings", "fix"),
    [
        (
            "autoscaler",
            Severity.ERROR,
            {"status": {"autoscaler": "https://x/zones/z/autoscalers/auto"}},
            f"stop-autoscaling builders {ZONAL}",
        ),
        (
            "stateful-policy",
            Severity.ERROR,
            {"statefulPolicy": {"preservedState": {"disks": {"d": {"autoDelete": "NEVER"}}}}},
            "describe builders",
        ),
        (
            "target-size-policy",
            Severity.ERROR,
            {"targetSizePolicy": {"mode": "BULK"}},
            f"update builders {ZONAL} --target-size-policy-mode=individual",
        ),
        (
            "repair",
            Severity.WARNING,
            {"instanceLifecyclePolicy": {}},
            f"update builders {ZONAL} --default-action-on-vm-failure=do-nothing",
        ),
        (
            "autohealing",
            Severity.WARNING,
            {
                "autoHealingPolicies": [{"healthCheck": "x"}],
                "instanceLifecyclePolicy": {
                    "defaultActionOnFailure": "DO_NOTHING",
                    "onFailedHealthCheck": "REPAIR",
                },
            },
            "--clear-autohealing",
        ),
        (
            "update-policy",
            Severity.WARNING,
            {"updatePolicy": {"type": "PROACTIVE"}},
            "--update-policy-type=opportunistic",
        ),
        (
            "standby-policy",
            Severity.WARNING,
            {"standbyPolicy": {"mode": "SCALE_OUT_POOL"}},
            "--standby-policy-mode=manual",
        ),
        (
            "standby-pool",
            Severity.WARNING,
            {"targetSuspendedSize": 2, "targetStoppedSize": 1},
            "--suspended-size=0 --stopped-size=0",
        ),
        (
            "paging",
            Severity.INFO,
            {"targetSize": 1500},
            "--list-managed-instances-results=paginated",
        ),
    ],
)
async def test_settings_of_the_group(
    cloud: GoogleCloud, code: str, severity: Severity, settings: dict[str, Any], fix: str
) -> None:
    """Each setting that causes problems has a finding with the exact command."""
    cloud.group(**settings)
    found = await check(cloud)
    assert set(found) == {code, "iam-role"}
    assert found[code].severity is severity
    assert fix in found[code].fix
    assert shlex.split(found[code].fix)[:4] == ["gcloud", "compute", "instance-groups", "managed"]
    if severity is Severity.ERROR:
        with pytest.raises(ConfigError, match=shlex.split(fix)[0]):
            await open_group(cloud).__aenter__()


@pytest.mark.parametrize(
    ("policy", "healed"),
    [
        ({"defaultActionOnFailure": "DO_NOTHING"}, False),
        ({"defaultActionOnFailure": "DO_NOTHING", "onFailedHealthCheck": "DO_NOTHING"}, False),
        ({"defaultActionOnFailure": "DO_NOTHING", "onFailedHealthCheck": "REPAIR"}, True),
        ({"defaultActionOnFailure": "REPAIR", "onFailedHealthCheck": "DO_NOTHING"}, False),
        ({"defaultActionOnFailure": "REPAIR", "onFailedHealthCheck": "DEFAULT_ACTION"}, True),
    ],
)
async def test_autohealing(cloud: GoogleCloud, policy: dict[str, str], *, healed: bool) -> None:
    """The action for health checks overrides the default one."""
    cloud.group(instanceLifecyclePolicy=policy, autoHealingPolicies=[{"healthCheck": "x"}])
    assert ("autohealing" in await check(cloud)) is healed


async def test_regional_settings(cloud: GoogleCloud) -> None:
    """Redistribution is an error, and an even distribution a warning."""
    cloud.group(
        regional=True,
        updatePolicy={"type": "OPPORTUNISTIC"},
        distributionPolicy={"targetShape": "BALANCED"},
    )
    found = await check(cloud, regional=True)
    assert found["redistribution"].severity is Severity.ERROR
    assert found["redistribution"].fix == (
        "gcloud compute instance-groups managed update builders --region=europe-west1 "
        "--project=builders-project --instance-redistribution-type=none"
    )
    assert found["distribution"].severity is Severity.WARNING
    assert found["distribution"].fix.endswith("--target-distribution-shape=any")


@pytest.mark.parametrize(
    ("scheduling", "codes", "watched"),
    [
        ({"onHostMaintenance": "MIGRATE"}, [], False),
        ({"provisioningModel": "SPOT"}, [], True),
        ({"preemptible": True}, [], True),
        ({"maxRunDuration": {"seconds": "3600"}}, ["max-run-duration"], True),
        ({"gracefulShutdown": {"enabled": True}}, ["graceful-shutdown"], True),
    ],
)
async def test_template(
    cloud: GoogleCloud, scheduling: dict[str, Any], codes: list[str], *, watched: bool
) -> None:
    """The template says how Google ends instances; then the group is watched."""
    cloud.group()
    cloud.template = {"scheduling": scheduling}
    assert set(await check(cloud)) == {*codes, "iam-role"}
    async with open_group(cloud) as group:
        assert (Capability.WATCH in group.info.capabilities) is watched


async def test_regional_template(cloud: GoogleCloud) -> None:
    """A regional template is found, too."""
    url = "https://x/compute/v1/projects/p/regions/europe-west1/instanceTemplates/builders"
    cloud.group(instanceTemplate="", versions=[{"instanceTemplate": url}])
    await check(cloud)
    (call,) = cloud.calls("instanceTemplates.get")
    assert call.method == "regionInstanceTemplates.get"
    assert (call.parameters["region"], call.parameters["instanceTemplate"]) == (
        "europe-west1",
        "builders",
    )


OS_LOGIN = [{"key": "enable-oslogin", "value": "TRUE"}]


async def test_os_login(cloud: GoogleCloud) -> None:
    """OS Login of the template, the whole group or the project makes keys useless."""
    cloud.group()
    cloud.template = {"metadata": {"items": OS_LOGIN}}
    found = await check(cloud)
    assert found["os-login"].severity is Severity.ERROR
    assert "all-instances-config update builders" in found["os-login"].fix
    assert "os-login" not in await check(cloud, ConnectorSettings(use_static_credentials=True))
    cloud.template = {"metadata": {"items": []}}
    cloud.agent.project_metadata = {"enable-oslogin": "true"}
    assert "of the project" in (await check(cloud))["os-login"].reason
    properties = {"metadata": {"enable-oslogin": "FALSE"}}
    cloud.group(allInstancesConfig={"properties": properties})
    assert "os-login" not in await check(cloud)


async def test_host_keys(cloud: GoogleCloud) -> None:
    """Host keys can only be read if the machines publish them."""
    cloud.group()
    cloud.template = {"disks": []}
    found = await check(cloud, host_keys="guest-attributes")
    assert found["guest-attributes"].severity is Severity.ERROR
    items = [{"key": "enable-guest-attributes", "value": "TRUE"}]
    cloud.template = {"metadata": {"items": items}}
    assert set(await check(cloud, host_keys="guest-attributes")) == {"iam-role"}


async def test_user_of_the_image(cloud: GoogleCloud) -> None:
    """A user of one's own is a warning, because the guest agent manages it."""
    cloud.group()
    assert "username" in await check(cloud, ConnectorSettings(username="ubuntu"))
    assert "username" not in await check(cloud, ConnectorSettings(username="fleeting"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"zone": "europe-west1"}, 'europe-west1 is a region; write region = "europe-west1"'),
        ({"zone": None}, "set either zone"),
        ({"region": "europe-west1"}, "set either zone"),
        ({"zone": "Nowhere!"}, "'Nowhere!' is not the name of a zone"),
        ({"zone": None, "region": "europe-west1-b"}, 'write zone = "europe-west1-b"'),
        ({"zone": None, "region": "x"}, "'x' is not the name of a region"),
        ({"endpoint": "compute.example.com"}, "https://"),
        ({"credentials_file": Path("/nonexistent/key.json")}, "/nonexistent/key.json"),
        ({"key_lifetime": Duration(seconds=5)}, "key_lifetime"),
        ({"request_timeout": Duration(0)}, "request_timeout"),
    ],
)
async def test_wrong_settings(cloud: GoogleCloud, changes: dict[str, Any], words: str) -> None:
    """Settings that cannot work are refused before a request is sent."""
    found = [one for one in (await check(cloud, **changes)).values() if one.code != "iam-role"]
    assert words in f"{found[0].reason}; {found[0].fix}"
    assert {one.severity for one in found} == {Severity.ERROR}
    with pytest.raises(ConfigError) as caught:
        await open_group(cloud, **changes).__aenter__()
    assert words in str(caught.value)
    if found[0].code == "configuration":
        assert cloud.calls() == []


async def test_wrong_connector_settings(cloud: GoogleCloud, tmp_path: Path) -> None:
    """A key that cannot be read, and a user name that would forge a line, are refused."""
    path = tmp_path / "key"
    path.write_text("nothing")
    assert "key-path" in await check(cloud, ConnectorSettings(key_path=path))
    with pytest.raises(ConfigError, match="key_path"):
        await open_group(cloud, ConnectorSettings(key_path=path)).__aenter__()
    found = await check(cloud, ConnectorSettings(username="x\nroot:ssh-rsa AAAA"))
    assert found["configuration"].severity is Severity.ERROR
    found = await check(cloud, ConnectorSettings(slot_users=("ci0", "a b")))
    assert "slot_users: 'a b'" in found["configuration"].reason


async def test_missing_group(cloud: GoogleCloud) -> None:
    """A group that does not exist is named, with the command that lists the others."""
    found = await check(cloud)
    assert "no managed instance group builders in zone" in found["group-missing"].reason
    assert found["group-missing"].fix.endswith("managed list --project=builders-project")
    with pytest.raises(ConfigError, match="no managed instance group builders"):
        await open_group(cloud).__aenter__()


NEEDED = {
    False: minimal_permissions(regional=False, keys=True, passwords=False, host_keys=False),
    True: minimal_permissions(regional=True, keys=True, passwords=False, host_keys=False),
}
# Without these the group works; it is only examined less.
OPTIONAL = {"compute.projects.get", "compute.instanceTemplates.get"}


@pytest.mark.parametrize(
    ("regional", "permission"),
    [(regional, one) for regional, every in NEEDED.items() for one in every],
)
async def test_each_missing_permission(
    cloud: GoogleCloud, *, regional: bool, permission: str
) -> None:
    """Each permission of the role is needed; a missing one is told before an instance exists."""
    cloud.group(regional=regional)
    cloud.allowed = set(NEEDED[regional])
    assert set(await check(cloud, regional=regional)) == {"iam-role"}
    cloud.deny(permission)
    found = await check(cloud, regional=regional)
    if permission in OPTIONAL:
        assert permission in found["not-examined"].reason
    elif permission != "compute.instanceGroupManagers.update":
        assert permission in found["permission"].reason
        assert "iam-role" in found["permission"].fix
        with pytest.raises(FleetingError, match=permission):
            await open_group(cloud, regional=regional).__aenter__()
    else:
        async with open_group(cloud, regional=regional) as group:
            with pytest.raises(PermissionDenied, match=permission):
                await group.increase(3, "one")
    assert cloud.members() == {}


async def test_role_suffices(cloud: GoogleCloud) -> None:
    """The role has exactly the permissions of the methods that the plugin uses."""
    everything = set(minimal_permissions(regional=True, keys=True, passwords=True, host_keys=True))
    everything |= set(
        minimal_permissions(regional=False, keys=True, passwords=True, host_keys=True)
    )
    assert everything == set(PERMISSIONS.values())
    cloud.allowed = set(NEEDED[False])
    cloud.group(running=1)
    async with open_group(cloud) as group:
        (instance,) = (await group.update()).instances
        await group.connect_info(instance.id)
        await group.suspend([instance.id])
        await group.increase(1, "one")
        await group.decrease([instance.id])


@pytest.mark.parametrize(
    ("fault", "code", "words"),
    [
        (unauthorized(), "permission", "renew the credentials"),
        (forbidden(), "permission", "allow it with a role"),
        (rate_limited(), "permission", "raise the request rate"),
    ],
)
async def test_refused_check(cloud: GoogleCloud, fault: Any, code: str, words: str) -> None:
    """A check that Google refuses is a finding with one piece of advice."""
    cloud.group()
    cloud.fail("*", fault, times=None)
    found = await check(cloud)
    assert words in f"{found[code].reason} {found[code].fix}"


async def test_no_credentials(cloud: GoogleCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without credentials the check says where they are looked for."""
    monkeypatch.setenv("HOME", "/nonexistent")
    monkeypatch.setenv("CLOUDSDK_CONFIG", "/nonexistent")
    found = await check(cloud, credentials_file=None)
    assert "no usable credentials" in found["permission"].reason
    assert "GOOGLE_APPLICATION_CREDENTIALS" in found["permission"].reason


async def test_unusable_credentials(cloud: GoogleCloud, tmp_path: Path) -> None:
    """A file with something else, or with credentials of another kind, is refused."""
    path = tmp_path / "credentials.json"
    path.write_text('{"type": "magic"}')
    found = await check(cloud, credentials_file=path)
    assert "'magic'" in found["permission"].reason
    path.write_text("private-key")
    found = await check(cloud, credentials_file=path)
    assert "private-key" not in str(found)
    assert found["permission"].severity is Severity.ERROR


async def test_credentials_of_the_machine(
    cloud: GoogleCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a machine at Google, the credentials are those of its service account."""
    cloud.group(running=1)
    host = cloud.url.removeprefix("http://")
    monkeypatch.setenv("GCE_METADATA_IP", host)
    monkeypatch.setattr("google.auth.compute_engine._metadata._GCE_METADATA_HOST", host)
    monkeypatch.setattr("google.auth.compute_engine._metadata._NO_GCE_CHECK", 0)
    monkeypatch.setenv("HOME", "/nonexistent")
    monkeypatch.setenv("CLOUDSDK_CONFIG", "/nonexistent")
    async with open_group(cloud, credentials_file=None) as group:
        assert len((await group.update()).instances) == 1
    # A metadata server that hangs does not hang the plugin.
    cloud.fail("token", Hang(), times=None)
    with pytest.raises(FleetingError, match="no answer within 2s"):
        await open_group(
            cloud, credentials_file=None, request_timeout=Duration(seconds=2)
        ).__aenter__()


def test_provider_is_registered() -> None:
    """The plugin is found by its name, and its configuration refuses unknown keys."""
    provider = Registry().provider("googlecloud")
    assert isinstance(provider, GoogleProvider)
    config = {"name": "builders", "project": "builders-project", "zone": "europe-west1-b"}
    assert decode(config, provider.config_type, where="plugin_config") == GoogleConfig(**config)  # type: ignore[arg-type] # of many types
    with pytest.raises(ConfigError, match="zona"):
        decode({**config, "zona": "x"}, provider.config_type, where="plugin_config")
    for name in ("Builders", "b_", "", "../x"):
        with pytest.raises(ConfigError):
            decode({**config, "name": name}, provider.config_type, where="plugin_config")


def test_advice_names_keys_that_exist() -> None:
    """Each key of plugin_config that a message names is one."""
    source = Path(__file__).parents[1] / "src" / "fleeting_plugin_googlecloud"
    names = set(GoogleConfig.__struct_fields__)
    for file in source.glob("*.py"):
        for line in file.read_text().splitlines():
            for word in line.split("plugin_config.")[1:]:
                key = word.partition(":")[0].partition("{")[0]
                assert not key or key in names, f"{file.name}: {line}"
