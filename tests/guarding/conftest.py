"""The model that is guarded."""

from __future__ import annotations

import pytest

from editsafety.model.handle import ModelHandle
from tests import tiny


@pytest.fixture
def handle() -> ModelHandle:
    return tiny.handle("gpt2")
