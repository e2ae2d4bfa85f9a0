"""What a change of an environment touched is put back from the journal alone."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from fleeting.errors import InstallError
from fleeting.install.environment import Facts
from fleeting.install.guard import alone, interruptible, scratch_folder
from fleeting.install.undo import (
    is_pending,
    prepare_undo,
    remove_leftovers,
    undo,
    undone_on_failure,
)


@pytest.fixture
def facts(tmp_path: Path) -> Facts:
    """Return an environment with one distribution, of which one file is a command."""
    site, scripts = tmp_path / "lib" / "site", tmp_path / "bin"
    for folder in (site / "old", site / "old-1.dist-info", scripts):
        folder.mkdir(parents=True)
    (site / "old" / "__init__.py").write_text("version = 1\n")
    (site / "old-1.dist-info" / "METADATA").write_text("Name: old\nVersion: 1\n")
    (site / "old-1.dist-info" / "RECORD").write_text(
        "old/__init__.py,,\nold-1.dist-info/METADATA,,\nold-1.dist-info/RECORD,,\n../../bin/old,,\n"
    )
    (scripts / "old").write_text("#!old\n")
    (tmp_path / "list.toml").write_text("old\n")
    return Facts(
        prefix=tmp_path,
        python=Path(sys.executable),
        site=site,
        scripts=scripts,
        is_virtual=True,
    )


def files(facts: Facts) -> dict[str, str]:
    """Return what is in the environment, without what the installation needs for itself."""
    return {
        str(path.relative_to(facts.prefix)): path.read_text()
        for path in facts.prefix.rglob("*")
        if path.is_file() and ".fleeting-install" not in str(path)
    }


def spoil(facts: Facts, scratch: Path) -> None:
    """Change the environment as an installer would that is stopped half-way."""
    coming = scratch / "trial"
    (coming / "new" / "deep").mkdir(parents=True)
    (coming / "bin").mkdir()
    (coming / "new" / "deep" / "x.py").touch()
    (coming / "bin" / "new").touch()
    listed = facts.prefix / "list.toml"
    prepare_undo(scratch, facts, changed=["old"], coming=coming, lists=[listed])
    with listed.open("a") as file:
        file.write("new\n")
    (facts.site / "old" / "__init__.py").unlink()
    (facts.site / "old-1.dist-info" / "METADATA").unlink()
    (facts.scripts / "old").unlink()
    (facts.site / "~ld").mkdir()
    (facts.site / "new" / "deep" / "__pycache__").mkdir(parents=True)
    (facts.site / "new" / "deep" / "x.py").write_text("x = 1\n")
    (facts.site / "new" / "deep" / "__pycache__" / "x.cpython-311.pyc").touch()
    (facts.scripts / "new").write_text("#!new\n")


def test_failure_puts_everything_back(facts: Facts) -> None:
    """Files that went come back, files that came go, and a list that was written is as it was."""
    before = files(facts)
    with pytest.raises(KeyboardInterrupt), scratch_folder(facts.site) as scratch:
        with undone_on_failure(scratch):
            spoil(facts, scratch)
            assert files(facts) != before
            raise KeyboardInterrupt
    assert files(facts) == before
    assert {path.name for path in facts.site.iterdir()} == {"old", "old-1.dist-info"}


def test_success_is_kept(facts: Facts) -> None:
    """A change that succeeded stays, and there is nothing to undo then."""
    with scratch_folder(facts.site) as scratch, undone_on_failure(scratch):
        spoil(facts, scratch)
    changed = files(facts)
    assert "bin/new" in changed
    assert not remove_leftovers(facts.site)
    assert files(facts) == changed


def test_undoing_twice_changes_nothing(facts: Facts) -> None:
    """The journal is gone once all is back, and until then the folder stays for the next one."""
    before = files(facts)
    with scratch_folder(facts.site) as scratch:
        spoil(facts, scratch)
    assert is_pending(scratch), "a block that ended without a word has not undone anything"
    assert remove_leftovers(facts.site)
    assert files(facts) == before
    assert not scratch.exists()
    assert not undo(scratch)


def test_folder_that_never_came_to_a_change_is_removed(facts: Facts) -> None:
    """What was killed while it was downloading leaves nothing behind for long."""
    (facts.site / ".fleeting-install-x").mkdir()
    told: list[str] = []
    with alone(facts.site, told.append):
        assert not list(facts.site.glob(".fleeting-install-*"))
    assert told == []


def test_patience_ends(facts: Facts) -> None:
    """Who waits for another one does so for a while, and says what for."""
    from datetime import timedelta

    told: list[str] = []
    with alone(facts.site, told.append):
        with pytest.raises(InstallError, match="is still changing") as caught:
            with alone(facts.site, told.append, patience=timedelta(0)):
                pass
    assert caught.value.retryable
    assert told == [f"waiting for another `fleeting` that changes {facts.site}"]


def test_data_files_are_put_back(facts: Facts) -> None:
    """What comes beside the folder of the distributions goes, and what it replaced comes back."""
    share = facts.prefix / "share"
    share.mkdir()
    (share / "same.txt").write_text("old\n")
    before = files(facts)
    with scratch_folder(facts.site) as scratch:
        for name in ("same.txt", "more.txt"):
            (scratch / "trial" / "share").mkdir(parents=True, exist_ok=True)
            (scratch / "trial" / "share" / name).touch()
        prepare_undo(scratch, facts, changed=[], coming=scratch / "trial", lists=[])
        (share / "same.txt").unlink()
        for name in ("same.txt", "more.txt"):
            (share / name).write_text("new\n")
        assert undo(scratch)
    assert files(facts) == before


def test_files_elsewhere_are_left_alone(
    facts: Facts, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A list of files that names one outside the environment is not believed."""
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "precious"
    elsewhere.write_text("before\n")
    with (facts.site / "old-1.dist-info" / "RECORD").open("a") as record:
        record.write(f"{elsewhere},,\n")
    with scratch_folder(facts.site) as scratch:
        prepare_undo(scratch, facts, changed=["old"], coming=None, lists=[])
        elsewhere.unlink()
        elsewhere.write_text("since\n")
        assert undo(scratch)
    assert elsewhere.read_text() == "since\n"


@pytest.mark.parametrize("record", [b"old/__init__.py,,\n\n,\n", b"\xff\xfe,,\n", b"a,b,c,d\n"])
def test_broken_list_of_files_is_no_obstacle(facts: Facts, record: bytes) -> None:
    """A distribution whose list was cut off or is no text can be replaced, and comes back."""
    (facts.site / "old-1.dist-info" / "RECORD").write_bytes(record)
    metadata = facts.site / "old-1.dist-info" / "METADATA"
    with scratch_folder(facts.site) as scratch:
        prepare_undo(scratch, facts, changed=["old"], coming=None, lists=[])
        metadata.unlink()
        assert undo(scratch)
    assert metadata.exists()


def test_ignored_signal_stays_ignored() -> None:
    """Who started the command with `nohup` has said what a hang-up means; SIGTERM interrupts."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interruptible():
            signal.raise_signal(signal.SIGHUP)
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGHUP, before)
