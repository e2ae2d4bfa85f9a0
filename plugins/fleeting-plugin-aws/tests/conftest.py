"""Fixtures: one moto for the session, an empty account for each test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from aws_plugin import ENVIRONMENT

if TYPE_CHECKING:
    from collections.abc import Generator

    from aws_cloud import AwsCloud

# These tests of the contract open a group, or check it, once for each await that they cancel.
LONG = ("test_cancelled_check", "test_cancelled_opening")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of the contract that take long with this provider."""
    for item in items:
        if item.path.name == "test_aws_contract.py" and item.name.startswith(LONG):
            item.add_marker(pytest.mark.long)


@pytest.fixture
def anyio_backend() -> str:
    """Run on asyncio, which aiobotocore needs."""
    return "asyncio"


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Set credentials for clients, and hide those of this machine."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    return ENVIRONMENT


@pytest.fixture(scope="session")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Generator[AwsCloud]:
    """Start the fake cloud once, because starting moto takes a while."""
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
    """Yield an empty cloud; a wrong request or answer fails the test."""
    del environment
    aws.reset()
    yield aws
    assert aws.problems == []
