"""Each mistake that was made by hand fits the core, and is noticed by a test that is named."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tests.mutation.semantic import Mistake, names_of_tests, read_mistakes
from tests.mutation.trials import Snapshot

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SUBJECTS = read_mistakes(HERE / "semantic")

BOOKS = """
def fits(size):
    return size <= 10

def add(size):
    return size <= 10
"""


def mistake(before: str, after: str = "return True", file: str = "books.py") -> Mistake:
    """Return a mistake in the books."""
    return Mistake("all fits", file, before, after, "tests/core/test_books.py::test_fits")


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the files of the core."""
    return Snapshot(ROOT, tmp_path_factory.mktemp("mutation") / "copy").sources()


@pytest.mark.parametrize("subject", sorted(SUBJECTS))
def test_each_mistake_fits_the_core_and_names_a_test(subject: str, sources: dict[str, str]) -> None:
    """The text to change is there once, and the test does not leave its examples to Hypothesis."""
    named: dict[str, set[str]] = {}
    for one in SUBJECTS[subject]:
        one.apply(sources)
        file, _, test = one.killer.partition("::")
        if file not in named:
            named[file] = set(names_of_tests((ROOT / file).read_text()))
        assert test in named[file], f"{one.name}: there is no test {one.killer}"


def test_there_are_mistakes_of_all_subjects() -> None:
    """A mistake in any rule, and in any part of the model, is among them."""
    files = {one.file for subject in SUBJECTS.values() for one in subject}
    rules = {
        f"rules/{path.name}" for path in (ROOT / "taskscaler/src/taskscaler/core/rules").glob("*")
    }
    helpers = {"rules/__init__.py", "rules/__pycache__"}
    assert rules - helpers <= files
    assert sum(map(len, SUBJECTS.values())) >= 100


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        (mistake("return size < 10"), "occurs 0 times in books.py"),
        (mistake("return size <= 10"), "occurs 2 times in books.py"),
        (mistake("def fits(size):", "def fits(size):  # all"), "makes no difference"),
        (mistake("size", file="papers.py"), "no file papers.py"),
    ],
)
def test_a_mistake_that_does_not_fit_is_refused(wrong: Mistake, complaint: str) -> None:
    """A change of the core does not leave a mistake behind that nothing makes any more."""
    with pytest.raises(ValueError, match=complaint):
        wrong.apply({"books.py": BOOKS})


def test_a_mistake_is_made_where_its_text_is() -> None:
    """The rest of the file stays."""
    mutant = mistake("def fits(size):\n    return size <= 10", "def fits(size):\n    return True")
    assert mutant.apply({"books.py": BOOKS}).source == BOOKS.replace("size <= 10", "True", 1)
    assert "+    return True" in mutant.difference({"books.py": BOOKS})


def test_a_name_is_used_once_and_a_wrong_file_is_refused(tmp_path: Path) -> None:
    """The report would mix them up."""
    entry = '[[mistake]]\nname = "a"\nfile = "f"\nbefore = "b"\nafter = "c"\nkiller = "k"\n'
    (tmp_path / "first.toml").write_text(entry)
    assert [one.name for one in read_mistakes(tmp_path)["first"]] == ["a"]
    (tmp_path / "second.toml").write_text(entry)
    with pytest.raises(ValueError, match="is the name of another mistake"):
        read_mistakes(tmp_path)
    (tmp_path / "second.toml").write_text(entry.replace("killer", "test"))
    with pytest.raises(ValueError, match=r"second.toml"):
        read_mistakes(tmp_path)


def test_a_test_that_leaves_its_examples_to_hypothesis_is_no_named_test() -> None:
    """It notices a mistake by luck."""
    source = "@given(integers())\ndef test_a(number): ...\ndef test_b(): ...\ndef helper(): ..."
    assert list(names_of_tests(source)) == ["test_b"]


@pytest.mark.long
def test_each_mistake_is_noticed_by_its_test() -> None:
    """The program makes all of them, and fails if one is not noticed."""
    command = [sys.executable, "-m", "tests.mutation", "--semantic"]
    completed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert completed.returncode == 0, completed.stdout + completed.stderr
