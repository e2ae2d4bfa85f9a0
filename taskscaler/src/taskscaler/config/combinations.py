"""What does not go together: settings each of which would be right alone.

An error is what could never work; a warning is what will probably surprise
somebody, with the numbers that show it.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import msgspec

from fleeting import Problem, parse_reference
from fleeting.errors import ConfigError
from fleeting.types import Severity
from taskscaler.core import UnknownInstances

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from fleeting import GroupConfigEntry
    from taskscaler.config.autoscaler import (
        AutoscalerConfig,
        DefaultPolicyConfig,
    )
    from taskscaler.config.runners import FileConfig, RunnerConfig

__all__ = ("conflicts", "conflicts_of")


def conflicts(file: FileConfig, wrong: Iterable[str]) -> list[Problem]:
    """Find what does not go together in a `config.toml`.

    Args:
        file: as far as it is right.
        wrong: the paths of what is not; nothing is said about a table with such a key.
    """
    found: list[Problem] = []
    for index, runner in enumerate(file.runners):
        if runner.autoscaler is not None:
            path = f"runners[{index}].autoscaler"
            found += _incomplete(runner.autoscaler, path)
            found += _deadlocks(runner.autoscaler, path)
            found += conflicts_of(runner.autoscaler, path)
            found += _unlike_its_runner(runner, runner.autoscaler, path)
    found += _concurrency(file)
    found += _shared(file)
    found += _names(file)
    suspect = {_table(path) for path in wrong}
    return [problem for problem in found if _table(problem.path) not in suspect]


def conflicts_of(config: AutoscalerConfig, path: str) -> Iterator[Problem]:
    """Find what does not go together in an autoscaler's table, in whatever file it stands.

    Args:
        config: the table.
        path: of it, for the messages.
    """
    yield from _hidden(config, path)
    for place, policy in _in_force(config, path):
        yield from _hurtful(config, policy, place)
    yield from _contradictory_times(config, path)
    yield from _same_groups(config, path)


def _table(path: str) -> str:
    return path.rpartition(".")[0]


def _warning(path: str, text: str) -> Problem:
    return Problem(path, text, Severity.WARNING)


def _in_force(config: AutoscalerConfig, path: str) -> Iterator[tuple[str, DefaultPolicyConfig]]:
    """Yield the policies that can hold at some time, each with its path."""
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
        f"it never holds, because policy[{last}] holds at all times and the last one that holds "
        "wins"
    )
    for index in range(last):
        yield _warning(f"{path}.policy[{index}].periods", f"{reason}; move policy[{last}] up")
    if config.extensions.default_policy is not None:
        yield _warning(f"{path}.extensions.default_policy", f"{reason}; remove one of them")


def _deadlocks(config: AutoscalerConfig, path: str) -> Iterator[Problem]:
    """Find where a reservation needs a free slot and nothing ever makes one."""
    in_force = list(_in_force(config, path))
    starved = [
        (place, policy)
        for place, policy in in_force
        if policy.preemptive and policy.idle_count == 0
    ]
    adopts = config.extensions.unknown_instances is UnknownInstances.ADOPT
    hopeless = len(starved) == len(in_force) and not adopts
    for place, policy in starved:
        factor = (
            ", for scale_factor needs slots in use to begin with" if policy.scale_factor else ""
        )
        fix = "write idle_count = 1 or more, or preemptive_mode = false"
        if hopeless:
            yield Problem(
                f"{place}.preemptive_mode",
                "a task is taken only when a slot is free, and with idle_count = 0 none is ever "
                f"made{factor}; {fix}",
            )
        else:
            yield _warning(
                f"{place}.preemptive_mode",
                "while this policy holds, a task is taken only when a slot is free, and with "
                f"idle_count = 0 none is made{factor}; {fix}",
            )


def _hurtful(config: AutoscalerConfig, policy: DefaultPolicyConfig, path: str) -> Iterator[Problem]:
    limit = policy.scale_factor_limit
    if policy.scale_factor and 0 < limit < policy.idle_count:
        yield _warning(
            f"{path}.scale_factor_limit",
            f"{limit} is below idle_count = {policy.idle_count}, which wins, so that scale_factor "
            "has no effect; raise the one or lower the other",
        )
    if limit and not policy.scale_factor:
        yield _warning(
            f"{path}.scale_factor_limit",
            "it limits nothing, because there is no scale_factor; write one, or remove the limit",
        )
    slots = _slots(config)
    if slots is not None and policy.idle_count > slots:
        yield _warning(
            f"{path}.idle_count",
            f"{policy.idle_count} free slots are more than the {slots} of max_instances = "
            f"{config.max_instances} with capacity_per_instance = {config.capacity_per_instance}; "
            "it counts slots, not instances",
        )


def _contradictory_times(config: AutoscalerConfig, path: str) -> Iterator[Problem]:
    extensions = config.extensions
    if extensions.backoff > extensions.backoff_limit:
        yield _warning(
            f"{path}.extensions.backoff",
            f"'{extensions.backoff}' is longer than backoff_limit = '{extensions.backoff_limit}', "
            "which wins; lower it",
        )
    expecting = config.effective("update_interval_when_expecting")
    otherwise = config.effective("update_interval")
    if expecting > otherwise:
        yield _warning(
            f"{path}.update_interval_when_expecting",
            f"'{expecting}' is longer than update_interval = '{otherwise}', so "
            "that a group is listed less often when something is expected of it; lower it",
        )


def _slots(config: AutoscalerConfig) -> int | None:
    """Return how many slots there can be; None if there is no limit."""
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
            "there is no limit, so that a mistake can create as many instances as the cloud "
            "allows; write one",
        )


def _unlike_its_runner(
    runner: RunnerConfig, config: AutoscalerConfig, path: str
) -> Iterator[Problem]:
    above = _table(path)
    slots = _slots(config)
    if slots is not None and 0 < runner.limit != slots:
        yield _uneven(f"{above}.limit", runner.limit, slots)
    if config.state_storage.enabled is not False and runner.identity() is None:
        explicit = config.state_storage.enabled is True
        yield Problem(
            f"{path}.state_storage.enabled" if explicit else f"{path}.extensions.id",
            "nothing names a store for the state, because the runner has neither url and id nor "
            "extensions.id, so that instances would be forgotten at a restart, and `taskscaler "
            "run` asks for --state; write extensions.id",
            Severity.ERROR if explicit else Severity.WARNING,
        )


def _concurrency(file: FileConfig) -> Iterator[Problem]:
    scaled = [runner.autoscaler for runner in file.runners if runner.autoscaler is not None]
    slots = [_slots(config) for config in scaled]
    total = sum(count or 0 for count in slots)
    if file.concurrent > 0 and scaled and None not in slots and file.concurrent != total:
        yield _uneven("concurrent", file.concurrent, total)


def _uneven(path: str, tasks: int, slots: int) -> Problem:
    what = "so that slots stay empty" if tasks < slots else "so that jobs wait for a slot"
    return _warning(
        path,
        f"{tasks} jobs at once are {'less' if tasks < slots else 'more'} than the {slots} slots of "
        f"max_instances times capacity_per_instance, {what}; make them equal",
    )


def _shared(file: FileConfig) -> Iterator[Problem]:
    """Find what two runners must not have in common."""
    owners: dict[bytes, int] = {}
    stores: dict[str, int] = {}
    for index, runner in enumerate(file.runners):
        if runner.autoscaler is None:
            continue
        path = f"runners[{index}].autoscaler"
        groups = {_key(group) for group in runner.autoscaler.groups()} - {None}
        for key in groups:
            if key is not None and (owner := owners.setdefault(key, index)) != index:
                yield Problem(
                    f"{path}.plugin_config",
                    f"runners[{owner}] has the same group, and two scalers would remove each "
                    "other's instances; give each a group of its own",
                )
        # There are file systems that do not tell upper case from lower.
        identity = (runner.identity() or "").casefold()
        if identity and (owner := stores.setdefault(identity, index)) != index:
            yield Problem(
                f"{path}.extensions.id",
                f"runners[{owner}] has the same one, {runner.identity()!r}, and so the same "
                "store; give each its own",
            )


def _names(file: FileConfig) -> Iterator[Problem]:
    """Find why a runner could not be chosen by its name."""
    names = Counter(runner.name for runner in file.runners if runner.autoscaler is not None)
    if not names:
        yield _warning(
            "runners", "none has a table [runners.autoscaler], so that nothing is scaled; write one"
        )
    for name, times in names.items():
        if times > 1:
            yield _warning(
                "runners", f"{times} with an autoscaler are named {name!r}; give each its own name"
            )


def _same_groups(config: AutoscalerConfig, path: str) -> Iterator[Problem]:
    groups = config.groups()
    seen: dict[bytes, int] = {}
    for index, group in enumerate(groups):
        key = _key(group)
        if key is not None and (first := seen.setdefault(key, index)) != index:
            yield Problem(
                f"{path}.extensions.group[{index}].plugin_config",
                f"it is the same group as that of extensions.group[{first}]; remove one of them",
            )
    for name, times in Counter(group.name for group in groups).items():
        if times > 1:
            yield Problem(
                f"{path}.extensions.group",
                f"{times} groups are named {name!r}; give each a name of its own",
            )


def _key(group: GroupConfigEntry) -> bytes | None:
    """Return what tells a group from others; None if its settings do not name it."""
    if not group.plugin_config:
        return None
    try:
        plugin = parse_reference(group.plugin).name
    except ConfigError:
        plugin = group.plugin  # Opening it will say what is wrong.
    return msgspec.json.encode((plugin, group.plugin_config), order="sorted")
