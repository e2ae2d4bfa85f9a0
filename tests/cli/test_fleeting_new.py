"""`fleeting new`: the created project, checked with its own tools in a fresh environment."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from fleeting._scaffold import FILES, LONGEST_NAME, create_project, names_of
from fleeting.errors import ConfigError
from plugin_folder import PluginFolder

if TYPE_CHECKING:
    from fleeting_command import CompletedProcess

ROOT = Path(__file__).parents[2]
TOOLS = ("hatchling", "mypy", "pytest", "ruff")
LONG = "a1-" * (LONGEST_NAME // 3) + "z"
SCRIPT_LINE = re.compile(r"^    - (.+)$", re.MULTILINE)


OFFLINE = ("--no-build-isolation", "--no-deps")


def _uv(*words: str | Path) -> None:
    command = [sys.executable, "-m", "uv", *words, "--quiet"]
    subprocess.run(command, cwd=ROOT, check=True, timeout=300)


class Environment(NamedTuple):
    """A fresh environment with `fleeting` as a wheel, and the tools of an author."""

    path: Path

    @property
    def python(self) -> Path:
        """Return the interpreter."""
        return self.path / "bin" / "python"

    def install(self, *words: str | Path) -> None:
        """Install something without a package index."""
        _uv("pip", "install", "--python", self.python, *OFFLINE, *words)

    def run(self, words: str, folder: Path) -> CompletedProcess:
        """Run a line of commands in the activated environment."""
        return subprocess.run(
            ["/bin/sh", "-ec", words],
            cwd=folder,
            env={**os.environ, "PATH": f"{self.path / 'bin'}:{os.environ['PATH']}"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def ok(self, words: str, folder: Path) -> str:
        """Run a line of commands that has to succeed, and return its output."""
        completed = self.run(words, folder)
        assert completed.returncode == 0, completed.stdout + completed.stderr
        return completed.stdout


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """Create the environment, from the wheel."""
    folder = tmp_path_factory.mktemp("environment")
    _uv("build", "--wheel", "--no-build-isolation", "--out-dir", folder, ROOT / "fleeting")
    (wheel,) = folder.glob("*.whl")
    environment = Environment(folder / "venv")
    _uv("venv", "--python", sys.executable, environment.path)
    tools = [f"{name}=={importlib.metadata.version(name)}" for name in TOOLS]
    _uv("pip", "install", "--python", environment.python, f"{wheel}[testing]", *tools)
    return environment


@pytest.mark.long
@pytest.mark.parametrize(
    ("text", "name"),
    [("3Par_X", "3par-x"), (LONG, LONG)],
    ids=["odd", "long"],
)
def test_project_passes_its_own_checks(
    environment: Environment, tmp_path: Path, text: str, name: str
) -> None:
    """The tests of a new project pass, linters find nothing, and its plugin can be used."""
    assert f"created plugin {name!r}" in environment.ok(f"fleeting new {text}", tmp_path)
    project = tmp_path / name
    environment.install(project)
    first, *lines = SCRIPT_LINE.findall((project / ".gitlab-ci.yml").read_text())
    assert first.startswith("pip install")
    assert lines == ["ruff check .", "ruff format --check .", "mypy", "pytest"]
    outputs = [environment.ok(line, project) for line in lines]
    assert re.search(r"^\d{2,} passed", outputs[-1].splitlines()[-1].strip("= "))

    listed: list[dict[str, Any]] = json.loads(
        environment.ok("fleeting list --verify --json", tmp_path)
    )
    (row,) = [row for row in listed if row["name"] == name]
    assert (row["status"], row["distribution"]) == ("ok", f"fleeting-plugin-{name}")
    assert (row["capabilities"], row["keys"]) == (["suspend"], ["group", "max_size"])


@pytest.mark.long
def test_readme_has_the_keys_of_the_struct(environment: Environment, tmp_path: Path) -> None:
    """The table of keys in the README matches `fleeting info`."""
    environment.ok("fleeting new keys", tmp_path)
    environment.install(tmp_path / "keys")
    info = json.loads(environment.ok("fleeting info keys --json", tmp_path))
    readme = (tmp_path / "keys" / "README.md").read_text()
    for key in info["keys"]:
        default = "required" if key["required"] else key["default"]
        assert f"| `{key['name']}` | {key['type']} | {default} | {key['text']} |" in readme
    assert len(info["keys"]) == readme.count("| `")


@pytest.mark.long
def test_tests_of_the_project_find_a_broken_promise(
    environment: Environment, tmp_path: Path
) -> None:
    """The tests of a new project fail for a group that breaks a promise."""
    environment.ok("fleeting new wrong", tmp_path)
    module = tmp_path / "wrong" / "src" / "fleeting_plugin_wrong" / "__init__.py"
    text = module.read_text()
    assert "return Accepted(len(asked), asked)" in text
    module.write_text(text.replace("return Accepted(len(asked), asked)", "return Accepted(0)"))
    environment.install(tmp_path / "wrong")
    completed = environment.run("pytest -q -k idempotent", tmp_path / "wrong")
    assert completed.returncode == 1, completed.stdout
    assert "FAILED tests/test_contract.py::TestContract::test_decrease_is" in completed.stdout


@pytest.fixture
def plugins(tmp_path: Path) -> PluginFolder:
    """Return a folder for the plugins of a test."""
    return PluginFolder(tmp_path / "plugins")


def test_project_has_one_short_module(tmp_path: Path) -> None:
    """There is one module of less than 150 lines, and no unfilled placeholder."""
    paths = create_project(names_of("my-cloud"), tmp_path / "project")
    assert len(paths) == len(FILES)
    assert sorted(paths) == sorted(
        str(path.relative_to(tmp_path / "project"))
        for path in (tmp_path / "project").rglob("*")
        if path.is_file()
    )
    (module,) = (tmp_path / "project" / "src").rglob("*.py")
    assert len(module.read_text().splitlines()) < 150
    texts = {path: (tmp_path / "project" / path).read_text() for path in paths}
    assert [path for path, text in texts.items() if "$" in text.replace("$PYTHON", "")] == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("my-cloud", ("my-cloud", "fleeting-plugin-my-cloud", "fleeting_plugin_my_cloud")),
        ("My_Cloud.2", ("my-cloud-2", "fleeting-plugin-my-cloud-2", "fleeting_plugin_my_cloud_2")),
        ("fleeting-plugin-x", ("x", "fleeting-plugin-x", "fleeting_plugin_x")),
        ("9", ("9", "fleeting-plugin-9", "fleeting_plugin_9")),
    ],
)
def test_names_of_a_plugin(text: str, expected: tuple[str, ...]) -> None:
    """The distribution and the module are named after the plugin."""
    assert names_of(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "-x", "x-", "a b", "a/b", "../x", "ünï", "x" * (LONGEST_NAME + 1), "fleeting-plugin-"],
)
def test_invalid_name(text: str) -> None:
    """An invalid name is refused, with an example of a valid one."""
    with pytest.raises(ConfigError, match=r"is not a valid plugin name; use .* my-cloud"):
        names_of(text)


def test_name_of_an_installed_plugin(plugins: PluginFolder) -> None:
    """The name of another distribution's plugin is refused, that of an earlier try is not."""
    completed = plugins.run("new", "local")
    assert completed.returncode == 2
    assert "plugin 'local' already exists in fleeting " in completed.stderr
    plugins.add("mine")
    assert plugins.run("new", "mine").returncode == 0


def test_nothing_is_overwritten(plugins: PluginFolder, tmp_path: Path) -> None:
    """An existing file, directory or dangling link is not changed."""
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "README.md").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    before = sorted(path.name for path in tmp_path.rglob("*"))
    for name in ("file", "full", "link", "empty"):
        completed = plugins.run("new", "x", "--directory", name)
        assert completed.returncode == 2
        assert f"{tmp_path / name} exists and was not changed" in completed.stderr
    assert sorted(path.name for path in tmp_path.rglob("*")) == before
    assert (tmp_path / "full" / "README.md").read_text() == "mine"


def test_directory_and_json(plugins: PluginFolder, tmp_path: Path) -> None:
    """`--json` prints the names and the files, which have the usual permissions."""
    completed = plugins.run("new", "x", "-d", "other", "--json")
    printed = json.loads(completed.stdout)
    assert printed["directory"] == "other"
    assert printed["module"] == "fleeting_plugin_x"
    assert sorted(printed["files"]) == sorted(
        str(path.relative_to(tmp_path / "other"))
        for path in (tmp_path / "other").rglob("*")
        if path.is_file()
    )
    (tmp_path / "reference").mkdir()
    usual = (tmp_path / "reference").stat().st_mode
    assert (tmp_path / "other").stat().st_mode == usual
    assert (tmp_path / "other" / "src").stat().st_mode == usual


def test_failure_leaves_nothing(plugins: PluginFolder, tmp_path: Path) -> None:
    """If the directory cannot be created, no part of the project is left."""
    completed = plugins.run("new", "x", "--directory", "missing/x")
    assert completed.returncode == 2
    assert f"directory {tmp_path / 'missing'} does not exist" in completed.stderr
    completed = plugins.run("new", "x", "--directory", "x" * 255)
    assert completed.returncode == 3
    assert completed.stderr.startswith("error: the system refused: ")
    assert [path.name for path in tmp_path.iterdir()] == ["plugins"]
