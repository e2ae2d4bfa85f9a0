"""The keys of `[plugin_config]`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from fleeting.types import Duration

__all__ = ("AwsConfig",)


class AwsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[plugin_config]` of the provider `aws`."""

    name: Annotated[
        str, Meta(min_length=1, max_length=255, description="The name of the Auto Scaling group.")
    ]
    region: Annotated[
        str | None, Meta(description="The region; by default that of the SDK's configuration.")
    ] = None
    profile: Annotated[
        str | None, Meta(description="The profile in the SDK's configuration files.")
    ] = None
    config_file: Annotated[
        Path | None, Meta(description="The SDK's configuration file; by default `~/.aws/config`.")
    ] = None
    credentials_file: Annotated[
        Path | None, Meta(description="The SDK's credentials; by default `~/.aws/credentials`.")
    ] = None
    assume_role_arn: Annotated[
        str | None, Meta(description="A role to assume with the credentials that were found.")
    ] = None
    external_id: Annotated[
        str | None, Meta(description="The external id that the trust policy of that role asks for.")
    ] = None
    endpoint_url: Annotated[
        str | None, Meta(description="Send all requests here instead: an emulator or a proxy.")
    ] = None
    host_keys: Annotated[
        Literal["first-use", "console"],
        Meta(
            description="How to verify SSH host keys: `first-use` trusts the first key that is "
            "seen, `console` reads the keys that cloud-init prints on the console."
        ),
    ] = "first-use"
    interruption_queue_url: Annotated[
        str | None,
        Meta(description="An SQS queue with EventBridge's interruption notices for the group."),
    ] = None
    launch_patience: Annotated[
        Duration,
        Meta(
            description="How long AWS may retry a failed launch, for example in another zone, "
            "before the missing instances are given up."
        ),
    ] = Duration(seconds=20)
    connect_timeout: Annotated[
        Duration, Meta(description="How long connecting to an endpoint may take.")
    ] = Duration(seconds=5)
    read_timeout: Annotated[Duration, Meta(description="How long an endpoint may stay silent.")] = (
        Duration(seconds=30)
    )
    max_attempts: Annotated[
        int,
        Meta(
            ge=1,
            le=20,
            description="The most attempts for a request. A request that changes something is "
            "repeated only if the first attempt certainly had no effect.",
        ),
    ] = 4
    requests_per_second: Annotated[
        float,
        Meta(gt=0, description="The most requests per second for one account and region."),
    ] = 10.0
