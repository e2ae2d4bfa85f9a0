"""Loads the AWS SDK and makes its clients."""

from __future__ import annotations

import importlib
import logging
import re
from typing import TYPE_CHECKING, Any

import anyio.to_thread

from fleeting_plugin_aws._errors import ForeignAnswer, is_foreign

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fleeting_plugin_aws._config import AwsConfig
    from fleeting_plugin_aws._limiter import Shared

__all__ = ("client_options", "find_region", "method_name", "new_session")

# The SDK logs a traceback here for each failure to get credentials. It raises the failure, too.
LOUD = ("aiobotocore.credentials", "aiobotocore.tokens", "botocore.credentials", "botocore.tokens")

# Parsing their service models takes long enough to block the event loop noticeably.
LARGE_SERVICES = ("autoscaling", "ec2")

# The region in the name of a zone, also of a local one such as `us-east-1-bos-1a`.
_REGION = re.compile(r"[a-z]+(?:-[a-z]+)+-[0-9]+")

CONNECTIONS = 32
# An idle connection is closed after this long.
KEEPALIVE_SECONDS = 12.0


async def new_session(config: AwsConfig, shared: Shared) -> Any:
    """Return a session of the SDK, which has read its configuration files.

    Raises:
        Exception: whatever the SDK raises if its configuration cannot be used.
    """
    return await anyio.to_thread.run_sync(_load_session, config, shared)


def _load_session(config: AwsConfig, shared: Shared) -> Any:
    """Import the SDK and read its files: half a second of work the first time."""
    for name in ("aiobotocore", "botocore"):
        logger = logging.getLogger(name)
        if logger.level == logging.NOTSET:
            # At DEBUG the SDK logs requests and answers as they are, with keys and tokens.
            logger.setLevel(logging.INFO)
    for name in LOUD:
        logging.getLogger(name).setLevel(logging.ERROR)
    session = importlib.import_module("aiobotocore.session").AioSession()
    session.register("before-parse", _refuse_foreign)
    if config.endpoint_url is not None:
        _redirect(session, config.endpoint_url)
    for variable in ("profile", "config_file", "credentials_file"):
        value = getattr(config, variable)
        if value is not None:
            session.set_config_variable(variable, str(value))
    session.get_scoped_config()  # Raises if the configuration cannot be used.
    if shared.loader is None:
        shared.loader = session.get_component("data_loader")
    session.register_component("data_loader", shared.loader)
    shared.loader.load_data("endpoints")
    for service in LARGE_SERVICES:
        shared.loader.load_service_model(service, "service-2")
    return session


def _redirect(session: Any, url: str) -> None:
    """Let all clients of a session send to a URL, also those with which it gets credentials."""
    create = session.create_client

    def create_client(*arguments: Any, **options: Any) -> Any:
        return create(*arguments, **{**options, "endpoint_url": options.get("endpoint_url") or url})

    session.create_client = create_client


def _refuse_foreign(response_dict: Mapping[str, Any], **_: Any) -> None:
    """Refuse an answer that did not come from AWS: the SDK reads some as an empty one.

    Raises:
        ForeignAnswer: it is one.
    """
    kind = str(response_dict["headers"].get("content-type", ""))
    if is_foreign(response_dict["status_code"], kind, response_dict["body"] or b""):
        raise ForeignAnswer


async def find_region(config: AwsConfig, session: Any) -> str | None:
    """Return the region to use; None if nothing names one.

    Without a setting it is that of the instance that this process runs on.

    Raises:
        Exception: whatever the SDK raises if its configuration cannot be used.
    """
    region: str | None = config.region or session.get_config_variable("region")
    if region:
        return region
    utils = importlib.import_module("aiobotocore.utils")
    zone = await utils.AioIMDSRegionProvider(session=session).provide()
    found = _REGION.match(zone or "")
    return found[0] if found else None


def client_options(config: AwsConfig, region: str) -> dict[str, Any]:
    """Return the arguments of `create_client`."""
    settings = importlib.import_module("aiobotocore.config")
    return {
        "region_name": region,
        "config": settings.AioConfig(
            # `Clients` retries: it knows which requests change something, and asks the
            # limiter before each attempt.
            retries={"mode": "standard", "total_max_attempts": 1},
            connect_timeout=config.connect_timeout.total_seconds(),
            read_timeout=config.read_timeout.total_seconds(),
            max_pool_connections=CONNECTIONS,
            connector_args={"keepalive_timeout": KEEPALIVE_SECONDS},
            user_agent_extra="fleeting-plugin-aws",
        ),
    }


def method_name(operation: str) -> str:
    """Return the name of a client's method for an operation such as `DescribeInstances`."""
    name: str = importlib.import_module("botocore").xform_name(operation)
    return name
