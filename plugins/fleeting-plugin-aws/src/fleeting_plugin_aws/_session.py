"""Loads the AWS SDK and makes its clients."""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING, Any

import anyio.to_thread

if TYPE_CHECKING:
    from fleeting_plugin_aws._config import AwsConfig
    from fleeting_plugin_aws._limiter import Shared

__all__ = ("client_options", "method_name", "new_session")

# Parsing their service models takes long enough to block the event loop noticeably.
LARGE_SERVICES = ("autoscaling", "ec2")

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
    session = importlib.import_module("aiobotocore.session").AioSession()
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


def client_options(config: AwsConfig, region: str) -> dict[str, Any]:
    """Return the arguments of `create_client`."""
    settings = importlib.import_module("aiobotocore.config")
    return {
        "region_name": region,
        "endpoint_url": config.endpoint_url,
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
