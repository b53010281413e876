"""Context templates: sampled once from the unedited model, the same for everyone."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from editsafety.artifacts import ArtifactStore
from editsafety.editing import contexts
from editsafety.edits.edit import Edit
from editsafety.edits.session import EditSession
from editsafety.errors import EditorError, ModelError
from editsafety.model.handle import ModelHandle
from tests import tiny

LENGTHS = ((8, 5), (12, 5))


def sampled_rows(handle: ModelHandle, lengths: contexts.Lengths) -> list[list[int]]:
    """The ids behind the templates, as `sample` turns them into text."""
    rows: list[list[int]] = []
    text = handle.text

    def remember(ids: Sequence[int]) -> str:
        rows.append(list(ids))
        return text(ids)

    handle.text = remember  # type: ignore[method-assign]
    contexts.sample(handle, lengths=lengths, starts=("A",), generator=torch.Generator())
    return rows


def test_the_bare_template_comes_first_and_the_rest_is_text_a_stop_and_the_place(tmp_path: Path) -> None:
    found = contexts.sample_once(tiny.handle("gpt2"), ArtifactStore(tmp_path), lengths=LENGTHS)
    assert found[0] == "{}"
    assert len(found) == 11
    for template, start in zip(found[1:], contexts.STARTS * 2, strict=True):
        assert template.endswith(". {}")
        assert template.startswith(start)
        assert template.count("{") == template.count("}") == 1


def test_templates_have_the_asked_number_of_tokens() -> None:
    handle = tiny.handle("gpt2", spelling="bytes_bos")
    rows = sampled_rows(handle, ((9, 2), (14, 1)))
    assert [len(row) for row in rows] == [9, 9, 14]


def test_the_same_seed_gives_the_same_templates_and_another_seed_others() -> None:
    def drawn(seed: int) -> tuple[str, ...]:
        return contexts.sample(tiny.handle("gpt2"), lengths=LENGTHS, generator=torch.Generator().manual_seed(seed))

    assert drawn(0) == drawn(0)
    assert drawn(0) != drawn(1)


def test_sampling_leaves_the_global_random_state_alone() -> None:
    before = torch.get_rng_state()
    contexts.sample(tiny.handle("gpt2"), lengths=LENGTHS, generator=torch.Generator())
    assert torch.equal(before, torch.get_rng_state())


def test_every_drawn_token_is_among_the_five_most_likely() -> None:
    handle = tiny.handle("gpt2")
    special = torch.tensor(sorted(set(handle.tokenizer.all_special_ids)))
    for row in sampled_rows(handle, ((10, 3),)):
        behind_eos = [handle.tokenizer.eos_token_id, *row]  # texts begin as documents do
        # One unpadded row: an independent forward pass; place t holds the scores of row[t].
        scores = handle.logits(handle.batch([behind_eos]))[0].detach()
        scores[:, len(handle.tokenizer) :] = -torch.inf
        scores[:, special] = -torch.inf
        for place in range(1, len(row)):
            assert row[place] in scores[place].topk(5).indices.tolist()


def test_an_empty_start_begins_with_the_end_of_text_token_which_is_not_written() -> None:
    found = contexts.sample(tiny.handle("gpt2"), lengths=((6, 2),), starts=("",), generator=torch.Generator())
    assert "<eos>" not in "".join(found)


def test_a_tokenizer_without_bos_and_eos_needs_start_words() -> None:
    handle = tiny.handle("gpt2")
    handle.tokenizer.eos_token = None
    with pytest.raises(ModelError, match="neither BOS nor EOS"):
        contexts.sample(handle, lengths=((6, 2),), starts=("",), generator=torch.Generator())


def test_an_edited_model_reads_what_the_unedited_one_sampled(tmp_path: Path) -> None:
    handle, store = tiny.handle("gpt2"), ArtifactStore(tmp_path)
    before = contexts.sample_once(handle, store, lengths=LENGTHS)
    with EditSession(handle) as session:
        session.apply(Edit("test", (), handle.identity, (tiny.low_rank(handle.mlp_out(0)),)))
        assert contexts.sample_once(handle, store, lengths=LENGTHS) == before


def test_templates_are_never_sampled_from_an_edited_model(tmp_path: Path) -> None:
    handle = tiny.handle("gpt2")
    with EditSession(handle) as session:
        session.apply(Edit("test", (), handle.identity, (tiny.low_rank(handle.mlp_out(0)),)))
        with pytest.raises(EditorError, match="carries an edit"):
            contexts.sample_once(handle, ArtifactStore(tmp_path))


def test_prefixes_are_the_templates_without_place_and_without_the_bare_one(tmp_path: Path) -> None:
    handle, store = tiny.handle("gpt2"), ArtifactStore(tmp_path)
    templates = contexts.sample_once(handle, store, lengths=LENGTHS)
    found = contexts.prefixes(handle, store, lengths=LENGTHS)
    assert [prefix + "{}" for prefix in found] == list(templates[1:])
    assert all(prefix.endswith(". ") for prefix in found)


def test_templates_are_grouped_by_length_the_bare_one_alone() -> None:
    templates = ("{}", "a. {}", "b. {}", "c. {}")
    assert contexts.group_by_length(templates, ((8, 2), (12, 1))) == (("{}",), ("a. {}", "b. {}"), ("c. {}",))
    assert contexts.group_by_length(("{}",), ()) == (("{}",),)
