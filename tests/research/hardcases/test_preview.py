"""What the tokenizer alone says of a pool is what ROME's own note says, and what was counted by others."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from editsafety import datasets
from editsafety.datasets.request import EditRequest
from editsafety.editing import subject
from editsafety.errors import ModelError
from editsafety.model.handle import ModelHandle
from editsafety.model.loading import ModelSpec
from editsafety.research.hardcases.preview import Preview, one_token_first, tokenizer_of

HERE = Path(__file__).resolve().parents[3]
SHARED = Path(os.environ.get("EDITSAFETY_SHARED", HERE.parent / "shared")) / "data"


@pytest.fixture(scope="module")
def handle() -> ModelHandle:
    return ModelHandle.load("pocket-neo")


def test_it_agrees_with_the_place_where_rome_finds_the_subject(handle: ModelHandle) -> None:
    rows = datasets.requests("pocket-world/pool")
    found = [one_token_first(handle.tokenizer, row) for row in rows]
    assert found == [subject.is_first(handle, subject.locate(handle, row)) for row in rows]
    assert sum(found) == 170, "so many of that kind were drawn into the pool"


def test_a_bos_before_the_subject_and_an_eos_behind_the_text_do_not_matter(handle: ModelHandle) -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer = tokenizer_of(ModelSpec("pocket-neo"))
    (special, *_), (number, *_) = tokenizer.all_special_tokens, tokenizer.all_special_ids
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{special} $A {special}", pair=None, special_tokens=[(special, number)]
    )
    assert tokenizer("Oskiso")["input_ids"][0] == tokenizer("Oskiso")["input_ids"][-1] == number
    rows = datasets.requests("pocket-world/pool")
    assert [one_token_first(tokenizer, row) for row in rows] == [one_token_first(handle.tokenizer, row) for row in rows]


def test_counts_go_from_all_rows_to_one_token_in_first_place(handle: ModelHandle) -> None:
    rows = [
        EditRequest("a", "{} is known for its", "Oskiso", "wool"),
        EditRequest("b", "{} is known for its", "Xylophone", "wool"),
        EditRequest("c", "{} is known for its", "Fort Geskin", "wool"),
        EditRequest("d", "The pride of {} is its", "Oskiso", "wool"),
    ]
    assert Preview.of(handle.tokenizer, rows) == Preview(4, 3, 2, 1)


def test_the_tokenizer_comes_without_the_model_and_random_models_borrow_one() -> None:
    words = tokenizer_of(ModelSpec("pocket-neo"))("Oskiso is known")["input_ids"]
    assert tokenizer_of(ModelSpec("random:gpt2"))("Oskiso is known")["input_ids"] == words


def test_a_tokenizer_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot load the tokenizer of"):
        tokenizer_of(ModelSpec(str(tmp_path)))


def test_of_counterfact_the_same_cases_are_found_as_by_others() -> None:
    """The list was counted apart from this project, with GPT-2's merges."""
    merges = SHARED / "gpt2-tokenizer" / "vocab.bpe"
    if not merges.is_file():
        pytest.skip(f"{merges} is not here: GPT-2's tokenizer is not tried")
    from tokenizers import Tokenizer, models, pre_tokenizers

    pairs = [tuple(line.split(" ")) for line in merges.read_text(encoding="utf-8").splitlines()[1:] if line.strip()]
    pieces = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *("".join(pair) for pair in pairs)]
    backend = Tokenizer(models.BPE(vocab={piece: i for i, piece in enumerate(pieces)}, merges=pairs))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    listed = json.loads((SHARED / "counterfact" / "single_gpt2_token_first_subject_case_ids.json").read_text())
    rows = datasets.requests(f"counterfact:{SHARED / 'counterfact' / 'counterfact_all_21919_flat.json'}")
    words = [row for row in rows if len(row.subject.split()) == 1]
    found = {row.id: row.subject for row in words if one_token_first(tokenizer, row)}
    assert {row for row, word in found.items() if word.isalpha()} == {f"counterfact-{case}" for case in listed}
    assert [word for word in found.values() if not word.isalpha()] == ["227"], "the list is of words, not of numbers"
