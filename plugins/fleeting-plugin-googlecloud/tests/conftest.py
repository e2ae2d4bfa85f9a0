"""Fixtures: one fake cloud for the session, empty for each test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator

    from gce_cloud import GoogleCloud


@pytest.fixture
def anyio_backend() -> str:
    """Run on asyncio."""
    return "asyncio"


@pytest.fixture(scope="session")
def google(tmp_path_factory: pytest.TempPathFactory) -> Generator[GoogleCloud]:
    """Start the fake cloud once."""
    from gce_cloud import GoogleCloud

    cloud = GoogleCloud()
    cloud.credentials = cloud.write_credentials(tmp_path_factory.mktemp("google"))
    yield cloud
    cloud.close()


@pytest.fixture
def cloud(google: GoogleCloud, monkeypatch: pytest.MonkeyPatch) -> Generator[GoogleCloud]:
    """Yield an empty cloud; a wrong request or answer fails the test."""
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setattr("fleeting_plugin_googlecloud._api.POLLS", (0.01, 0.02, 0.05, 0.1, 0.2, 0.4))
    monkeypatch.setattr("fleeting_plugin_googlecloud._api.PAUSE_SECONDS", 0.02)
    monkeypatch.setattr("fleeting_plugin_googlecloud._access.PAUSE_SECONDS", 0.0)
    monkeypatch.setattr("fleeting_plugin_googlecloud._requests.WRITE_PAUSE_SECONDS", 0.02)
    google.reset()
    yield google
    assert google.problems == []
    google.reset()
