"""The requests that several modules need."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, TypeVar

import anyio

from fleeting.errors import GroupGone, InstanceGone, ProviderError
from fleeting_plugin_googlecloud._errors import Missing, StaleFingerprint, gone
from fleeting_plugin_googlecloud._instances import metadata_of, with_metadata
from fleeting_plugin_googlecloud._members import read_member
from fleeting_plugin_googlecloud._names import request_id

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from fleeting_plugin_googlecloud._api import GoogleApi
    from fleeting_plugin_googlecloud._members import ManagedMember

__all__ = (
    "BATCH",
    "MANAGERS",
    "change_members",
    "change_metadata",
    "describe_instance",
    "describe_managed_group",
    "gather",
    "list_creation_errors",
    "list_members",
    "manager_fields",
)

T = TypeVar("T")

MANAGERS = "managers"
# Google's limits: members in a page of a listing, and instances in a request.
PAGE = 500
BATCH = 1000
# More pages than a group can have: Google's largest groups have 4,000 members.
MOST_PAGES = 100

# How often a write of metadata is tried, and the longest pause between two attempts. Another client
# that writes at the same time makes an attempt fail.
WRITES = 5
WRITE_PAUSE_SECONDS = 0.5


def manager_fields(api: GoogleApi) -> dict[str, str]:
    """Return the fields by which a request names the group, apart from the project."""
    config = api.config
    place = "region" if config.is_regional else "zone"
    return {place: config.place, "instance_group_manager": config.name}


async def gather(*questions: Callable[[], Awaitable[T]]) -> list[T]:
    """Send several requests at the same time; return their answers in order.

    Raises:
        ProviderError: one of them failed; `GroupGone` before any other.
    """
    answers: dict[int, T] = {}
    errors: list[ProviderError] = []

    async def ask(number: int, question: Callable[[], Awaitable[T]]) -> None:
        try:
            answers[number] = await question()
        except ProviderError as error:
            errors.append(error)

    async with anyio.create_task_group() as asking:
        for number, question in enumerate(questions):
            asking.start_soon(ask, number, question)
    if errors:
        raise next((one for one in errors if isinstance(one, GroupGone)), errors[0])
    return [answers[number] for number in range(len(questions))]


async def describe_managed_group(api: GoogleApi) -> dict[str, Any]:
    """Describe the group.

    Raises:
        GroupGone: it does not exist.
        ProviderError: Google did not answer.
    """
    try:
        return await api.read(MANAGERS, "get", **manager_fields(api))
    except Missing:
        raise gone(api.where) from None


async def list_members(api: GoogleApi) -> dict[str, ManagedMember]:
    """List the whole group; return its members by name.

    Raises:
        GroupGone: it does not exist.
        ProviderError: Google did not answer for all pages.
    """
    found: dict[str, ManagedMember] = {}
    token = ""
    for _ in range(MOST_PAGES):
        fields: dict[str, Any] = {**manager_fields(api), "max_results": PAGE}
        if token:
            fields["page_token"] = token
        try:
            page = await api.read(MANAGERS, "list_managed_instances", **fields)
        except Missing:
            raise gone(api.where) from None
        for one in page.get("managedInstances", ()):
            member = read_member(one)
            found[member.name] = member
        token = str(page.get("nextPageToken", ""))
        if not token:  # Groups that are not paginated return everything at once.
            return found
    raise ProviderError(
        f"the listing of group {api.where} has more than {MOST_PAGES} pages; it will be retried"
    )


async def list_creation_errors(api: GoogleApi) -> dict[str, tuple[str, str]]:
    """Return the newest errors of the group: code and message by the name of the instance.

    Raises:
        ProviderError: Google did not answer.
    """
    page = await api.read(MANAGERS, "list_errors", **manager_fields(api), max_results=PAGE)
    found: dict[str, tuple[str, str]] = {}
    errors = sorted(page.get("items", ()), key=lambda one: str(one.get("timestamp", "")))
    for one in errors:
        name = str(one.get("instanceActionDetails", {}).get("instance", "")).rpartition("/")[2]
        error = one.get("error", {})
        found[name] = str(error.get("code", "")), str(error.get("message", ""))
    return found


async def change_members(
    api: GoogleApi,
    method: str,
    names: Sequence[object],
    seed: str,
    **options: object,
) -> None:
    """Change members, in as few requests as Google allows, and wait until that is accepted.

    Args:
        api: sends the requests.
        method: as the SDK names it, such as `delete_instances`.
        names: the members as the method names them.
        seed: distinguishes this change from others: repeating it adds nothing.
        **options: more fields of the request's body.

    Raises:
        GroupGone: the group does not exist.
        OutcomeUnknown: it may have been done.
        ProviderError: Google refused it. Batches before the refused one are done.
    """
    prefix = (
        "region_instance_group_managers" if api.config.is_regional else "instance_group_managers"
    )
    for start in range(0, len(names), BATCH):
        body = {"instances": list(names[start : start + BATCH]), **options}
        try:
            operation = await api.change(
                MANAGERS,
                method,
                **manager_fields(api),
                **{f"{prefix}_{method}_request_resource": body},
                request_id=request_id(api.where, method, seed, str(start)),
            )
        except Missing as error:
            # Also an instance in the request can be missing.
            await describe_managed_group(api)
            raise error from None
        await api.finish(operation, method)


async def describe_instance(api: GoogleApi, member: ManagedMember) -> dict[str, Any]:
    """Describe the instance of a member.

    Raises:
        InstanceGone: it does not exist.
        ProviderError: Google did not answer.
    """
    try:
        return await api.read("instances", "get", zone=member.zone, instance=member.name)
    except Missing:
        raise InstanceGone(
            member.name, f"there is no instance {member.name} in zone {member.zone}"
        ) from None


async def change_metadata(
    api: GoogleApi,
    member: ManagedMember,
    description: Mapping[str, Any],
    key: str,
    change: Callable[[str], str | None],
) -> None:
    """Change one metadata value of an instance, and keep all others.

    Args:
        api: sends the requests.
        member: the instance.
        description: as read a moment ago.
        key: of the value.
        change: returns the new value for the present one; None if it need not be changed.

    Raises:
        InstanceGone: the instance does not exist.
        ProviderError: it was not changed.
    """
    for attempt in range(1, WRITES + 1):
        value = change(metadata_of(description).get(key, ""))
        if value is None:
            return
        metadata = with_metadata(description, key, value)
        try:
            operation = await api.change(
                "instances",
                "set_metadata",
                zone=member.zone,
                instance=member.name,
                metadata_resource=metadata,
                request_id=request_id(api.where, member.path, str(metadata["fingerprint"]), value),
            )
            await api.finish(operation, f"setMetadata of {member.name}")
        except StaleFingerprint:
            if attempt == WRITES:
                raise
            await anyio.sleep(WRITE_PAUSE_SECONDS * random.random())  # noqa: S311 - not a secret
            description = await describe_instance(api, member)
        except Missing:
            raise InstanceGone(member.name, f"there is no instance {member.name}") from None
        else:
            return
