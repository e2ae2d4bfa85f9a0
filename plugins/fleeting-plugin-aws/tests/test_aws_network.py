"""The way to AWS: regions, endpoints, proxies, and pages of servers that are not AWS."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from aws_pages import forward_proxy, instance_metadata, one_page
from aws_plugin import configure, open_group
from fleeting.errors import ConfigError, OutcomeUnknown, ProviderError
from fleeting_plugin_aws._clients import open_clients
from fleeting_plugin_aws._errors import is_foreign
from fleeting_plugin_aws._limiter import Shared

if TYPE_CHECKING:
    from pathlib import Path

    from aws_cloud import AwsCloud

pytestmark = pytest.mark.anyio

# It keeps the SDK's models, which take a while to load.
SHARED = Shared()
PAGE = "<!DOCTYPE html><html><head><title>Sign in to the guest network</title></head></html>"
# It can be read as XML, and as an answer without groups.
STRICT_PAGE = "<html xmlns='http://www.w3.org/1999/xhtml'><body><p>Sign in</p></body></html>"


@pytest.mark.parametrize(
    ("zone", "region"),
    [("eu-central-1a", "eu-central-1"), ("us-west-2-lax-1a", "us-west-2")],
)
async def test_region_of_this_instance(
    cloud: AwsCloud, monkeypatch: pytest.MonkeyPatch, zone: str, region: str
) -> None:
    """Without a setting, the region is that of the instance that the manager runs on."""
    monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
    async with instance_metadata(zone) as url:
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", url)
        async with open_clients(configure(cloud, region=None), SHARED) as clients:
            assert clients.region == region
        # A setting outweighs it.
        async with open_clients(configure(cloud, region="eu-west-1"), SHARED) as clients:
            assert clients.region == "eu-west-1"


async def test_no_region_anywhere(cloud: AwsCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the metadata does not answer either, the error names the key to set."""
    monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ConfigError, match=r"plugin_config\.region: not set.*metadata"):
        async with open_group(cloud, region=None):
            pass


async def endpoints(cloud: AwsCloud, region: str) -> dict[str, str]:
    """Return the URLs that the SDK uses in a region, without a setting of ours."""
    config = configure(cloud, region=region, endpoint_url=None)
    async with open_clients(config, SHARED, "sts") as clients:
        generation = await clients._current()
        return {name: one.meta.endpoint_url for name, one in generation.clients.items()}


async def test_fips_endpoints(cloud: AwsCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK's setting for FIPS endpoints applies to every request."""
    monkeypatch.setenv("AWS_USE_FIPS_ENDPOINT", "true")
    found = await endpoints(cloud, "us-gov-west-1")
    assert set(found) == {"autoscaling", "ec2", "ec2-instance-connect", "sts"}
    # Some FIPS endpoints of this partition have the names of the ordinary ones.
    assert found["ec2"] == "https://ec2.us-gov-west-1.amazonaws.com"
    found = await endpoints(cloud, "us-east-1")
    assert all("-fips.us-east-1." in url for url in found.values())


async def test_dual_stack_endpoints(cloud: AwsCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK's setting for endpoints with IPv6 applies to every request."""
    monkeypatch.setenv("AWS_USE_DUALSTACK_ENDPOINT", "true")
    found = await endpoints(cloud, "us-east-1")
    assert all(url.endswith(".us-east-1.api.aws") for url in found.values())


@pytest.mark.parametrize(
    ("region", "partition", "suffix"),
    [
        ("cn-north-1", "aws-cn", ".amazonaws.com.cn"),
        ("us-gov-west-1", "aws-us-gov", ".amazonaws.com"),
        ("eu-central-1", "aws", ".amazonaws.com"),
    ],
)
async def test_partitions(cloud: AwsCloud, region: str, partition: str, suffix: str) -> None:
    """The SDK knows the partition of a region, and its endpoints."""
    async with open_clients(configure(cloud, region=region), SHARED) as clients:
        assert clients.partition == partition
    assert all(url.endswith(suffix) for url in (await endpoints(cloud, region)).values())


async def test_proxies(cloud: AwsCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests go through the proxy of the environment, unless NO_PROXY names the host."""
    cloud.group("builders")
    async with forward_proxy(cloud.url) as (url, hosts):
        monkeypatch.setenv("HTTP_PROXY", url)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        async with open_group(cloud):
            assert hosts == []
        async with open_group(cloud, endpoint_url="http://autoscaling.example.com") as group:
            await group.increase(1, "one")
        assert set(hosts) == {"autoscaling.example.com"}
    assert cloud.desired("builders") == 1


async def test_a_proxy_that_is_down(cloud: AwsCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the proxy without its password, and nothing was done."""
    monkeypatch.setenv("HTTP_PROXY", "http://user:hunter2@127.0.0.1:9")
    with pytest.raises(ProviderError, match=r"127\.0\.0\.1:9.*the proxy if there is one") as caught:
        async with open_group(cloud, endpoint_url="http://autoscaling.example.com", max_attempts=1):
            pass
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (PAGE, "text/html", 200),
        (PAGE, "application/octet-stream", 403),
        (STRICT_PAGE, "application/xhtml+xml", 200),
        ("", "text/plain", 302),
        ("<DescribeAutoScalingGroupsResponse><Describe", "text/xml", 200),
    ],
)
async def test_answers_that_are_not_from_aws(
    cloud: AwsCloud, body: str, kind: str, status: int
) -> None:
    """A page of another server is neither a missing group nor a refusal, and can be retried."""
    async with one_page(body, kind, status) as url:
        with pytest.raises(ProviderError, match="did not come from AWS") as caught:
            async with open_group(cloud, endpoint_url=url, max_attempts=1):
                pass
    assert type(caught.value) is ProviderError
    assert caught.value.retryable
    assert "lost" not in str(caught.value)


async def test_a_page_instead_of_a_pushed_key(cloud: AwsCloud) -> None:
    """A page is not taken for success, not even where the SDK reads any text as an answer."""
    async with one_page(PAGE, "text/html") as url:
        config = configure(cloud, endpoint_url=url, max_attempts=1)
        async with open_clients(config, SHARED) as clients:
            with pytest.raises(OutcomeUnknown, match="did not come from AWS"):
                await clients.change(
                    "ec2-instance-connect",
                    "SendSSHPublicKey",
                    InstanceId="i-0123456789abcdef0",
                    InstanceOSUser="ec2-user",
                    SSHPublicKey="ssh-ed25519 " + "A" * 80,
                )


def test_pages_about_server_errors_may_be_from_aws() -> None:
    """AWS's own load balancers answer with a page when a service is unavailable."""
    assert not is_foreign(503, "text/html", b"<html><body>Service Unavailable</body></html>")
    assert not is_foreign(400, "text/xml", b"<ErrorResponse/>")


async def test_every_client_uses_the_endpoint(
    cloud: AwsCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The requests by which the SDK gets credentials for a profile go to `endpoint_url`, too."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    cloud.group("builders")
    role = "arn:aws:iam::123456789012:role/builders"
    file = tmp_path / "config"
    file.write_text(
        "[profile base]\naws_access_key_id = AKIABASEBASEBASEBAS1\n"
        "aws_secret_access_key = made-up\n"
        f"[profile ci]\nrole_arn = {role}\nsource_profile = base\nexternal_id = ours\n"
    )
    async with open_group(cloud, config_file=file, profile="ci"):
        pass
    [assumed] = cloud.calls("AssumeRole")
    assert assumed.parameters["RoleArn"] == role
    assert assumed.parameters["ExternalId"] == "ours"
