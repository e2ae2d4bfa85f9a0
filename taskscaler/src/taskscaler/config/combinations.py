"""Conflicts between settings that are valid on their own.

An error is a combination that can never work. A warning is one that will probably surprise
the operator; it shows the numbers.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from fleeting import Problem
from fleeting.types import Severity
from taskscaler.core import UnknownInstances

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from taskscaler.config.autoscaler import AutoscalerConfig, DefaultPolicyConfig
    from taskscaler.config.runners import FileConfig, RunnerConfig

__all__ = ("conflicts", "conflicts_of")

_SLOT_KEYS = (".capacity_per_instance", ".max_instances")


def conflicts(file: FileConfig, path: Path, wrong: Iterable[str]) -> list[Problem]:
    """Find conflicting settings in a `config.toml`.

    Args:
        file: the valid part of the file.
        path: the file.
        wrong: the paths of other problems; tables that contain one are not checked.
    """
    found: list[Problem] = []
    for index, runner in enumerate(file.runners):
        if runner.autoscaler is not None:
            table = f"runners[{index}].autoscaler"
            found += _incomplete(runner.autoscaler, table)
            found += _deadlocks(runner.autoscaler, table)
            found += conflicts_of(runner.autoscaler, table)
            found += _executor(runner, f"runners[{index}]")
    # A wrong number of slots was replaced by a default, which says nothing about the others.
    if not any(place.endswith(_SLOT_KEYS) for place in wrong):
        found += _uneven_limits(file)
    found += _shared(file, path)
    found += _names(file, path)
    suspect = {_table(path) for path in wrong}
    return [problem for problem in found if _table(problem.path) not in suspect]


def conflicts_of(config: AutoscalerConfig, path: str) -> Iterator[Problem]:
    """Find conflicting settings in an autoscaler's table.

    Args:
        config: the table.
        path: the path of the table.
    """
    yield from _hidden(config, path)
    for place, policy in _in_force(config, path):
        yield from _ineffective_limits(config, policy, place)
    yield from _contradictory_times(config, path)
    yield from _same_groups(config, path)
    yield from _slots_without_user(config, path)


def _table(path: str) -> str:
    return path.rpartition(".")[0]


def _warning(path: str, text: str) -> Problem:
    return Problem(path, text, Severity.WARNING)


def _in_force(config: AutoscalerConfig, path: str) -> Iterator[tuple[str, DefaultPolicyConfig]]:
    """Yield the policies that are in force at some time, each with its path."""
    first = max((i for i, policy in enumerate(config.policy) if policy.always), default=None)
    if first is None:
        yield f"{path}.extensions.default_policy", config.default_policy()
    for index, policy in enumerate(config.policy):
        if first is None or index >= first:
            yield f"{path}.policy[{index}]", policy


def _hidden(config: AutoscalerConfig, path: str) -> Iterator[Problem]:
    last = max((i for i, policy in enumerate(config.policy) if policy.always), default=None)
    if last is None:
        return
    reason = (
        f"it is never in force, because policy[{last}] always is and the last policy in force wins"
    )
    for index in range(last):
        yield _warning(f"{path}.policy[{index}].periods", f"{reason}; move policy[{last}] up")
    if config.extensions.default_policy is not None:
        yield _warning(f"{path}.extensions.default_policy", f"{reason}; remove one of them")


def _deadlocks(config: AutoscalerConfig, path: str) -> Iterator[Problem]:
    """Find policies where a reservation needs a free slot and no slot is ever created."""
    in_force = list(_in_force(config, path))
    starved = [
        (place, policy)
        for place, policy in in_force
        if policy.preemptive and policy.idle_count == 0
    ]
    adopts = config.extensions.unknown_instances is UnknownInstances.ADOPT
    never_free = len(starved) == len(in_force) and not adopts
    for place, policy in starved:
        factor = ", because scale_factor multiplies the slots in use" if policy.scale_factor else ""
        fix = "write idle_count = 1 or more, or preemptive_mode = false"
        if never_free:
            yield Problem(
                f"{place}.preemptive_mode",
                "tasks are accepted only while a slot is free, and with idle_count = 0 no slot is "
                f"ever created{factor}; {fix}",
            )
        else:
            yield _warning(
                f"{place}.preemptive_mode",
                "while this policy is in force, tasks are accepted only while a slot is free, and "
                f"with idle_count = 0 no slot is created{factor}; {fix}",
            )


def _ineffective_limits(
    config: AutoscalerConfig, policy: DefaultPolicyConfig, path: str
) -> Iterator[Problem]:
    limit = policy.scale_factor_limit
    if policy.scale_factor and 0 < limit < policy.idle_count:
        yield _warning(
            f"{path}.scale_factor_limit",
            f"{limit} is below idle_count = {policy.idle_count}, so scale_factor has no effect; "
            "raise scale_factor_limit or lower idle_count",
        )
    if limit and not policy.scale_factor:
        yield _warning(
            f"{path}.scale_factor_limit",
            "it has no effect without scale_factor; add scale_factor, or remove the limit",
        )
    slots = _slots(config)
    if slots is not None and policy.idle_count > slots:
        yield _warning(
            f"{path}.idle_count",
            f"{policy.idle_count} free slots are more than the {slots} slots of max_instances = "
            f"{config.max_instances} with capacity_per_instance = {config.capacity_per_instance}; "
            "idle_count counts slots, not instances",
        )


def _contradictory_times(config: AutoscalerConfig, path: str) -> Iterator[Problem]:
    extensions = config.extensions
    if extensions.backoff > extensions.backoff_limit:
        yield _warning(
            f"{path}.extensions.backoff",
            f"'{extensions.backoff}' is longer than backoff_limit = '{extensions.backoff_limit}', "
            "so the limit applies; lower backoff",
        )
    expecting = config.effective("update_interval_when_expecting")
    otherwise = config.effective("update_interval")
    if expecting > otherwise:
        yield _warning(
            f"{path}.update_interval_when_expecting",
            f"'{expecting}' is longer than update_interval = '{otherwise}', so a group is listed "
            "less often while a change is expected; lower it",
        )


def _slots_without_user(config: AutoscalerConfig, path: str) -> Iterator[Problem]:
    for index, group in enumerate(config.groups()):
        users, slots = len(group.connector.slot_users), config.capacity_per_instance
        if 0 < users < slots:
            below = f".extensions.group[{index}]" if config.extensions.group else ""
            yield Problem(
                f"{path}{below}.connector_config.slot_users",
                f"it names {users} users for the {slots} slots of capacity_per_instance; name one "
                "user for each slot",
            )


def _slots(config: AutoscalerConfig) -> int | None:
    """Return the most slots; None if there is no limit."""
    slots = (config.max_instances or 0) * config.capacity_per_instance
    return slots if slots > 0 else None


def _incomplete(config: AutoscalerConfig, path: str) -> Iterator[Problem]:
    if not config.extensions.group and not config.plugin:
        yield Problem(f"{path}.plugin", 'the key is missing; write for instance plugin = "aws"')
    for index, entry in enumerate(config.extensions.group):
        if not entry.plugin and not config.plugin:
            yield Problem(
                f"{path}.extensions.group[{index}].plugin",
                "the key is missing here and in the table of the autoscaler; write for instance "
                'plugin = "aws"',
            )
    limited = [entry.max_instances > 0 for entry in config.extensions.group]
    if not config.max_instances and not (limited and all(limited)):
        yield _warning(
            f"{path}.max_instances",
            "no limit is set, so a mistake can create as many instances as the cloud allows; "
            "add max_instances",
        )


def _executor(runner: RunnerConfig, path: str) -> Iterator[Problem]:
    if runner.executor == "docker-autoscaler":
        yield _warning(
            f"{path}.executor",
            "`taskscaler run` runs jobs on the instance itself, not in a container; use `docker "
            "run` in their scripts",
        )


def _uneven_limits(file: FileConfig) -> Iterator[Problem]:
    """Find limits of jobs that differ from the number of slots."""
    for index, runner in enumerate(file.runners):
        slots = _slots(runner.autoscaler) if runner.autoscaler is not None else None
        if slots is not None and 0 < runner.limit != slots:
            yield _uneven(f"runners[{index}].limit", runner.limit, slots)
    scaled = [runner.autoscaler for runner in file.runners if runner.autoscaler is not None]
    counts = [_slots(config) for config in scaled]
    total = sum(count or 0 for count in counts)
    if file.concurrent and scaled and None not in counts and file.concurrent != total:
        yield _uneven("concurrent", file.concurrent, total)


def _uneven(path: str, tasks: int, slots: int) -> Problem:
    what = "so slots stay empty" if tasks < slots else "so jobs wait for a slot"
    return _warning(
        path,
        f"{tasks} jobs at once are {'fewer' if tasks < slots else 'more'} than the {slots} slots "
        f"of max_instances times capacity_per_instance, {what}; make them equal",
    )


def _shared(file: FileConfig, config_path: Path) -> Iterator[Problem]:
    """Find groups and state files that two runners share."""
    owners: dict[bytes, int] = {}
    stores: dict[str, int] = {}
    for index, runner in enumerate(file.runners):
        if runner.autoscaler is None:
            continue
        path = f"runners[{index}].autoscaler"
        groups = {group.fingerprint for group in runner.autoscaler.groups()} - {None}
        for key in groups:
            if key is not None and (owner := owners.setdefault(key, index)) != index:
                yield Problem(
                    f"{path}.plugin_config",
                    f"runners[{owner}] uses the same group, and two scalers would remove each "
                    "other's instances; give each runner its own group",
                )
        state = runner.state_path(config_path)
        # Some file systems do not distinguish upper from lower case.
        if state and (owner := stores.setdefault(str(state).casefold(), index)) != index:
            identity = runner.identity(config_path)
            yield Problem(
                f"{path}.extensions.id",
                f"runners[{owner}] has the same state file {identity.name!r}, which is made from "
                f"{identity.source}; give each runner its own `id` in "
                "[runners.autoscaler.extensions]",
            )


def _names(file: FileConfig, config_path: Path) -> Iterator[Problem]:
    """Find runners that cannot be chosen by name."""
    scaled = [runner for runner in file.runners if runner.autoscaler is not None]
    for name, times in Counter(runner.name for runner in scaled).items():
        states = {runner.state_path(config_path) for runner in scaled if runner.name == name}
        # Runners that share a state file because of their name are reported for that.
        if times > 1 and (len(states) == times or None in states):
            yield _warning(
                "runners",
                f"{times} runners with an autoscaler are named {name!r}; rename all but one",
            )


def _same_groups(config: AutoscalerConfig, path: str) -> Iterator[Problem]:
    groups = config.groups()
    seen: dict[bytes, int] = {}
    for index, group in enumerate(groups):
        key = group.fingerprint
        if key is not None and (first := seen.setdefault(key, index)) != index:
            yield Problem(
                f"{path}.extensions.group[{index}].plugin_config",
                f"it is the same group as extensions.group[{first}]; remove one of them",
            )
    for name, times in Counter(group.name for group in groups).items():
        if times > 1:
            yield Problem(
                f"{path}.extensions.group",
                f"{times} groups are named {name!r}; give each a different name",
            )
