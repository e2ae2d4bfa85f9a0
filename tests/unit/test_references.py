from __future__ import annotations

import pytest

from fleeting._references import PluginReference, canonical, parse_reference
from fleeting.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "name", "requirement"),
    [
        ("aws", "aws", "fleeting-plugin-aws"),
        ("aws:latest", "aws", "fleeting-plugin-aws"),
        ("aws:1", "aws", "fleeting-plugin-aws==1.*"),
        ("aws:1.5", "aws", "fleeting-plugin-aws==1.5.*"),
        ("aws:1.5.2", "aws", "fleeting-plugin-aws==1.5.2"),
        ("aws:2.0.0rc1", "aws", "fleeting-plugin-aws==2.0.0rc1"),
        ("fleeting-plugin-aws:1", "aws", "fleeting-plugin-aws==1.*"),
        ("gitlab-org/fleeting/plugins/aws:1", "aws", "fleeting-plugin-aws==1.*"),
        ("registry.example.org:5000/x/my.cloud", "my.cloud", "fleeting-plugin-my.cloud"),
    ],
)
def test_reference_is_parsed(text: str, name: str, requirement: str) -> None:
    """All forms of GitLab Runner give a name and a requirement for a package installer."""
    reference = parse_reference(text)
    assert reference.name == name
    assert reference.requirement == requirement
    assert parse_reference(str(reference)) == reference


@pytest.mark.parametrize(
    ("text", "name", "note"),
    [
        ("/usr/local/bin/fleeting-plugin-aws", "aws", "is a program for GitLab Runner"),
        ("~/bin/fleeting-plugin-azure", "azure", "is a program for GitLab Runner"),
        ("./fleeting-plugin-hetzner", "hetzner", "is a program for GitLab Runner"),
        ("fleeting-plugin-aws.exe", "aws", "is a program for GitLab Runner"),
        (r"C:\GitLab Runner\fleeting-plugin-googlecompute.exe", "googlecloud", "is a program"),
        ("registry.gitlab.com/gitlab-org/fleeting/plugins/aws:1.1.0", "aws", "is a program"),
        ("AWS", "aws", "means the plugin 'aws'"),
        ("googlecompute:latest", "googlecloud", "means the plugin 'googlecloud'"),
        ("fleeting-plugin-aws", "aws", ""),
        ("My.Cloud", "My.Cloud", ""),
    ],
)
def test_programs_of_gitlab_are_names_of_plugins(text: str, name: str, note: str) -> None:
    """A path or another name means our plugin, in any version; the note says so."""
    reference = parse_reference(text)
    assert (reference.name, reference.constraint) == (name, "")
    assert note in reference.note
    assert bool(note) is bool(reference.note)


@pytest.mark.parametrize("text", ["/opt/scale.sh", "/a b", "./x", "aws.cmd/"])
def test_other_programs_are_refused(text: str) -> None:
    """A path whose file is not named like a plugin is not guessed at."""
    with pytest.raises(ConfigError, match="write a name such as aws"):
        parse_reference(text)


@pytest.mark.parametrize("text", ["", " ", ":1", "aws:", "a b", "-aws", "aws:1;x", "aws>=1", "a/"])
def test_invalid_reference_is_refused(text: str) -> None:
    """The message shows an example of a reference."""
    with pytest.raises(ConfigError, match="such as aws:1"):
        parse_reference(text)


@pytest.mark.parametrize(
    ("constraint", "accepted", "refused"),
    [
        ("", ["0.1", "7.0rc1"], []),
        ("1", ["1", "1.0.0", "1.9", "1.2.post1"], ["2.0", "10.0", "0.1", "1.0rc1", "x"]),
        ("1.5", ["1.5", "1.5.7"], ["1.50", "1.4.9"]),
        ("1.5.0", ["1.5", "1.5.0"], ["1.5.1"]),
        ("2.0.0rc1", ["2.0.0rc1"], ["2.0.0"]),
    ],
)
def test_constraint_accepts_versions(
    constraint: str, accepted: list[str], refused: list[str]
) -> None:
    """A constraint compares the first numbers of a version and excludes pre-releases."""
    reference = PluginReference("aws", constraint)
    assert [version for version in accepted if not reference.accepts(version)] == []
    assert [version for version in refused if reference.accepts(version)] == []


def test_name_of_a_distribution_is_normalized() -> None:
    """Case and separators do not matter in the name of a distribution."""
    assert canonical("Fleeting_Plugin..AWS") == "fleeting-plugin-aws"


@pytest.mark.parametrize("text", ["aws:x", "aws:newest", "registry.example/p/aws:main"])
def test_word_that_is_not_a_version(text: str) -> None:
    """A constraint that no version can meet is refused, before an installer is run."""
    with pytest.raises(ConfigError, match="is not a version; write for example aws:1"):
        parse_reference(text)
