"""The group itself: each of its methods is a request or two, and a pure function."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, ClassVar

import anyio
from typing_extensions import override

from fleeting.abc import InstanceGroup
from fleeting.errors import (
    FleetingError,
    InstanceGone,
    InstanceUnhealthy,
    NotSupported,
    ProviderError,
    QuotaExceeded,
)
from fleeting.types import Accepted, Capability, GroupInfo, Instance, Listing, State
from fleeting_plugin_aws import __version__
from fleeting_plugin_aws._capacity import plan_growth, plan_removal
from fleeting_plugin_aws._clients import server_time
from fleeting_plugin_aws._describe import describe_group
from fleeting_plugin_aws._errors import Refused
from fleeting_plugin_aws._losses import Losses
from fleeting_plugin_aws._notices import watch
from fleeting_plugin_aws._sleepers import Sleepers
from fleeting_plugin_aws._standby import Wish
from fleeting_plugin_aws._states import is_absent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Mapping, Sequence
    from datetime import datetime

    from fleeting.types import ConnectInfo, Notice
    from fleeting_plugin_aws import AwsConfig
    from fleeting_plugin_aws._access import Access
    from fleeting_plugin_aws._clients import Clients
    from fleeting_plugin_aws._standby import Sleeping
    from fleeting_plugin_aws._states import Member, Snapshot

__all__ = ("AwsGroup",)

logger = logging.getLogger("fleeting")

# How many terminations are under way at once.
TERMINATIONS = 10

# How old a listing may be to answer whether an instance works, in seconds.
FRESH_SECONDS = 20.0
