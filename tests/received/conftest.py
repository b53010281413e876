"""What edited models are judged by, and a store of artifacts of each test's own."""

import pytest

from editsafety.judging.policy import Policy
from tests.system.commands import LENIENT


@pytest.fixture
def policy(tmp_path):
    """Perplexity alone is judged, and that efficacy was measured."""
    (tmp_path / "lenient.yaml").write_text(LENIENT)
    return Policy.read(tmp_path / "lenient.yaml")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EDITSAFETY_CACHE", str(tmp_path / "cache"))
