"""Where credentials are found, and how expired ones are renewed."""

from __future__ import annotations

import hashlib
import json
import logging
import shlex
from typing import TYPE_CHECKING

import anyio
import pytest

from aws_errors import AccessDenied, CredentialsExpired
from aws_plugin import configure, open_group
from fleeting.errors import ConfigError, PermissionDenied
from fleeting.types import GroupSettings
from fleeting_plugin_aws import AwsProvider

if TYPE_CHECKING:
    from pathlib import Path

    from aws_cloud import AwsCloud

pytestmark = pytest.mark.anyio

OLD, NEW = "AKIAOLDOLDOLDOLDOLD1", "AKIANEWNEWNEWNEWNEW1"
SECRET = "made-up-secret"  # noqa: S105 - made up


@pytest.fixture
def no_keys(cloud: AwsCloud, monkeypatch: pytest.MonkeyPatch) -> AwsCloud:
    """Return the cloud, with no credentials in the environment."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    return cloud


def write_credentials(path: Path, key: str, *, profile: str = "default") -> Path:
    """Write a credentials file."""
    path.write_text(f"[{profile}]\naws_access_key_id = {key}\naws_secret_access_key = {SECRET}\n")
    return path


def keys(cloud: AwsCloud) -> list[str]:
    """Return the distinct keys that signed the requests, in order."""
    return list(dict.fromkeys(call.access_key for call in cloud.calls()))


async def test_files_and_profiles(no_keys: AwsCloud, tmp_path: Path) -> None:
    """Credentials come from the configured file and profile."""
    no_keys.group("builders")
    file = write_credentials(tmp_path / "credentials", OLD, profile="ci")
    config = tmp_path / "config"
    config.write_text("[profile ci]\nregion = eu-central-1\n")
    async with open_group(
        no_keys, credentials_file=file, config_file=config, profile="ci", region=None
    ) as group:
        assert group.info.id == "aws/123456789012/eu-central-1/builders"
    assert keys(no_keys) == [OLD]


async def test_renewed_credentials_are_found(
    no_keys: AwsCloud, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Requests fail until the file is renewed; the next one uses the new credentials."""
    caplog.set_level(logging.INFO)
    no_keys.group("builders", desired=1)
    file = write_credentials(tmp_path / "credentials", OLD)
    async with open_group(no_keys, credentials_file=file) as group:
        no_keys.fail("*", CredentialsExpired(), times=None, access_key=OLD)
        with pytest.raises(PermissionDenied, match="renew the credentials") as caught:
            await group.update()
        assert caught.value.retryable
        write_credentials(file, NEW)
        assert len((await group.update()).instances) == 1
        assert keys(no_keys) == [OLD, NEW]
    assert SECRET not in caplog.text


async def test_many_requests_renew_once(no_keys: AwsCloud, tmp_path: Path) -> None:
    """Concurrent requests with expired credentials renew them once, and all succeed."""
    no_keys.group("builders", desired=1)
    file = write_credentials(tmp_path / "credentials", OLD)
    async with open_group(no_keys, credentials_file=file) as group:
        no_keys.fail("*", CredentialsExpired(), times=None, access_key=OLD)
        write_credentials(file, NEW)
        before = len(no_keys.calls())
        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(group.update)
        calls = no_keys.calls()[before:]
        assert len(calls) <= 10
        assert sum(call.access_key == NEW for call in calls) == 5


async def test_role_is_assumed(cloud: AwsCloud, caplog: pytest.LogCaptureFixture) -> None:
    """Requests are signed with the keys of the role, which are never logged."""
    caplog.set_level(logging.DEBUG)
    cloud.group("builders")
    role = "arn:aws:iam::123456789012:role/builders"
    async with open_group(cloud, assume_role_arn=role):
        pass
    assume, *others = cloud.calls()
    assert (assume.operation, assume.parameters["RoleArn"]) == ("AssumeRole", role)
    used = {call.access_key for call in others}
    assert assume.access_key not in used
    assert not any(key in caplog.text for key in used)


async def test_role_with_an_external_id(cloud: AwsCloud) -> None:
    """The external id that the trust policy of a role asks for is sent."""
    cloud.group("builders")
    role = "arn:aws:iam::123456789012:role/builders"
    async with open_group(cloud, assume_role_arn=role, external_id="ours"):
        pass
    [assumed] = cloud.calls("AssumeRole")
    assert assumed.parameters["ExternalId"] == "ours"


async def test_external_id_without_a_role(cloud: AwsCloud) -> None:
    """An external id alone is a mistake, which says where it belongs."""
    with pytest.raises(ConfigError, match=r"external_id: set without assume_role_arn"):
        async with open_group(cloud, external_id="ours"):
            pass


async def test_role_that_may_not_be_assumed(cloud: AwsCloud) -> None:
    """The advice is about the role and its trust policy, and not about the group's policy."""
    cloud.group("builders")
    cloud.fail("AssumeRole", AccessDenied(), times=None)
    role = "arn:aws:iam::123456789012:role/builders"
    with pytest.raises(PermissionDenied, match=r"AssumeRole.*trust policy of the role") as caught:
        async with open_group(cloud, assume_role_arn=role):
            pass
    assert "whole policy" not in str(caught.value)


SSO = """
[sso-session corp]
sso_start_url = https://example.com/start
sso_region = eu-central-1
[profile session]
sso_session = corp
sso_account_id = 123456789012
sso_role_name = scaler
[profile 'of old']
sso_start_url = https://example.com/start
sso_region = eu-central-1
sso_account_id = 123456789012
sso_role_name = scaler
[profile chain]
role_arn = arn:aws:iam::123456789012:role/builders
source_profile = session
"""


@pytest.mark.parametrize("profile", ["session", "of old", "chain"])
@pytest.mark.parametrize("expired", [False, True])
async def test_sign_in_that_is_missing_or_expired(
    no_keys: AwsCloud,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    profile: str,
    expired: bool,  # noqa: FBT001 - pytest passes it by name
) -> None:
    """Without a token of single sign-on, the error is the command that gets one."""
    no_keys.group("builders")
    file = tmp_path / "config"
    file.write_text(SSO)
    cache = tmp_path / ".aws/sso/cache"
    cache.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path))
    token = {
        "accessToken": "made-up",
        "region": "eu-central-1",
        "expiresAt": "2020-01-01T00:00:00Z",
    }
    for name in ("corp", "https://example.com/start") if expired else ():
        digest = hashlib.sha1(name.encode(), usedforsecurity=False).hexdigest()
        (cache / f"{digest}.json").write_text(json.dumps(token))
    command = "aws sso login --profile " + shlex.quote(profile)
    with pytest.raises(PermissionDenied) as caught:
        async with open_group(no_keys, config_file=file, profile=profile):
            pass
    assert f"`{command}`" in str(caught.value)
    found = await AwsProvider().check(
        configure(no_keys, config_file=file, profile=profile), GroupSettings()
    )
    assert (found[0].code, found[0].fix) == ("credentials", command)
    # The SDK would print a traceback for each attempt.
    assert [one for one in caplog.records if one.exc_info] == []


async def test_role_is_assumed_again_when_it_expires(cloud: AwsCloud) -> None:
    """When the keys of a role are refused, the role is assumed again and the request succeeds."""
    cloud.group("builders", desired=1)
    role = "arn:aws:iam::123456789012:role/builders"
    async with open_group(cloud, assume_role_arn=role) as group:
        cloud.fail("DescribeAutoScalingGroups", CredentialsExpired())
        assert len((await group.update()).instances) == 1
    assert len(cloud.calls("AssumeRole")) == 2
