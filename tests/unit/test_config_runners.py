"""A whole `config.toml`: used keys, ignored keys, errors and warnings."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleeting.errors import ConfigError
from fleeting.types import Severity
from taskscaler.config import RunnerConfig, RunnerFile, examine_config, read_config
from taskscaler.config.autoscaler import AutoscalerConfig, ExtensionsConfig

# A runner without errors and warnings.
RUNNER = """
concurrent = 20
[[runners]]
name = "builders"
id = 42
url = "https://gitlab.example.com"
[runners.autoscaler]
plugin = "aws"
capacity_per_instance = 4
max_instances = 5
[runners.autoscaler.plugin_config]
name = "builders"
"""


# Mistakes of all kinds.
WRONG = """
concurrent = "many"
chek_interval = 3
[[runners]]
name = "builders"
id = 42
url = "https://gitlab.example.com"
[runners.autoscaler]
plugin = "aws"
capacity_per_instance = -1
max_instances = "5"
IdleCount = 3
[[runners.autoscaler.policy]]
periods = ["0 0 31 2 *", "* 8-17 * * 1-5"]
timezone = "Europe/Berlni"
preemptive_mode = "yes"
IdleTime = "3m"
[[runners.autoscaler.policy]]
preemptive_mode = true
scale_factor = 1.0
[runners.autoscaler.extensions]
placement = "wide"
[[runners.autoscaler.extensions.group]]
max_instances = -1
pluginconfig = 1
[[runners]]
autoscaler = "aws"
"""


def read(folder: Path, text: str) -> RunnerFile:
    """Write a file and read it."""
    path = folder / "config.toml"
    path.write_text(text)
    return read_config(path)


def problems(folder: Path, text: str) -> tuple[list[str], list[str]]:
    """Return the errors and the warnings of a file."""
    path = folder / "config.toml"
    path.write_text(text)
    _, found = examine_config(path)
    return (
        [str(problem) for problem in found if problem.severity is Severity.ERROR],
        [str(problem) for problem in found if problem.severity is Severity.WARNING],
    )


def runner(name: str, **tables: str) -> str:
    """Return a runner with its own identity and group, and tables below its autoscaler."""
    text = f"""
        [[runners]]
        name = "{name}"
        [runners.autoscaler]
        plugin = "aws"
        max_instances = 5
        {tables.pop("autoscaler", "")}
        [runners.autoscaler.plugin_config]
        name = "{name}"
        [runners.autoscaler.extensions]
        id = "{name}"
    """
    for table, keys in tables.items():
        text += f"[runners.autoscaler.{table}]\n{keys}\n"
    return text


def test_file_of_gitlab_runner_is_read(tmp_path: Path) -> None:
    """Keys for scaling are read, other keys are listed, and secrets are not kept."""
    text = """
        concurrent = 20
        check_interval = 3
        [session_server]
        session_timeout = 1800
        [[runners]]
        name = "builders"
        id = 42
        url = "https://gitlab.example.com"
        token = "glrt-secret"
        executor = "docker-autoscaler"
        limit = 20
        "tls-ca-file" = "/x"
        [runners.docker]
        image = "busybox"
        [runners.autoscaler]
        plugin = "aws"
        capacity_per_instance = 4
        max_instances = 5
        log_internal_ip = true
        instance_creation_time_buckets = [1, 2.5]
        [runners.autoscaler.vm_isolation]
        enabled = false
        nesting_host = "unix:///x"
        [runners.autoscaler.plugin_config]
        name = "builders"
        [[runners]]
        name = "shell"
        token = "glrt-secret"
    """
    file = read(tmp_path, text)
    [warning] = file.warnings
    assert "runners[0].executor: (runner 'builders') `taskscaler run` runs jobs on the" in warning
    assert file.ignored == (
        "check_interval",
        "session_server",
        "runners[0].token",
        "runners[0].executor",
        "runners[0].tls-ca-file",
        "runners[0].docker",
        "runners[0].autoscaler.log_internal_ip",
        "runners[0].autoscaler.instance_creation_time_buckets",
        "runners[0].autoscaler.vm_isolation",
        "runners[1]",
    )
    assert file.concurrent == 20
    assert [found.name for found in file.runners] == ["builders", "shell"]
    assert file.runner(None) is file.runners[0] is file.runner("builders")
    assert "glrt-secret" not in repr(file)


def test_all_problems_are_reported_together(tmp_path: Path) -> None:
    """Unknown keys, wrong types, ranges and conflicts are reported at once."""
    errors, warnings = problems(tmp_path, WRONG)
    above, of = "runners[0].autoscaler", "(runner 'builders')"
    expected = """
concurrent: expected an integer, got the string "many"
{above}.capacity_per_instance: {of} must be at least 1, got -1
{above}.max_instances: {of} expected an integer, got the string "5"
{above}.IdleCount: {of} unknown key here; move it to [[runners.autoscaler.policy]]
{above}.policy[0].periods[0]: {of} '0 0 31 2 *' is never in force, because
 its months do not have that day; write a day that exists
{above}.policy[0].timezone: {of} the time zone 'Europe/Berlni' does not exist;
 did you mean 'Europe/Berlin'?
{above}.policy[0].preemptive_mode: {of} expected true or false, got the string "yes"
{above}.policy[0].IdleTime: {of} unknown key; did you mean 'idle_time'?
{above}.policy[1].preemptive_mode: {of} tasks are accepted only while a slot is free, and with
 idle_count = 0 no slot is ever created, because scale_factor multiplies the slots in use;
 write idle_count = 1 or more, or preemptive_mode = false
{above}.extensions.placement: {of} expected "pack" or "spread", got the string "wide"
{above}.extensions.group[0].max_instances: {of} must be at least 0, got -1
{above}.extensions.group[0].pluginconfig: {of} unknown key; did you mean 'plugin_config'?
runners[1].autoscaler: expected a table, got the string "aws"
"""
    expected = expected.format(above=above, of=of).replace("\n ", " ")
    assert errors == expected.strip().splitlines()
    assert warnings == ["chek_interval: unknown key; it is ignored; did you mean 'check_interval'?"]
    with pytest.raises(ConfigError) as caught:
        read_config(tmp_path / "config.toml")
    assert caught.value.problems == tuple(f"{tmp_path / 'config.toml'}: {text}" for text in errors)


def test_number_of_reported_errors_is_limited(tmp_path: Path) -> None:
    """An exception has the first 20 errors and the number of the others."""
    text = RUNNER + "[[runners.autoscaler.policy]]\nidle_count = -1\n" * 1000
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    assert len(caught.value.problems) == 21
    assert caught.value.problems[-1] == "and 980 more errors"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[[runner]]\n" + RUNNER.replace("concurrent = 20", ""), "write [[runners]]"),
        (RUNNER + "[runners.autoscaller]\n", "did you mean 'autoscaler'?"),
        (
            RUNNER.replace("concurrent = 20", "concurrent = 10"),
            (
                "concurrent: 10 jobs at once are fewer than the 20 slots of max_instances times "
                "capacity_per_instance, so slots stay empty"
            ),
        ),
        (
            RUNNER.replace("concurrent = 20", "concurrent = 30"),
            "concurrent: 30 jobs at once are more than the 20 slots",
        ),
        (
            RUNNER.replace("id = 42", "id = 42\nlimit = 19"),
            "runners[0].limit: (runner 'builders') 19 jobs at once are fewer than the 20 slots",
        ),
        (
            RUNNER.replace("max_instances = 5", ""),
            "runners[0].autoscaler.max_instances: (runner 'builders') no limit is set",
        ),
        (
            runner("a") + runner("b").replace('name = "b"', 'name = "a"', 1),
            "runners: 2 runners with an autoscaler are named 'a'",
        ),
        (
            RUNNER
            + '[[runners.autoscaler.policy]]\npreemptive_mode = true\nperiods = ["* 8 * * *"]\n',
            (
                "policy[0].preemptive_mode: (runner 'builders') while this policy is in force, "
                "tasks are accepted only while a slot is free"
            ),
        ),
        (
            RUNNER + "[[runners.autoscaler.policy]]\npreemptive_mode = true\n"
            '[runners.autoscaler.extensions]\nunknown_instances = "adopt"\n',
            "policy[0].preemptive_mode: (runner 'builders') while this policy is in force",
        ),
    ],
)
def test_surprising_settings_are_warnings(tmp_path: Path, text: str, expected: str) -> None:
    """A file with a warning is valid, and the warning has the file and the path."""
    (warning,) = read(tmp_path, text).warnings
    assert warning.startswith(f"{tmp_path / 'config.toml'}: ")
    assert expected in warning


def test_clean_file_has_no_warnings(tmp_path: Path) -> None:
    """A file without problems has no warnings and no ignored keys."""
    file = read(tmp_path, RUNNER)
    assert (file.warnings, file.ignored) == ((), ())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (RUNNER.replace('plugin = "aws"', ""), "runners[0].autoscaler.plugin: (runner 'builders')"),
        (
            RUNNER.replace('plugin = "aws"', "")
            + '[[runners.autoscaler.extensions.group]]\nplugin = "x"\n'
            + "[[runners.autoscaler.extensions.group]]\n",
            "runners[0].autoscaler.extensions.group[1].plugin: (runner 'builders') the key is",
        ),
        (
            RUNNER + "[[runners.autoscaler.policy]]\npreemptive_mode = true\n",
            (
                "policy[0].preemptive_mode: (runner 'builders') tasks are accepted only while a "
                "slot is free, and with idle_count = 0 no slot is ever created; write idle_count"
            ),
        ),
        (
            runner("a")
            + runner("b")
            .replace('plugin = "aws"', 'plugin = "x/aws:1"')
            .replace('plugin_config]\n        name = "b"', 'plugin_config]\n        name = "a"'),
            "runners[1].autoscaler.plugin_config: (runner 'b') runners[0] uses the same group",
        ),
        (
            runner("a") + runner("b").replace('id = "b"', 'id = "A"'),
            "runners[1].autoscaler.extensions.id: (runner 'b') runners[0] has the same state file",
        ),
        (
            RUNNER + "[runners.autoscaler.policy]\nidle_count = 1\n",
            "policy: (runner 'builders') expected a list, got a table; write [[ ]] around its name",
        ),
    ],
)
def test_impossible_combinations_are_errors(tmp_path: Path, text: str, expected: str) -> None:
    """The message has the path and the fix."""
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    (problem,) = caught.value.problems
    assert expected in problem


def test_runner_is_chosen_by_name(tmp_path: Path) -> None:
    """With several autoscalers a name is required, and a wrong name lists the valid ones."""
    third = runner("c").replace('name = "c"', 'name = "b"', 1)
    file = read(tmp_path, f'{runner("a")}[[runners]]\nname = "none"\n{runner("b")}{third}')
    assert file.runner("a").name == "a"
    for name, complaint in [
        (None, "3 runners have an autoscaler; choose one: 'a', 'b', 'b'"),
        ("none", "no runner with an autoscaler is named 'none'; the file has: 'a', 'b', 'b'"),
        ("b", "2 runners are named 'b'; give each a different name"),
    ]:
        with pytest.raises(ConfigError) as caught:
            file.runner(name)
        assert complaint in str(caught.value)
    empty = RunnerFile(Path("c.toml"), concurrent=0, runners=(), warnings=(), ignored=())
    with pytest.raises(ConfigError, match=r"no runner has a table \[runners.autoscaler\]"):
        empty.runner(None)


@pytest.mark.parametrize(
    ("url", "number", "token", "explicit", "identity"),
    [
        ("https://gitlab.example.com", 42, "a", None, "gitlab.example.com-42"),
        ("https://gitlab.example.com/", 42, "", None, "gitlab.example.com-42"),
        ("https://user:secret@GitLab.example.com/", 42, "", None, "gitlab.example.com-42"),
        ("https://example.com:8443/a/b", 7, "", None, "example.com%3A8443%2Fa%2Fb-7"),
        ("https://example.com", 7, "", "mine", "mine"),
        ("", None, "", "mine", "mine"),
        ("https://example.com", None, "abc/def", None, "example.com-abc%2Fdef"),
        ("https://example.com", 0, "abc", None, "example.com-abc"),
        ("https://example.com", 0, "", None, "config.toml-builders"),
        ("", 7, "abc", None, "config.toml-builders"),
        ("example.com", 7, "", None, "config.toml-builders"),
        ("https://[::1", 7, "", None, "config.toml-builders"),
        ("https://example.com:99999", 7, "", None, "config.toml-builders"),
    ],
)
def test_identity_comes_from_what_is_there(
    url: str, number: int | None, token: str, explicit: str | None, identity: str
) -> None:
    """The identity is explicit, or from URL and id, URL and token, or the names."""
    extensions = ExtensionsConfig(id=explicit)
    found = RunnerConfig(
        name="builders",
        url=url,
        id=number,
        short_token=token,
        autoscaler=AutoscalerConfig(extensions=extensions),
    )
    assert found.identity(Path("etc/config.toml")).name == identity


@pytest.mark.parametrize(
    ("token", "start"),
    [
        ("glrt-abcdefghijklmnop", "abcdefghi"),
        ("glrt-t3_abcdefghijklmnop", "abcdefghi"),
        ("GR1348941abcdefghijklmnop", "abcdefghi"),
        ("abcdefghijklmnop", "abcdefghi"),
        ("$TOKEN", "from-envi"),
        ("${TOKEN}", "from-envi"),
        ("$UNSET", ""),
        ("glrt-short", ""),
    ],
)
def test_only_the_start_of_a_token_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, token: str, start: str
) -> None:
    """The start names the runner, as GitLab does; variables are expanded before."""
    monkeypatch.setenv("TOKEN", "glrt-from-environment")
    monkeypatch.setenv("SERVER", "gitlab.example.com")
    monkeypatch.delenv("UNSET", raising=False)
    text = RUNNER.replace("id = 42", f'id = 0\ntoken = "{token}"')
    text = text.replace("https://gitlab.example.com", "https://$SERVER")
    file = read(tmp_path, text)
    assert file.runners[0].short_token == start
    assert token.startswith("$") or token not in repr(file)
    name = f"gitlab.example.com-{start}" if start else "config.toml-builders"
    assert file.runners[0].identity(file.path).name == name
    unset = "the environment variable 'UNSET' is not set, and counts as empty"
    assert [unset in warning for warning in file.warnings] == [True] * ("UNSET" in token)


def test_files_that_share_a_folder_of_states_do_not_share_a_state(tmp_path: Path) -> None:
    """Two files with the same names keep their states apart in an absolute folder."""
    paths = [tmp_path / folder / "config.toml" for folder in ("one", "two")]
    text = RUNNER.replace("id = 42", "") + '[runners.autoscaler.state_storage]\ndir = "/var/x"\n'
    states: list[Path | None] = []
    for path in paths:
        path.parent.mkdir()
        path.write_text(text)
        states.append(read_config(path).runners[0].state_path(path))
    assert len(set(states)) == 2
    assert all(state is not None and state.parent == Path("/var/x") for state in states)


SERVERS = st.tuples(st.text("abA/%-:.1", max_size=200), st.integers(1, 10**18))


@given(SERVERS, SERVERS)
def test_identities_are_unique_file_names(one: tuple[str, int], other: tuple[str, int]) -> None:
    """An identity is a short name without separators, and is unique for server and runner."""
    names = [
        RunnerConfig(url=f"https://example.com/{path}", id=number).identity(Path("c.toml")).name
        for path, number in (one, other)
    ]
    for name in names:
        assert Path(name).name == name
        assert 0 < len(name) <= 150
    same = f"/{one[0]}".rstrip("/") == f"/{other[0]}".rstrip("/") and one[1] == other[1]
    assert (names[0] == names[1]) is same


@pytest.mark.parametrize(
    ("storage", "path"),
    [
        ("", "etc/.taskscaler/mine.v1.sqlite"),
        ("enabled = true", "etc/.taskscaler/mine.v1.sqlite"),
        ("enabled = false", None),
        ('dir = "state"', "etc/state/mine.v1.sqlite"),
        ('dir = "/var/state"', "/var/state/mine.v1.sqlite"),
    ],
)
def test_path_of_the_state(tmp_path: Path, storage: str, path: str | None) -> None:
    """The default folder and a relative folder are next to the file; state can be disabled."""
    text = runner("a", state_storage=storage).replace('id = "a"', 'id = "mine.v1"')
    found = read(tmp_path, text).runner("a").state_path(Path("etc/config.toml"))
    assert found == (None if path is None else Path(path))


@pytest.mark.parametrize(
    ("key", "path"),
    [("", None), ('state_key_file = "key"', "etc/key"), ('state_key_file = "/key"', "/key")],
)
def test_path_of_the_key(tmp_path: Path, key: str, path: str | None) -> None:
    """A relative path of the key is relative to the folder of the configuration."""
    text = runner("a").replace('id = "a"', f'id = "a"\n{key}')
    found = read(tmp_path, text).runner("a").state_key_path(Path("etc/config.toml"))
    assert found == (None if path is None else Path(path))


def test_state_needs_an_autoscaler() -> None:
    """A runner has a state file if it has an autoscaler, whatever else is written."""
    assert RunnerConfig(url="https://x", id=1).state_path(Path("c.toml")) is None
    found = RunnerConfig(autoscaler=AutoscalerConfig()).state_path(Path("c.toml"))
    assert found == Path(".taskscaler/c.toml.sqlite")


@pytest.mark.parametrize(
    "text",
    [
        "runners = 3",
        "runners = [1, 2]",
        'runners = ["a"]',
        "[runners]\n",
        "[[runners]]\nautoscaler = []\n",
        "[[runners]]\n[[runners.autoscaler]]\n",
        "[[runners]]\n[runners.autoscaler]\npolicy = [1]\n",
        "[[runners]]\n[runners.autoscaler]\nextensions = 1\n",
        "[[runners]]\n[runners.autoscaler]\nplugin_config = 1\n",
        "[[runners]]\n[runners.autoscaler]\nplugin = 2026-01-01\n",
        "[[runners]]\n[runners.autoscaler]\nmax_instances = 1.5\n",
        "[[runners]]\n[runners.autoscaler.policy]\nperiods = []\n",
        "[[runners]]\nname = []\nid = 'x'\nurl = {}\nlimit = []\n[runners.autoscaler]\n",
    ],
)
def test_file_with_wrong_structure_is_refused(tmp_path: Path, text: str) -> None:
    """Wrong types instead of tables give a message and not a crash."""
    with pytest.raises(ConfigError, match="expected"):
        read(tmp_path, text)


def test_hostile_files_give_messages(tmp_path: Path) -> None:
    """Ten thousand unknown keys and strange names give messages, too."""
    keys = "".join(f"key{number} = 1\n" for number in range(10_000))
    errors, warnings = problems(
        tmp_path, keys + RUNNER.replace("concurrent = 20", "") + f"{keys}'a\\n.b' = 1\n"
    )
    assert len(errors) == 0
    assert len(warnings) == 10_000
    text = RUNNER.replace("[runners.autoscaler.plugin_config]", f'{keys}"a\\n.b" = 1\n[x]')
    errors, _ = problems(tmp_path, text)
    assert len(errors) == 10_001
    assert 'runners[0].autoscaler."a\\n.b": (runner' in errors[-1]
