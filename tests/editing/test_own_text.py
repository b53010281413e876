"""Text that a model writes by itself: of known length, the same every time, from the unedited model."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch

from editsafety.artifacts import ArtifactStore
from editsafety.editing import own_text
from editsafety.edits.edit import Edit
from editsafety.edits.session import EditSession
from editsafety.errors import EditorError, ModelError
from editsafety.model.handle import ModelHandle
from editsafety.model.scoring import next_logits
from editsafety.progress import Progress
from tests import tiny


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts of 24 tokens, which are written in a tenth of the time."""
    monkeypatch.setattr(own_text, "LENGTH", 24)


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma3", "bloom"])
def test_there_are_as_many_tokens_as_were_asked_for_and_none_is_special(family: str, store: ArtifactStore) -> None:
    handle = tiny.handle(family)
    texts = own_text.written(handle, store, 60)
    assert [len(text) for text in texts] == [24, 24, 24]
    assert not set(handle.tokenizer.all_special_ids) & {token for text in texts for token in text}
    assert all(token < len(handle.tokenizer) for text in texts for token in text)
    assert len({tuple(text) for text in texts}) == 3


@pytest.mark.parametrize(("spelling", "front"), [("bytes", []), ("bytes_bos", [2]), ("metaspace_bos", [2])])
def test_a_text_begins_as_the_tokenizer_begins_one(spelling: str, front: list[int], store: ArtifactStore) -> None:
    handle = tiny.handle("llama", spelling=spelling)
    assert handle.ids("") == front
    (text,) = own_text.written(handle, store, 10)
    assert text[: len(front)] == front
    assert len(text) == 24 + len(front)


def test_without_bos_and_eos_texts_begin_with_common_words(store: ArtifactStore) -> None:
    handle = tiny.handle("gpt2")
    handle.tokenizer.eos_token = None
    texts = own_text.written(handle, store, 6 * 24)
    starts = [handle.ids(word) for word in ("The", "Therefore", "Because", "I", "You", "The")]
    assert [text[: len(start)] for text, start in zip(texts, starts, strict=True)] == starts


def test_the_first_token_is_drawn_behind_the_one_that_texts_begin_with(monkeypatch: pytest.MonkeyPatch) -> None:
    handle = tiny.handle("gpt2")
    monkeypatch.setattr(own_text, "LENGTH", 1)
    firsts = torch.tensor([text[0] for text in own_text.write(handle, range(2000), seed=1)])
    scores = next_logits(handle, [[handle.tokenizer.eos_token_id]])[0]
    scores[handle.tokenizer.all_special_ids] = -torch.inf
    shares = scores.double().softmax(-1)
    found = torch.bincount(firsts, minlength=len(shares)) / len(firsts)
    likely = shares.topk(5).indices
    # four deviations of a share of 2000
    assert ((found - shares)[likely].abs() < 4 * (shares[likely] / 2000).sqrt()).all()


def test_more_text_goes_on_where_the_kept_one_ends(store: ArtifactStore, tmp_path: Path) -> None:
    handle = tiny.handle("gpt2")
    few = own_text.written(handle, store, 30)
    many = own_text.written(handle, store, 100)
    assert many[:2] == few
    assert own_text.written(handle, store, 30) == few
    assert own_text.written(tiny.handle("gpt2"), ArtifactStore(tmp_path / "other"), 100) == many
    assert own_text.written(handle, store, 30, seed=1) != few


def test_how_far_it_is_is_shown_by_steps(store: ArtifactStore) -> None:
    shown = io.StringIO()
    own_text.written(tiny.handle("gpt2"), store, 100, progress=Progress(shown))
    first, *_, last = shown.getvalue().splitlines()
    assert first == "text that tiny-gpt2 writes itself: 0 of 24"
    assert last.startswith("text that tiny-gpt2 writes itself: 24 of 24, ")


def test_a_batch_of_a_large_model_is_small_and_its_text_the_same(store: ArtifactStore, monkeypatch) -> None:
    handle = tiny.handle("gpt2")
    whole = own_text.write(handle, range(5))
    monkeypatch.setattr(own_text, "CACHED", 2 * 2 * 3 * 32 * 4 * 24)  # two texts: keys and values, 3 layers, 32 wide
    batches, real = [], ModelHandle.run
    monkeypatch.setattr(
        ModelHandle, "run", lambda self, ids, *a, **k: batches.append(len(ids)) or real(self, ids, *a, **k)
    )
    assert own_text.write(handle, range(5)) == whole
    assert set(batches) == {2, 1}


def test_an_edited_model_writes_nothing(store: ArtifactStore) -> None:
    handle = tiny.handle("gpt2")
    with EditSession(handle) as session:
        session.apply(Edit("test", (), handle.identity, (tiny.low_rank(handle.mlp_out(0)),)))
        with pytest.raises(EditorError, match="carries an edit"):
            own_text.written(handle, store, 100)


def test_a_model_whose_numbers_are_not_finite_is_named(store: ArtifactStore) -> None:
    handle = tiny.handle("gpt2")
    with torch.no_grad():
        handle.model.transformer.ln_f.weight.fill_(float("nan"))
    with pytest.raises(ModelError, match=r"tiny-gpt2 gives logits that are not finite .* --corpus"):
        own_text.write(handle, range(1))
