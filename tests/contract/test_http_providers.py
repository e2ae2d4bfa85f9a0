"""The kit catches wrong providers for an HTTP cloud, and passes the right one of the docs.

Each wrong provider is the right one with an edit. They run in one pytest of their own, against
the fake cloud of the same page.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from http_mistakes import read_mistakes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

PAGE = Path(__file__).parents[2] / "docs" / "plugins" / "http.md"
MODULE = "fleeting_plugin_nimbus.py"
WRONG = read_mistakes(Path(__file__).with_name("http_mistakes.toml"))
QUICK = [
    *("accepts removals that failed", "lists foreign machines", "lost reply is an ordinary error"),
    *("an outage is an empty group", "forgets how long to wait", "swallows the cancellation"),
]
CLASSES = """
import json
import types
from datetime import timedelta
from pathlib import Path

import pytest
from cloud import Cloud
from fleeting.types import GroupSettings
from test_contract import TestContract as Right

Right.__test__ = False


def make(source, arguments, lag):
    module = types.ModuleType("wrong")
    exec(compile(source, "provider.py", "exec"), module.__dict__)

    class Wrong(Right):
        __test__ = True
        instance_timeout = timedelta(seconds=3)
        call_timeout = timedelta(seconds=2)

        @pytest.fixture(autouse=True)
        def a_cloud(self):
            self.lag = timedelta(seconds=lag)
            self.cloud = Cloud(**arguments)
            self.cloud.start()
            self.foreign_id = self.cloud.add("web", {"group": "shop"}, id="900").id
            yield
            self.cloud.stop()

        @pytest.fixture
        def open_group(self, config):
            return lambda: module.NimbusProvider().open(config, GroupSettings())

        @pytest.fixture
        def check_provider(self, config):
            return lambda: module.NimbusProvider().check(config, GroupSettings())

    return Wrong


for number, wrong in enumerate(json.loads(Path(__file__).with_name("wrong.json").read_text())):
    globals()[f"Test{number}"] = make(*wrong)
"""


def blocks() -> dict[str, str]:
    """Return the files of the page."""
    found = re.findall(r"<!-- file: (\S+) -->\n\n```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return dict(found)


def run(
    folder: Path, providers: Iterable[tuple[str, Mapping[str, float], float]], *tests: str
) -> dict[str, dict[str, str]]:
    """Run tests on providers; return the messages of the failed tests by class and test."""
    for name, text in blocks().items():
        (folder / name).write_text(text)
    (folder / "wrong.json").write_text(json.dumps(list(providers)))
    (folder / "test_wrong.py").write_text(CLASSES)
    command = [sys.executable, "-m", "pytest", "-n0", "-pno:cacheprovider", "--junitxml=report.xml"]
    command += [f"test_wrong.py::{test}" for test in tests]
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=500, cwd=folder
    )
    assert done.returncode in {0, 1}, done.stdout + done.stderr
    found: dict[str, dict[str, str]] = {}
    for case in ET.parse(folder / "report.xml").iter("testcase"):  # noqa: S314 - pytest wrote it
        owner = found.setdefault(case.attrib["classname"].rpartition(".")[2], {})
        for child in case:
            if child.tag in {"failure", "error"}:
                owner[case.attrib["name"]] = child.attrib["message"]
    return found


def edited(name: str) -> str:
    """Return the source of a wrong provider."""
    source = blocks()[MODULE]
    for old, new in WRONG[name].edits:
        assert source.count(old) == 1, f"{name}: the page does not have {old!r} once"
        source = source.replace(old, new)
    return source


def caught(folder: Path, names: list[str]) -> dict[str, str]:
    """Run for each wrong provider the test that has to fail; return the messages."""
    providers = [(edited(name), WRONG[name].cloud, 0.0) for name in names]
    tests = [f"Test{number}::{WRONG[name].caught_by}" for number, name in enumerate(names)]
    found = run(folder, providers, *tests)
    return {
        name: found.get(f"Test{number}", {}).get(WRONG[name].caught_by, "")
        for number, name in enumerate(names)
    }


def assert_told(messages: dict[str, str]) -> None:
    """Check that each wrong provider failed, with a message that names the mistake."""
    missed = {name: text for name, text in messages.items() if not text}
    assert missed == {}
    unclear = {name: text for name, text in messages.items() if WRONG[name].told not in text}
    assert unclear == {}


def test_every_edit_applies() -> None:
    """Each mistake is an edit of the page's provider, and Python can read the result."""
    for name in WRONG:
        compile(edited(name), name, "exec")


def test_wrong_providers_are_caught(tmp_path: Path) -> None:
    """Some of the mistakes, the quick ones: the kit names each."""
    assert_told(caught(tmp_path, QUICK))


@pytest.mark.long
def test_every_wrong_provider_is_caught(tmp_path: Path) -> None:
    """The kit catches all mistakes, with messages that name them."""
    assert_told(caught(tmp_path, list(WRONG)))


@pytest.mark.long
@pytest.mark.parametrize(
    ("arguments", "lag"),
    [({}, 0.0), ({"throttle_every": 60}, 0.0), ({"lag": 0.2}, 0.3)],
    ids=["plain", "throttling", "lagging"],
)
def test_right_provider_passes(tmp_path: Path, arguments: dict[str, float], lag: float) -> None:
    """The right provider passes on a cloud that throttles, and on one whose listing lags."""
    found = run(tmp_path, [(blocks()[MODULE], arguments, lag)], "Test0")
    assert found == {"Test0": {}}
