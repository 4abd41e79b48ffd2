"""The installation that tests share which break nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.installation import CORE, Installation, installed


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """One installation with Flower for all tests that leave its processes alone."""
    with installed(tmp_path_factory.mktemp("shared"), *CORE, "flower") as installation:
        yield installation
