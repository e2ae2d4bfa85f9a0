"""Reading a jobs file: the runs of a valid one, and the messages about an invalid one."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from fleeting.errors import ConfigError
from taskscaler.jobs.job import Download
from taskscaler.jobs.jobs_file import read_jobs_file

if TYPE_CHECKING:
    from pathlib import Path

    from taskscaler.config import AutoscalerConfig
    from taskscaler.jobs.job import JobRun


def read(tmp_path: Path, text: str) -> tuple[AutoscalerConfig, list[JobRun]]:
    """Write a file and read it."""
    path = tmp_path / "jobs.toml"
    path.write_text(text)
    return read_jobs_file(path)


def problems(tmp_path: Path, text: str) -> list[str]:
    """Return the problems of an invalid file, without the name of the file."""
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    where = f"{tmp_path / 'jobs.toml'}: "
    assert all(problem.startswith((where, "and ")) for problem in caught.value.problems)
    return [problem.removeprefix(where) for problem in caught.value.problems]


def job(**keys: str) -> str:
    """Return a table of a job; each value is TOML."""
    keys = {"name": '"a"', "script": '["true"]', **keys}
    return "[[jobs]]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items())


def test_every_key_arrives(tmp_path: Path) -> None:
    """A file with every key of a job yields its runs, with the files to upload."""
    (tmp_path / "in.txt").touch()
    keys = {
        "env": '{ CI = "1" }',
        "timeout": '"10m"',
        "count": "3",
        "retries": "1",
        "upload": '["in.*"]',
        "download": '["a", { from = "b", to = "c" }]',
        "stdin": '"in.txt"',
    }
    config, runs = read(tmp_path, "[autoscaler]\nmax_instances = 4\n" + job(**keys))
    assert config.max_instances == 4
    assert [run.name for run in runs] == ["a#1", "a#2", "a#3"]
    assert {run.uploads for run in runs} == {("in.txt",)}
    found = runs[0].job
    assert found.timeout == timedelta(minutes=10)
    assert (found.env, found.retries, found.stdin) == ({"CI": "1"}, 1, "in.txt")
    assert found.download == ["a", Download(source="b", to="c")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "no jobs are defined"),
        (job(tiemout='"1m"'), "jobs[0].tiemout: unknown key; did you mean 'timeout'?"),
        (job(name='"a b"'), "jobs[0].name: 'a b' is not a valid job name"),
        (job(name='".."'), "jobs[0].name: '..' is not a valid job name"),
        (job(script="[]"), "jobs[0].script: must not be empty"),
        (job(script='"true"'), 'jobs[0].script: expected a list, got the string "true"'),
        (job(name=f'"{"n" * 201}"'), "jobs[0].name: must have at most 200 characters, got 201"),
        (job(env='{ A = "\\u0000" }'), "jobs[0].env: the value of 'A' must not contain a NUL"),
        (job(count="1_000_001"), "must have at most 1000000 runs in total, got 1000001"),
        (job(download='[{ from = "x", to = "\\u0000" }]'), "'to' must not contain a NUL"),
        (job() + '[[jobs]]\nname = "b"\n', "jobs[1]: the key 'script' is missing; add it"),
        ("[jobs]\n", "jobs: expected a list, got a table"),
        (
            "[autoscaler]\ncapacity_per_instance = 1_000_001\n" + job(),
            "autoscaler.capacity_per_instance: must be at most 1000000, got 1000001",
        ),
        (job(script='["a\\u0000b"]'), "jobs[0].script: must not contain a NUL"),
        (job(timeout='"soon"'), "jobs[0].timeout: 'soon' is not a duration"),
        (job(timeout='"-1s"'), 'jobs[0].timeout: must be more than 0s, got "-1s"'),
        (job(count="0"), "jobs[0].count: must be at least 1, got 0"),
        (job(retries="-1"), "jobs[0].retries: must be at least 0, got -1"),
        (job(env='{ "A-B" = "1" }'), "jobs[0].env: 'A-B' is not a valid variable name"),
        (job(upload='["../x"]'), "jobs[0].upload: '../x' leads out of its directory"),
        (job(upload='["x"]'), "jobs[0].upload: 'x' does not exist in"),
        (job(download='["/x"]'), "jobs[0].download: '/x' leads out of its directory"),
        (job(download='[{ from = "x" }]'), "jobs[0].download[0]: the key 'to' is missing; add it"),
        (job(stdin='"x"'), "jobs[0].stdin:"),
        (job() + job(), "jobs: 2 jobs are named 'a'"),
        ("[autoscaler]\nmax_instance = 1\n" + job(), "did you mean 'max_instances'?"),
        ("[autoscaler]\nmax_instances = -1\n" + job(), "max_instances: must be at least 0, got -1"),
        (
            "[autoscaler.scale_throttle]\nlimit = -2\n" + job(),
            "autoscaler.scale_throttle.limit: must be at least -1, got -2",
        ),
        (
            "[autoscaler.vm_isolation]\nenabled = true\n" + job(),
            "autoscaler.vm_isolation.enabled: virtual machines on the instances are not supported",
        ),
        ("[job]\n" + job(), "job: unknown key; did you mean 'jobs'?"),
    ],
)
def test_each_problem_names_its_key(tmp_path: Path, text: str, expected: str) -> None:
    """Each problem is one sentence with the path of the key."""
    assert any(expected in problem for problem in problems(tmp_path, text))


def test_all_problems_are_reported_at_once(tmp_path: Path) -> None:
    """Wrong values in several jobs are reported together, each once."""
    text = (
        job(name='"a"', count='"x"') + job(name='"b"', timeout='"x"') + job(name='"c"', tries="1")
    )
    found = problems(tmp_path, text)
    assert sorted(problem.partition(":")[0] for problem in found) == [
        "jobs[0].count",
        "jobs[1].timeout",
        "jobs[2].tries",
    ]


def test_many_problems_are_cut_short(tmp_path: Path) -> None:
    """Of a thousand problems, the first twenty are reported."""
    found = problems(tmp_path, "".join(job(name=f'"a {n}"') for n in range(1000)))
    assert len(found) == 21
    assert found[-1] == "and 980 more errors"


def test_ten_thousand_jobs_are_read(tmp_path: Path) -> None:
    """A large file is read completely and in order."""
    _, runs = read(tmp_path, "".join(job(name=f'"job-{n}"') for n in range(10_000)))
    assert [run.name for run in runs] == [f"job-{n}" for n in range(10_000)]
