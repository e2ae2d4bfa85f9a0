"""What pip and uv printed when something went wrong becomes one sentence.

The outputs in `installer_outputs` are as pip 23, pip 26 and uv 0.13 printed them; only the
names of folders and of the public index are others.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from fleeting.install.contents import Planned, planned_by_uv
from fleeting.install.failures import explain, redacted

OUTPUTS = Path(__file__).parent / "installer_outputs"
INSTALLERS = ("pip-23", "pip-26", "uv")

# What each situation comes to, and whether it may be better later.
SITUATIONS = {
    "build": ("could not be built from its sources", False),
    "conflict": ("depends on click<2", False),
    "corrupt": ("the wheel of fleeting-plugin-crc is broken", False),
    "dependency": ("fleeting-plugin-nodep needs fleeting-no-such-thing, which is not", False),
    "disk-full": ("the disk is full", True),
    "hash": ("what was sent for fleeting-plugin-good does not have the hash", False),
    "interrupted": ("was cut off", True),
    "missing": ("no plugin is to be had as fleeting-plugin-none; did you mean nine?", False),
    "no-hash": ("hashes are required, and fleeting-plugin-good has none", False),
    "not-found": ("there is nothing at http://127.0.0.1:8765/files/nothing-1.0", False),
    "platform": ("is made for another platform", False),
    "python": ("fleeting-plugin-new needs Python >=3.99, and not that", False),
    "python-wheel": ("fleeting-plugin-new needs Python >=3.99, and not that", False),
    "read-only": ("cannot be written to (read-only file system)", True),
    "refused": ("cannot be reached (the connection was refused)", True),
    "server-error": ("cannot be reached (the server failed)", True),
    "truncated": ("the wheel of fleeting-plugin-trunc is broken", False),
    "unauthorized": ("wants credentials, or other ones; give them with `fleeting login http", True),
    "unknown-host": ("cannot be reached (its name is not known)", True),
    "version": ("there is no fleeting-plugin-good==7.*; there is ", False),
}


@pytest.mark.parametrize("installer", INSTALLERS)
@pytest.mark.parametrize("situation", SITUATIONS)
def test_failure_is_one_sentence(installer: str, situation: str) -> None:
    """Each failure of each installer is told in one line that names what it is about."""
    output = (OUTPUTS / f"{installer}-{situation}.txt").read_text()
    error = explain(output, lambda _: ["nine"])
    words, retryable = SITUATIONS[situation]
    assert words in str(error)
    assert "\n" not in str(error)
    if (installer, situation) != ("pip-23", "interrupted"):  # it takes that for a broken wheel
        assert error.retryable is retryable


def test_every_output_is_of_a_situation() -> None:
    """No output lies there that nothing is said about."""
    names = {path.name for path in OUTPUTS.iterdir()}
    assert names == {f"{one}-{situation}.txt" for one in INSTALLERS for situation in SITUATIONS}


@pytest.mark.parametrize("installer", INSTALLERS)
def test_conflict_names_both_sides(installer: str) -> None:
    """A conflict says who wants what."""
    error = str(explain((OUTPUTS / f"{installer}-conflict.txt").read_text()))
    assert "fleeting-plugin-conf" in error
    assert "click<2" in error
    assert "click>=8.1.8" in error


def test_untrusted_index_is_named() -> None:
    """Pip asks no index without encryption, and says so in a warning that is easily missed."""
    output = (
        "WARNING: The repository located at nosuch.invalid is not a trusted or secure host and is "
        "being ignored. If this repository is available via HTTPS we recommend you use HTTPS "
        "instead, otherwise you may silence this warning and allow it anyway with "
        "'--trusted-host nosuch.invalid'.\n"
        "ERROR: Could not find a version that satisfies the requirement fleeting-plugin-good "
        "(from versions: none)\nERROR: No matching distribution found for fleeting-plugin-good\n"
    )
    assert str(explain(output)).startswith("pip does not trust nosuch.invalid")


def test_unknown_failure_is_told_in_its_own_words() -> None:
    """What nobody has seen yet is passed on: its last error, or its last line."""
    assert str(explain("Hello\nerror: the moon is full.\n")) == (
        "the installer failed: the moon is full"
    )
    assert str(explain("")) == "the installer failed: it said nothing"


def test_broken_lines_are_understood() -> None:
    """Where the terminal ends uv breaks a sentence, and older ones draw a frame around it."""
    output = (
        "  \u00d7 No solution found when resolving dependencies:\n"
        "  ╰─▶ Because fleeting-plugin-none was not found in the package\n"
        "      registry and you require fleeting-plugin-none, we can conclude that\n"
        "      your requirements are unsatisfiable.\n"
    )
    assert str(explain(output)).startswith("no plugin is to be had as fleeting-plugin-none;")


def test_plan_of_uv() -> None:
    """What uv would do is read from what it prints, and nothing else is."""
    output = "Resolved 3 packages in 2ms\n - a==1\n + A_b==2\n ~ c==3 (from file:///c)\n + d @ file:///d\n"
    assert planned_by_uv(output) == [
        Planned("a-b", "2"),
        Planned("c", "3", is_direct=True),
        Planned("d", "", is_direct=True),
    ]


def test_secrets_are_taken_out() -> None:
    """Credentials in addresses and known passwords are not passed on, and neither are colours."""
    text = "\x1b[31mhttps://ci:hunter2@x.example/simple\x1b[0m said s3cret to a@b"
    assert redacted(text, ["s3cret", ""]) == "https://x.example/simple said **** to a@b"


def test_cause_is_told_as_well() -> None:
    """Uv says what it could not do and then why, and pip names what it did not expect last."""
    assert str(
        explain("error: Failed to open cache\n  Caused by: x\n  Caused by: no such file\n")
    ) == ("the installer failed: Failed to open cache: no such file")
    output = "ERROR: Exception:\nTraceback (most recent call last):\n  File x\nValueError: odd\n"
    assert str(explain(output)) == "the installer failed: ValueError: odd"
