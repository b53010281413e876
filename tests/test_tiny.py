"""The models that the other tests use are what those ask for."""

from __future__ import annotations

import pytest

from tests import tiny


@pytest.mark.parametrize("make", [tiny.handle, tiny.model, tiny.config])
def test_a_keyword_that_nothing_reads_is_refused(make) -> None:
    with pytest.raises(TypeError, match="gpt2 has no tokenizer"):
        make("gpt2", tokenizer="bytes_bos")


def test_the_spelling_is_the_tokenizer() -> None:
    assert tiny.handle("gpt2").ids("A baker")[0] != tiny.handle("gpt2", spelling="bytes_bos").ids("A baker")[0]
