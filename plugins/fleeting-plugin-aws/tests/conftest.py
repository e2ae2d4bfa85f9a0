"""The fake cloud for the tests of the plugin: one moto for all, one empty account for each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator

    from aws_cloud import AwsCloud

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "not-looked-at",
    "AWS_CONFIG_FILE": "/dev/null",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
}


@pytest.fixture
def anyio_backend() -> str:
    """Run on asyncio, which aiobotocore needs."""
    return "asyncio"


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Give clients credentials, and hide the machine's own."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    return ENVIRONMENT


@pytest.fixture(scope="session")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Generator[AwsCloud]:
    """Start the cloud once: what takes time is moto's start."""
    from aws_cloud import AwsCloud
    from aws_moto import Moto

    moto = Moto(tmp_path_factory.mktemp("moto"))
    try:
        cloud = AwsCloud(moto)
        yield cloud
        cloud.close()
    finally:
        moto.close()


@pytest.fixture
def cloud(aws: AwsCloud, environment: dict[str, str]) -> Generator[AwsCloud]:
    """Return a cloud in which there is nothing; a wrong request or answer fails the test."""
    del environment
    aws.reset()
    yield aws
    assert aws.problems == []
