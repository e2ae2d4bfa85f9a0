"""Plugins that end the process, hang, print and leak: nothing but the plugin's own call fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cli_command import DEADLINE_SECONDS
from plugin_folder import PluginFolder

BIN = Path(sys.executable).parent
NOISE = (
    "print('noise\\x1b[2J', flush=True); os.write(1, b'written\\n'); "
    "ctypes.CDLL(None).puts(b'from C'); os.system('echo from a child')"
)
PLUGIN = """
import atexit, contextlib, ctypes, os, posix, sys, time
from typing import Annotated
import msgspec
from fleeting.abc import Provider
from fleeting.errors import PermissionDenied, ProviderError
from fleeting.plugin import hookimpl
from fleeting.types import Finding, Severity

class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    token: str = ""
    marked: Annotated[str, msgspec.Meta(extra_json_schema={{"writeOnly": True}})] = ""
    other: str = ""
    url: str = ""

{at_import}

class Troubled(Provider):
    name = "troubled"
    config_type = Config
    @contextlib.asynccontextmanager
    async def open(self, config, settings):
        {on_open}
        yield None
    async def check(self, config, settings):
        {on_check}
        return []

@hookimpl
def fleeting_provider():
    return Troubled()
"""


@pytest.fixture
def plugins(tmp_path: Path) -> PluginFolder:
    """Return an empty folder of plugins."""
    return PluginFolder(tmp_path / "plugins")


def add(
    plugins: PluginFolder, at_import: str = "", on_open: str = "pass", on_check: str = "pass"
) -> None:
    """Install the plugin `troubled`."""
    source = PLUGIN.format(at_import=at_import, on_open=on_open, on_check=on_check)
    plugins.add("troubled", source)


def run(
    plugins: PluginFolder, program: str, *words: str, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a command that sees the plugins."""
    return subprocess.run(
        [BIN / program, *words],
        cwd=plugins.path.parent,
        env={**plugins.environment, **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )


@pytest.mark.parametrize("words", ["fleeting list", "taskscaler --help", "fleeting info local"])
def test_reader_that_has_gone_is_not_the_fault_of_a_plugin(words: str) -> None:
    """Nothing is said if the output goes to a pipe that nothing reads, as in `| head`."""
    program, *arguments = words.split()
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [BIN / program, *arguments], stdout=writing, stderr=subprocess.PIPE, check=False
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.parametrize("status", [0, 7])
def test_call_that_ends_the_process(plugins: PluginFolder, status: int) -> None:
    """The exit code is never that of success, and a message says what happened."""
    add(plugins, on_open=f"os._exit({status})")
    done = run(plugins, "taskscaler", "run", "--plugin", "troubled", "--", "true")
    assert done.returncode == (status or 3)
    assert "error: a plugin ended this process with os._exit" in done.stderr


@pytest.mark.parametrize(
    ("at_import", "said", "code"),
    [
        ("os._exit(0)", "its import ended the process with exit code 0", 2),
        ("posix._exit(0)", "its import ended the process with exit code 0", 2),
        ("ctypes.CDLL(None).exit(0)", "its import ended the process with exit code 0", 2),
        ("os.execv('/bin/true', ['true'])", "its import ended the process with exit code 0", 2),
        ("ctypes.string_at(0)", "its import crashed with SIGSEGV", 2),
        ("sys.exit(0)", "SystemExit: 0", 2),
        ("raise KeyboardInterrupt", "its import crashed with SIGINT", 2),
        ("raise GeneratorExit('x')", "GeneratorExit: x", 2),
        ("time.sleep(1000)", "was not imported within 2 s", 3),
    ],
)
def test_import_that_goes_wrong(
    plugins: PluginFolder, at_import: str, said: str, code: int
) -> None:
    """Whatever an import does, `run` says it and does not succeed."""
    add(plugins, at_import)
    limit = "2s" if code == 3 else "60s"
    words = ("run", "--timeout", limit, "--plugin", "troubled", "--", "true")
    done = run(plugins, "taskscaler", *words)
    assert done.returncode == code
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("words", [("check", "troubled", "--no-connect", "--json")])
def test_what_a_plugin_prints_breaks_no_document(
    plugins: PluginFolder, words: tuple[str, ...]
) -> None:
    """At import, in a call and at exit, from Python, C and a child: it is on standard error."""
    at_exit = "atexit.register(os.write, 1, b'at exit\\n'); atexit.register(print, 'printed')"
    add(plugins, f"{at_exit}; {NOISE}", NOISE, NOISE)
    done = run(plugins, "fleeting", *words)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["verdict"] == "ok"
    for text in ("noise\\x1b[2J", "written", "from C", "from a child", "at exit", "printed"):
        assert text in done.stderr


def test_what_a_plugin_prints_is_not_the_output_of_a_job(plugins: PluginFolder) -> None:
    """Standard output of `run` has the output of jobs and nothing else."""
    plugins.add(
        "noisy",
        "import os\nfrom fleeting.local import LocalProvider\n"
        "from fleeting.plugin import hookimpl\n"
        "class Noisy(LocalProvider):\n    name = 'noisy'\n"
        "    def open(self, config, settings):\n"
        "        print('noise')\n        os.write(1, b'noise\\n')\n"
        "        return super().open(config, settings)\n"
        "@hookimpl\ndef fleeting_provider():\n    return Noisy()\n",
    )
    done = run(plugins, "taskscaler", "run", "--plugin", "noisy", "--", "echo", "hello")
    assert (done.returncode, done.stdout) == (0, "hello\n")
    assert done.stderr.count("noise") == 2


SETTINGS = {
    "token": "tok-abc/def+1",
    "marked": 'it\'s "marked"',
    "other": "unmarked-text",
    "url": "https://me:pa55word@h.example/x",
}
QUOTED = (
    "f'{config} {config.token} {config.marked!r} {urllib.parse.quote(config.token, safe=str())} '"
    "f'{config.url} {json.dumps(config.marked)} {config.other}'"
)


@pytest.mark.parametrize("kind", ["ValueError", "PermissionDenied"])
@pytest.mark.parametrize(
    "words",
    [
        ("taskscaler", "run", "--report", "report.json", "--state", "s.sqlite"),
        ("fleeting", "check", "--json"),
        ("fleeting", "group", "status", "--json"),
    ],
)
def test_no_secret_of_a_plugin_is_shown_or_stored(
    plugins: PluginFolder, kind: str, words: tuple[str, ...]
) -> None:
    """A plugin that quotes its settings leaks no secret, in whatever form; it names the fault."""
    fails = f"raise {kind}({QUOTED} + ' failed')"
    add(plugins, "import json, urllib.parse", fails, fails)
    program, *rest = words
    rest += [f"--plugin-config={key}={value}" for key, value in SETTINGS.items()]
    chosen = ["troubled"] if "check" in rest else ["--plugin", "troubled"]
    chosen += ["--", "true"] if program == "taskscaler" else []
    done = run(plugins, program, *rest, *chosen)
    assert done.returncode in {1, 3}
    assert "failed" in done.stdout + done.stderr
    stored = b"".join(path.read_bytes() for path in plugins.path.parent.iterdir() if path.is_file())
    text = f"{done.stdout}{done.stderr}{stored.decode(errors='replace')}"
    secrets = ["abc/def", "abc%2Fdef", "marked", "pa55word"]
    secrets += ["unmarked-text"] * (kind == "ValueError")
    shown = text.replace("marked=", "").replace("unmarked-text", "" if len(secrets) == 4 else "-")
    assert [one for one in secrets if one in shown] == []


def test_a_secret_in_the_environment_is_hidden(plugins: PluginFolder) -> None:
    """Credentials that a cloud's library reads from the environment are secrets, too."""
    fails = "raise ProviderError('refused ' + os.environ['AWS_SECRET_ACCESS_KEY'])"
    add(plugins, "", fails, fails)
    variables = {"AWS_SECRET_ACCESS_KEY": "wJalr/XUtn"}
    done = run(plugins, "fleeting", "check", "troubled", **variables)
    assert "refused [hidden]" in done.stdout


@pytest.mark.parametrize("method", ["sys.exit(0)", "raise SystemExit"])
def test_a_call_that_ends_the_process_is_a_bug(plugins: PluginFolder, method: str) -> None:
    """A plugin that calls `sys.exit` in a call ends nothing; the report is written."""
    add(plugins, "", method, method)
    words = ("run", "--report", "report.json", "--plugin", "troubled", "--", "true")
    done = run(plugins, "taskscaler", *words)
    assert done.returncode == 3
    assert "a bug: SystemExit" in done.stderr
    report = json.loads((plugins.path.parent / "report.json").read_text())
    assert report["jobs"][0]["state"] == "system_failure"


def test_text_of_a_cloud_is_one_bounded_line(plugins: PluginFolder) -> None:
    """Control characters are escaped, and a page of text is cut."""
    evil = r"raise ProviderError('\x1b[2J\u202e\n\u200b\u3164' + 'A' * 100000)"
    add(plugins, "", evil, evil)
    done = run(plugins, "fleeting", "check", "troubled")
    assert done.returncode == 1
    assert r"\x1b[2J\u202e\n\u200b\u3164AAA" in done.stdout
    assert len(done.stdout) < 2000
    assert all(line.isprintable() for line in done.stdout.splitlines())
