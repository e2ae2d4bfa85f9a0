"""Answers requests of the API from the state of the fake cloud."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gce_state import ROOT, Refusal, base64_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from gce_faults import OperationFault
    from gce_state import FakeGroup, FakeMachine
    from gce_world import Call, World

__all__ = ("PERMISSIONS", "answer")

# The permission that each method needs.
PERMISSIONS = {
    "instanceGroupManagers.get": "compute.instanceGroupManagers.get",
    "instanceGroupManagers.listManagedInstances": "compute.instanceGroupManagers.get",
    "instanceGroupManagers.listErrors": "compute.instanceGroupManagers.get",
    "instanceGroupManagers.createInstances": "compute.instanceGroupManagers.update",
    "instanceGroupManagers.deleteInstances": "compute.instanceGroupManagers.update",
    "instanceGroupManagers.resize": "compute.instanceGroupManagers.update",
    "instanceGroupManagers.suspendInstances": "compute.instanceGroupManagers.update",
    "instanceGroupManagers.resumeInstances": "compute.instanceGroupManagers.update",
    "instances.get": "compute.instances.get",
    "instances.setMetadata": "compute.instances.setMetadata",
    "instances.getGuestAttributes": "compute.instances.getGuestAttributes",
    "instances.getSerialPortOutput": "compute.instances.getSerialPortOutput",
    "projects.get": "compute.projects.get",
    "instanceTemplates.get": "compute.instanceTemplates.get",
    "zoneOperations.get": "compute.zoneOperations.get",
    "regionOperations.get": "compute.regionOperations.get",
}


def answer(cloud: World, call: Call, fault: OperationFault | None) -> dict[str, Any]:
    """Answer a request.

    Args:
        cloud: the fake cloud.
        call: the request.
        fault: how its operation ends; None if it ends well.

    Raises:
        Refusal: the request is refused.
    """
    return _ANSWERS[call.name](cloud, call, fault)


def _group(cloud: World, call: Call) -> FakeGroup:
    place = call.parameters.get("zone") or call.parameters["region"]
    name = call.parameters["instanceGroupManager"]
    group = cloud.groups.get((place, name))
    wrong_kind = group is not None and ("region" in call.parameters) != (group.region is not None)
    if group is None or wrong_kind:
        project = call.parameters["project"]
        path = f"projects/{project}/{place}/instanceGroupManagers/{name}"
        raise Refusal(404, "notFound", f"The resource '{path}' was not found")
    return group


def _machine(cloud: World, call: Call) -> FakeMachine:
    zone, name = call.parameters["zone"], call.parameters["instance"]
    machine = cloud.engine.machines.get((zone, name))
    if machine is None:
        raise Refusal(404, "notFound", f"The resource 'instances/{name}' was not found")
    return machine


def _get_group(cloud: World, call: Call, fault: OperationFault | None) -> dict[str, Any]:
    del fault
    return _group(cloud, call).describe(call.parameters["project"])


def _list_members(cloud: World, call: Call, fault: OperationFault | None) -> dict[str, Any]:
    del fault
    group = _group(cloud, call)
    project = call.parameters["project"]
    members = [one.describe(project) for one in group.members.values()]
    if group.settings.get("listManagedInstancesResults") != "PAGINATED":
        return {"managedInstances": members} if members else {}
    size = min(cloud.page_size, int(call.parameters.get("maxResults", 500)))
    start = int(call.parameters.get("pageToken", "t0").removeprefix("t"))
    found: dict[str, Any] = {"managedInstances": members[start : start + size]}
    if start + size < len(members):
        found["nextPageToken"] = f"t{start + size}"
    return found


def _list_errors(cloud: World, call: Call, fault: OperationFault | None) -> dict[str, Any]:
    del fault
    return {"items": _group(cloud, call).log}


def _begin(
    cloud: World,
    call: Call,
    scope: str,
    apply: Callable[[], list[tuple[str, str]]],
    fault: OperationFault | None,
) -> dict[str, Any]:
    if fault is not None:
        errors = [(fault.code, fault.message)]
        apply = lambda: errors  # noqa: E731 - pyright accepts no second definition
    request_id = call.parameters.get("requestId", "")
    operation = cloud.engine.begin(call.name, scope, request_id, apply)
    return operation.describe(call.parameters["project"])


def _create(cloud: World, call: Call, fault: OperationFault | None) -> dict[str, Any]:
    group = _group(cloud, call)
    names = [one["name"] for one in call.body["instances"]]
    cloud.engine.check_names(names)
    kind = group.describe("p")["updatePolicy"].get("instanceRedistributionType")
    if group.region and kind != "NONE":
        raise Refusal(412, "conditionNotMet", "Instance redistribution must be NONE")
    return _begin(cloud, call, group.scope, lambda: cloud.engine.create(group, names), fault)


def _resize(cloud: World, call: Call, fault: OperationFault | None) -> dict[str, Any]:
    group, size = _group(cloud, call), int(call.parameters["size"])
    return _begin(cloud, call, group.scope, lambda: cloud.engine.resize(group, size), fault)


def _delete(cloud: World, call: Call, fault: OperationFault | None) -> dict[str, Any]:
    group = _group(cloud, call)
    skip = bool(call.body.get("skipInstancesOnValidationError"))
    members = cloud.engine.chosen(group, call.body["instances"], skip=skip)
    if not members and cloud.refuses_nothing_left:
        raise Refusal(400, "invalid", "None of the instances can be deleted")
    return _begin(cloud, call, group.scope, lambda: cloud.engine.delete(group, members), fault)


def _suspend(cloud: World, call: Call, fault: OperationFault | None) -> dict[str, Any]:
    group = _group(cloud, call)
    members = cloud.engine.chosen(group, call.body["instances"], skip=False)
    return _begin(cloud, call, group.scope, lambda: cloud.engine.suspend(group, members), fault)


def _resume(cloud: World, call: Call, fault: OperationFault | None) -> dict[str, Any]:
    group = _group(cloud, call)
    members = cloud.engine.chosen(group, call.body["instances"], skip=False)
    return _begin(cloud, call, group.scope, lambda: cloud.engine.resume(group, members), fault)


def _get_instance(cloud: World, call: Call, fault: OperationFault | None) -> dict[str, Any]:
    del fault
    return _machine(cloud, call).describe(call.parameters["project"])


def _set_metadata(cloud: World, call: Call, fault: OperationFault | None) -> dict[str, Any]:
    machine = _machine(cloud, call)
    if call.body.get("fingerprint", "") != machine.fingerprint:
        raise Refusal(412, "conditionNotMet", "Supplied fingerprint does not match")
    metadata = {one["key"]: one["value"] for one in call.body.get("items", ())}

    def apply() -> list[tuple[str, str]]:
        machine.metadata = metadata
        machine.fingerprint = base64_text()
        cloud.agent.answer_windows(machine)
        return []

    return _begin(cloud, call, f"zones/{machine.zone}", apply, fault)


def _guest_attributes(cloud: World, call: Call, fault: OperationFault | None) -> dict[str, Any]:
    del fault
    machine = _machine(cloud, call)
    if not machine.attributes:
        raise Refusal(404, "notFound", "The resource 'hostkeys/' of type 'Guest Attribute'")
    items = [
        {"namespace": "hostkeys", "key": key, "value": value}
        for key, value in machine.attributes.items()
    ]
    return {"kind": "compute#guestAttributes", "queryValue": {"items": items}}


def _serial_port(cloud: World, call: Call, fault: OperationFault | None) -> dict[str, Any]:
    del fault
    machine = _machine(cloud, call)
    start = int(call.parameters.get("start", "0"))
    return {
        "kind": "compute#serialPortOutput",
        "contents": machine.serial[start:],
        "start": str(start),
        "next": str(len(machine.serial)),
    }


def _get_operation(cloud: World, call: Call, fault: OperationFault | None) -> dict[str, Any]:
    del fault
    operation = cloud.engine.operations.get(call.parameters["operation"])
    place = call.parameters.get("zone") or call.parameters.get("region")
    if operation is None or operation.scope.partition("/")[2] != place:
        raise Refusal(404, "notFound", "The operation was not found")
    operation.polls += 1
    return operation.describe(call.parameters["project"])


def _get_project(cloud: World, call: Call, fault: OperationFault | None) -> dict[str, Any]:
    del fault
    items = [{"key": key, "value": text} for key, text in cloud.agent.project_metadata.items()]
    return {
        "kind": "compute#project",
        "name": call.parameters["project"],
        "selfLink": f"{ROOT}/projects/{call.parameters['project']}",
        "commonInstanceMetadata": {"kind": "compute#metadata", "items": items},
    }


def _get_template(cloud: World, call: Call, fault: OperationFault | None) -> dict[str, Any]:
    del fault
    name = call.parameters["instanceTemplate"]
    return {"kind": "compute#instanceTemplate", "name": name, "properties": cloud.template}


_ANSWERS: dict[str, Callable[[World, Call, OperationFault | None], dict[str, Any]]] = {
    "instanceGroupManagers.get": _get_group,
    "instanceGroupManagers.listManagedInstances": _list_members,
    "instanceGroupManagers.listErrors": _list_errors,
    "instanceGroupManagers.createInstances": _create,
    "instanceGroupManagers.resize": _resize,
    "instanceGroupManagers.deleteInstances": _delete,
    "instanceGroupManagers.suspendInstances": _suspend,
    "instanceGroupManagers.resumeInstances": _resume,
    "instances.get": _get_instance,
    "instances.setMetadata": _set_metadata,
    "instances.getGuestAttributes": _guest_attributes,
    "instances.getSerialPortOutput": _serial_port,
    "projects.get": _get_project,
    "instanceTemplates.get": _get_template,
    "zoneOperations.get": _get_operation,
}
