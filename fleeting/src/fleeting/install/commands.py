"""The exact command lines of the installers, each a list of arguments that no shell reads."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from fleeting._references import canonical
from fleeting.errors import InstallError
from fleeting.install.environment import Environment, Keeper

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = (
    "Change",
    "Sources",
    "change",
    "check",
    "child_environment",
    "receipt_requirements",
    "removal",
    "resolution",
    "shown",
    "trial",
)

# Settings that would make of an installation something else. Whatever else the user has set,
# such as the index of a company, stays as it is.
_MEDDLING = {
    *("PIP_DRY_RUN", "PIP_EDITABLE", "PIP_FORCE_REINSTALL", "PIP_IGNORE_INSTALLED", "PIP_LOG"),
    *("PIP_NO_DEPS", "PIP_PREFIX", "PIP_PYTHON", "PIP_QUIET", "PIP_REPORT", "PIP_REQUIREMENT"),
    *("PIP_ROOT", "PIP_TARGET", "PIP_UPGRADE", "PIP_USER", "PIP_VERBOSE"),
    *("UV_BREAK_SYSTEM_PACKAGES", "UV_NO_DEPS", "UV_PREFIX", "UV_PYTHON", "UV_SYSTEM_PYTHON"),
    *("UV_TARGET", "UV_PROJECT_ENVIRONMENT"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where distributions come from; what is not said here is as the installer is configured.

    Attributes:
        index_url: of the index, instead of the one that is configured.
        extra_index_urls: of others that are asked as well.
        find_links: folders or pages with archives.
        no_index: whether no index is asked.
        requirement_files: files of requirements to install.
        require_hashes: whether each requirement must have a hash that fits.
        pre: whether pre-releases may be taken.
    """

    index_url: str = ""
    extra_index_urls: tuple[str, ...] = ()
    find_links: tuple[str, ...] = ()
    no_index: bool = False
    requirement_files: tuple[str, ...] = ()
    require_hashes: bool = False
    pre: bool = False

    def places(self) -> list[str]:
        """Return the options that say where, which pip and uv share."""
        options = [f"--index-url={self.index_url}"] if self.index_url else []
        options += [f"--extra-index-url={url}" for url in self.extra_index_urls]
        options += [f"--find-links={place}" for place in self.find_links]
        return [*options, *(["--no-index"] if self.no_index else [])]

    def options(self) -> list[str]:
        """Return all of them, for `pip install` and `uv pip install`."""
        files = [f"--requirement={name}" for name in self.requirement_files]
        return [
            *self.places(),
            *(["--pre"] if self.pre else []),
            *(["--require-hashes"] if self.require_hashes else []),
            *files,
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What is to be done to an environment.

    Attributes:
        exact: each wish with the version that was found, as in `fleeting-plugin-aws==1.5.0`.
        asked: each wish as it was asked for: what a list of contents has to remember.
        kept: what must stay as it is, as in `fleeting==1.0.0`.
        receipt: what the receipt of `uv tool` has now, and what it must go on to have.
        upgrade: the distributions that may be upgraded.
        names: the distributions that are wished for, whatever was asked of them before.
    """

    exact: tuple[str, ...]
    asked: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    receipt: Mapping[str, Any] | None = None
    upgrade: tuple[str, ...] = ()
    names: tuple[str, ...] = ()


def _installer(environment: Environment, verb: str) -> list[str]:
    python = str(environment.facts.python)
    if environment.uses_pip:
        # -P, so that a pip.py in this folder is not taken for pip.
        return [python, "-P", "-m", "pip", verb]
    return [environment.facts.uv, "pip", verb, f"--python={python}"]


def resolution(
    environment: Environment,
    wishes: Sequence[str],
    kept: Sequence[str],
    sources: Sources,
    *,
    report: Path,
    upgrade: Sequence[str] = (),
) -> list[str]:
    """Ask what an installation would do.

    Args:
        environment: who is asked.
        wishes: requirements.
        kept: requirements that hold now and must go on to hold.
        sources: where from.
        report: where pip writes its answer; uv prints it.
        upgrade: the distributions of which a newer version is wanted.
    """
    command = [*_installer(environment, "install"), "--dry-run"]
    if environment.uses_pip:
        command += [f"--report={report}", *(["--upgrade"] if upgrade else [])]
    else:
        command += [f"--upgrade-package={name}" for name in upgrade]
    return [*command, *sources.options(), *kept, *wishes]


def trial(
    environment: Environment, exact: Sequence[str], sources: Sources, folder: Path
) -> list[str]:
    """Install exactly these distributions into a scratch folder, to see whether it works."""
    command = [*_installer(environment, "install"), f"--target={folder}", "--no-deps"]
    command += ["--no-compile"] if environment.uses_pip else []
    return [*command, *sources.options(), *exact]


def check(environment: Environment) -> list[str]:
    """Ask whether all that is installed has what it needs."""
    return _installer(environment, "check")


def change(environment: Environment, wanted: Change, sources: Sources) -> list[str]:
    """Change the environment."""
    match environment.keeper:
        case Keeper.NOBODY:
            command = _installer(environment, "install")
            return [*command, *sources.options(), *wanted.kept, *wanted.exact]
        case Keeper.PIPX:
            if sources.requirement_files:
                raise InstallError(
                    "pipx remembers what it injects by name and takes no file of hashes; name the "
                    "plugins, or use an environment that was made by venv or uv"
                )
            arguments = shlex.join([*sources.options(), *(["--upgrade"] if wanted.upgrade else [])])
            command = [environment.facts.pipx, "inject", environment.facts.prefix.name]
            options = [f"--pip-args={arguments}"] if arguments else []
            force = ["--force"] if wanted.upgrade else []
            return [*command, *wanted.asked, *options, *force]
        case Keeper.UV_TOOL:
            if sources.requirement_files:
                raise InstallError(
                    "`uv tool` remembers requirements and no file of hashes; name the plugins, or "
                    "use an environment that was made by venv or uv"
                )
            return _tool_install(environment, wanted, sources)


def _tool_install(environment: Environment, wanted: Change, sources: Sources) -> list[str]:
    receipt = wanted.receipt or {}
    entries = receipt.get("requirements", [])
    staying = [one for one in entries if canonical(one["name"]) not in wanted.names]
    main, *others = receipt_requirements({**receipt, "requirements": staying}) or ["fleeting"]
    options = _receipt_options(receipt.get("options", {}))
    options += [option for option in sources.places() if option not in options]
    if sources.pre and "--prerelease=allow" not in options:
        options.append("--prerelease=allow")
    options += [f"--upgrade-package={name}" for name in wanted.upgrade]
    if isinstance(python := receipt.get("python"), str):
        options.append(f"--python={python}")
    with_ = dict.fromkeys([*others, *wanted.asked])
    packages = [f"--with={requirement}" for requirement in with_]
    return [environment.facts.uv, "tool", "install", *options, main, *packages]


def receipt_requirements(receipt: Mapping[str, Any]) -> list[str]:
    """Return the requirements in a receipt of `uv tool`, the tool's own first.

    Raises:
        InstallError: it holds something that a command line could not repeat.
    """
    odd = sorted({"constraints", "overrides", "excludes", "build-constraints"} & set(receipt))
    if odd:
        raise InstallError(
            f"`uv tool` installed fleeting with {' and '.join(odd)}, which would be lost; give "
            "them and the plugins to `uv tool install` yourself"
        )
    return [_requirement(entry) for entry in receipt.get("requirements", [])]


def _requirement(entry: Mapping[str, Any]) -> str:
    extras = f"[{','.join(entry['extras'])}]" if entry.get("extras") else ""
    text = f"{entry['name']}{extras}"
    git = f"git+{entry['git']}" if "git" in entry else ""
    place = entry.get("url") or git
    for key in ("path", "directory", "editable"):
        place = place or (f"file://{entry[key]}" if key in entry else "")
    text += f" @ {place}" if place else entry.get("specifier", "")
    return f"{text} ; {entry['marker']}" if entry.get("marker") else text


def _receipt_options(options: Mapping[str, Any]) -> list[str]:
    """Return the options that a receipt remembers as they were given."""
    found: list[str] = []
    for name, value in options.items():
        values = cast("list[Any]", value) if isinstance(value, list) else [value]
        for one in values:
            if isinstance(one, dict):
                table = cast("Mapping[str, Any]", one)
                kind = "default-index" if table.get("default") else name
                found.append(f"--{kind}={table.get('url', '')}")
            elif isinstance(one, bool):
                found += [f"--{name}"] if one else []
            else:
                found.append(f"--{name}={one}")
    return found


def removal(
    environment: Environment,
    distribution: str,
    receipt: Mapping[str, Any] | None = None,
    by_hand: Sequence[str] = (),
) -> list[str]:
    """Remove one distribution, and nothing else that others may use.

    Args:
        environment: who is asked.
        distribution: its normalized name.
        receipt: what the receipt of `uv tool` has now.
        by_hand: distributions that are to stay and are not in the receipt.
    """
    match environment.keeper:
        case Keeper.NOBODY:
            yes = ["--yes"] if environment.uses_pip else []
            return [*_installer(environment, "uninstall"), *yes, distribution]
        case Keeper.PIPX:
            name = environment.facts.prefix.name
            return [environment.facts.pipx, "uninject", "--leave-deps", name, distribution]
        case Keeper.UV_TOOL:
            entries = (receipt or {}).get("requirements", [])
            left = [entry for entry in entries if canonical(entry["name"]) != distribution]
            if len(left) == len(entries):  # It was put in by hand, and is taken out likewise.
                return [*_installer(environment, "uninstall"), distribution]
            rest = {**(receipt or {}), "requirements": left}
            wanted = Change(exact=(), asked=tuple(by_hand), receipt=rest)
            return _tool_install(environment, wanted, Sources())


def child_environment(environ: Mapping[str, str], netrc: Path | None) -> dict[str, str]:
    """Return the variables that an installer is started with.

    Args:
        environ: those of this process; what it says about indexes and proxies stays.
        netrc: a file with credentials, for the installer alone; None if there are none.
    """
    kept = {name: value for name, value in environ.items() if name not in _MEDDLING}
    added = {"PIP_NO_INPUT": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "NO_COLOR": "1"}
    if netrc is not None:
        added["NETRC"] = str(netrc)
    return {**kept, **added}


def shown(command: Sequence[str]) -> str:
    """Return a command as a person would type it."""
    return shlex.join(command)
