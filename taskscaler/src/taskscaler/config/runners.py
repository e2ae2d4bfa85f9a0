"""`config.toml` as a whole: every runner with an autoscaler, and what else it says.

The file belongs to GitLab Runner as much as to us. Below `[runners.autoscaler]`
each key is checked; elsewhere those are read that have a meaning for scaling,
and the others are listed as ignored.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

import msgspec

from fleeting import Problem, examine, read_toml
from fleeting.errors import ConfigError
from fleeting.types import Severity
from taskscaler.config.autoscaler import AutoscalerConfig
from taskscaler.config.combinations import conflicts
from taskscaler.config.elsewhere import ignored_keys, unknown_elsewhere
from taskscaler.config.ranges import out_of_range

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = (
    "FileConfig",
    "RunnerConfig",
    "RunnerFile",
    "config_error",
    "examine_config",
    "read_config",
)

# More would scroll the first ones away, and one mistake often causes many.
PROBLEMS_SHOWN = 20
_PLACE = re.compile(r"runners\[(\d+)\]")
_STORE = ".sqlite"
_STATE_DIRECTORY = Path(".taskscaler")
# File systems take names of 255 bytes, and SQLite needs some for its own files.
_IDENTITY_LENGTH = 150


class RunnerConfig(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`[[runners]]`: the keys that have a meaning for scaling; its token is not one.

    Attributes:
        name: what people call it; may change at any time.
        id: its number at the server.
        url: of the server.
        executor: what runs its jobs; only for messages.
        limit: jobs at once; 0 is no limit.
        request_concurrency: requests for jobs at once; 0 is the default of 1.
        autoscaler: where its instances come from; None if it has none.
    """

    name: str = ""
    id: int | None = None
    url: str = ""
    executor: str = ""
    limit: int = 0
    request_concurrency: int = 0
    autoscaler: AutoscalerConfig | None = None

    def identity(self) -> str | None:
        """Return what names its store: made for a file's name, never of a token or its name.

        It is `extensions.id`, else made of the URL and the id at the server; None if
        there is neither.
        """
        if self.autoscaler is not None and self.autoscaler.extensions.id is not None:
            return self.autoscaler.extensions.id
        address = _address(self.url)
        if not address or not self.id:
            return None
        # Quoting is what makes two addresses two names.
        name = f"{quote(address, safe='')}-{self.id}"
        if len(name) <= _IDENTITY_LENGTH:
            return name
        return f"{name[:80]}-{hashlib.sha256(name.encode()).hexdigest()[:32]}"

    def shown_url(self) -> str:
        """Return the URL without the user and password that it may have."""
        return f"{self.url.partition('://')[0]}://{_address(self.url)}" if self.url else ""

    def state_path(self, config_path: Path) -> Path | None:
        """Return the file of its store; None if nothing is to be kept, or nothing names it.

        Args:
            config_path: the file that was read; a relative folder is relative to its folder.
        """
        identity = self.identity()
        if self.autoscaler is None or identity is None:
            return None
        storage = self.autoscaler.state_storage
        if storage.enabled is False:
            return None
        # An identity may have dots in it, which are no suffix.
        name = identity + _STORE
        return config_path.parent / (storage.dir or _STATE_DIRECTORY) / name

    def state_key_path(self, config_path: Path) -> Path | None:
        """Return the file of the key that seals secrets in the store; None if none is named.

        Args:
            config_path: the file that was read; a relative path is relative to its folder.
        """
        file = self.autoscaler.extensions.state_key_file if self.autoscaler is not None else None
        return None if file is None else config_path.parent / file


def _address(url: str) -> str:
    """Return host, port and path of a URL, and none of the secrets that it may have."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return ""
    return f"{parts.hostname or ''}{port}{parts.path.rstrip('/')}" if parts.hostname else ""


class FileConfig(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A whole `config.toml`.

    Attributes:
        concurrent: jobs at once over all runners; 0 is no limit here.
        runners: each with or without an autoscaler.
    """

    concurrent: int = 0
    runners: list[RunnerConfig] = []


@dataclass(frozen=True, slots=True)
class RunnerFile:
    """What was read of a `config.toml`.

    Attributes:
        path: the file.
        concurrent: jobs at once over all runners; 0 is no limit.
        runners: all of them, in the order of the file.
        warnings: what will probably hurt; one sentence each: file, key path, what, and the fix.
        ignored: the paths of keys that have no effect here.
    """

    path: Path
    concurrent: int
    runners: tuple[RunnerConfig, ...]
    warnings: tuple[str, ...]
    ignored: tuple[str, ...]

    def runner(self, name: str | None) -> RunnerConfig:
        """Return the runner of a name, or the only one that has an autoscaler.

        Raises:
            ConfigError: there is none, or more than one.
        """
        scaled = [runner for runner in self.runners if runner.autoscaler is not None]
        found = [runner for runner in scaled if name is None or runner.name == name]
        if len(found) == 1:
            return found[0]
        names = ", ".join(repr(runner.name) for runner in scaled)
        if not scaled:
            raise ConfigError(f"{self.path}: no runner has a table [runners.autoscaler]; write one")
        if name is None:
            raise ConfigError(
                f"{self.path}: {len(scaled)} runners have an autoscaler; say which: {names}"
            )
        if found:
            raise ConfigError(
                f"{self.path}: {len(found)} runners are named {name!r}; give each a name of its own"
            )
        raise ConfigError(
            f"{self.path}: no runner with an autoscaler is named {name!r}; there are: {names}"
        )


def read_config(path: Path) -> RunnerFile:
    """Read a `config.toml`, and check all of it.

    Raises:
        ConfigError: with a sentence for each thing that is wrong.
    """
    file, problems = examine_config(path)
    if any(problem.severity is Severity.ERROR for problem in problems):
        raise config_error(path, problems)
    return file


def examine_config(path: Path) -> tuple[RunnerFile, list[Problem]]:
    """Read what is right of a `config.toml`, and say what is wrong with the rest.

    Returns:
        What was read, in which what is wrong has its default: not to be used if any of
        the problems is an error. And all problems, warnings too.

    Raises:
        ConfigError: the file cannot be read at all, or is not TOML.
    """
    data = read_toml(path)
    config, problems = examine(data, FileConfig)
    config = config or FileConfig()
    for index, runner in enumerate(config.runners):
        if runner.autoscaler is not None:
            problems += out_of_range(runner.autoscaler, f"runners[{index}].autoscaler")
    problems += conflicts(config, [problem.path for problem in problems])
    problems += unknown_elsewhere(data)
    problems = [_named(problem, config.runners) for problem in problems]
    warnings = [problem for problem in problems if problem.severity is Severity.WARNING]
    file = RunnerFile(
        path=path,
        concurrent=config.concurrent,
        runners=tuple(config.runners),
        warnings=tuple(f"{path}: {problem}" for problem in warnings),
        ignored=tuple(ignored_keys(data)),
    )
    return file, problems


def _named(problem: Problem, runners: Sequence[RunnerConfig]) -> Problem:
    """Add the name of the runner, which people know better than its number."""
    place = _PLACE.match(problem.path)
    name = runners[int(place[1])].name if place and int(place[1]) < len(runners) else ""
    return replace(problem, text=f"(runner {name[:100]!r}) {problem.text}") if name else problem


def config_error(where: object, problems: Sequence[Problem]) -> ConfigError:
    """Return what to raise because of some problems, of which only the errors are told.

    Args:
        where: names the file in each sentence.
        problems: at least one is an error.
    """
    errors = [f"{where}: {p}" for p in problems if p.severity is Severity.ERROR]
    more = len(errors) - PROBLEMS_SHOWN
    if more > 0:
        errors[PROBLEMS_SHOWN:] = [f"and {more} more like these"]
    return ConfigError(*errors)
