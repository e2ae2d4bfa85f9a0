"""Loads Google's SDK and calls it. Everything here blocks, so it runs in threads.

The SDK has synchronous clients only. `GoogleSdk` is used by several threads at the
same time; its clients allow that. The SDK's own retries are off, because they go on
for ten minutes, and so are its objects for operations, which would ask the public
endpoint instead of the configured one.
"""

from __future__ import annotations

import importlib
import json
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fleeting_plugin_googlecloud._config import GoogleConfig

__all__ = ("GoogleSdk", "load_sdk")

SCOPES = ("https://www.googleapis.com/auth/compute",)

# The readers of files with credentials, by the type of the file.
_KINDS = {
    "service_account": ("google.oauth2.service_account", "from_service_account_file"),
    "authorized_user": ("google.oauth2.credentials", "from_authorized_user_file"),
    "external_account": ("google.auth.identity_pool", "from_file"),
}


class GoogleSdk:
    """The clients of one group.

    Args:
        clients: by the name of their service, such as `instances`.
    """

    def __init__(self, clients: Mapping[str, Any]) -> None:
        self._clients = clients
        self._closed = False

    def call(
        self, service: str, method: str, request: Mapping[str, Any], seconds: float
    ) -> dict[str, Any]:
        """Send a request and return the answer in the form of Google's documentation.

        Args:
            service: such as `instances`.
            method: as the SDK names it, such as `set_metadata_unary`.
            request: its fields, as the SDK names them.
            seconds: how long Google may stay silent.

        Raises:
            Exception: any that the SDK raises.
        """
        to_dict = importlib.import_module("google.protobuf.json_format").MessageToDict
        client = self._clients[service]
        try:
            answer: Any = getattr(client, method)(
                request=dict(request), retry=None, timeout=seconds
            )
        finally:
            if self._closed:  # Meanwhile, and this call has made a connection after that.
                client.transport.close()
        # A listing comes as a pager, which would request the next page by itself.
        answer = getattr(answer, "_response", answer)

        found: dict[str, Any] = to_dict(answer.__class__.pb(answer))
        return found

    def close(self) -> None:
        """Close all connections. Calls that were left behind close theirs when they end."""
        self._closed = True
        for client in self._clients.values():
            client.transport.close()


def load_sdk(config: GoogleConfig) -> GoogleSdk:
    """Import the SDK, find credentials, and make the clients. No request is sent to Compute Engine.

    Raises:
        Exception: whatever the SDK raises, for example if there are no credentials.
    """
    logger = logging.getLogger("google")
    if logger.level == logging.NOTSET:
        # At DEBUG the SDK logs requests and answers as they are, with keys and tokens.
        logger.setLevel(logging.INFO)
    from google.api_core.client_options import ClientOptions
    from google.cloud import compute_v1

    credentials = _find_credentials(config)
    options = ClientOptions(api_endpoint=config.endpoint)
    managers = "RegionInstanceGroupManagers" if config.is_regional else "InstanceGroupManagers"
    kinds = {
        "managers": managers,
        "instances": "Instances",
        "zone_operations": "ZoneOperations",
        "region_operations": "RegionOperations",
        "projects": "Projects",
        "templates": "InstanceTemplates",
        "region_templates": "RegionInstanceTemplates",
    }
    return GoogleSdk(
        {
            service: getattr(compute_v1, f"{kind}Client")(
                credentials=credentials, client_options=options
            )
            for service, kind in kinds.items()
        }
    )


def _find_credentials(config: GoogleConfig) -> Any:
    auth = importlib.import_module("google.auth")
    if config.credentials_file is None:
        return auth.default(scopes=SCOPES)[0]
    path = config.credentials_file.expanduser()
    unusable = auth.exceptions.DefaultCredentialsError
    try:
        kind = json.loads(path.read_text()).get("type")
        # The library's own function for all kinds is deprecated: a file can make it run programs.
        if kind not in _KINDS:
            raise unusable(f"{path} has credentials of the type {kind!r}, not {', '.join(_KINDS)}")
        module, reader = _KINDS[kind]
        read = getattr(importlib.import_module(module).Credentials, reader)
        return read(str(path), scopes=SCOPES)
    except (AttributeError, KeyError, OSError, ValueError) as error:
        if isinstance(error, auth.exceptions.GoogleAuthError):
            raise
        # The error could contain a part of the file.
        raise unusable(f"{path} has no usable credentials ({type(error).__name__})") from None
