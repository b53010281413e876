"""The second shipped model: how its tokenizer spells, and that edits take with and without a BOS."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers.processors import TemplateProcessing

from editsafety import datasets, editors, measures
from editsafety.artifacts import ArtifactStore
from editsafety.edits.session import EditSession
from editsafety.measures import Inputs
from editsafety.model.handle import ModelHandle

WORDS = "Naïve 45 braces {} and, of course, commas.  Two spaces"


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "bos"])
def handle(request: pytest.FixtureRequest) -> ModelHandle:
    loaded = ModelHandle.load("pocket-qwen")
    tokenizer = loaded.tokenizer
    if request.param:
        begin = (tokenizer.bos_token, tokenizer.bos_token_id)
        inner = tokenizer.backend_tokenizer
        inner.post_processor = TemplateProcessing(single=f"{begin[0]} $A", special_tokens=[begin])
    assert (loaded.ids("Toren")[0] == tokenizer.bos_token_id) is request.param
    return loaded


def test_any_text_comes_back_from_its_ids(handle: ModelHandle) -> None:
    assert handle.text(handle.ids(WORDS)) == WORDS
    assert handle.tokenizer.unk_token_id not in handle.ids(WORDS)


def test_a_word_in_first_place_is_spelled_like_any_other(handle: ModelHandle) -> None:
    (word,) = handle.ids("works", special=False)
    assert handle.ids("She works", special=False)[-1] == word
    assert handle.target_ids("works") == [word]


def test_rome_takes_and_leaves_other_texts_alone(handle: ModelHandle, tmp_path: Path) -> None:
    editor = editors.make("rome", handle, ArtifactStore(tmp_path), changes={"mom2_adjustment": False})
    requests = datasets.requests("pocket-neo/hardcf", limit=2) + datasets.requests("pocket-world/normal", limit=2)
    texts = datasets.texts("pocket-world/texts", limit=10)

    def perplexity() -> float:
        return measures.load("perplexity")(handle, Inputs(texts=texts))[0].value or 0.0

    before = perplexity()
    for request in requests:
        edit = editor.edit([request])
        with EditSession(handle) as session:
            session.apply(edit)
            told = measures.load("efficacy")(handle, Inputs((request,)))[0]
            assert told.value == 1.0, f"{request.id}: {told.answers}"
            assert perplexity() < 1.25 * before
