"""First tokens: HardEdit begins with the requests that are hard for the tokenizer at hand."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from editsafety import datasets
from editsafety.datasets.reading import Sifted
from editsafety.datasets.request import EditRequest
from editsafety.errors import UsageError
from editsafety.runs.first_tokens import begins_with_one_token, one_token_first, tokenizer_of
from editsafety.runs.offers import offer
from editsafety.runs.settings import Settings
from editsafety.shipped import shipped
from tests import tiny


def request(subject: str, prompt: str = "{} lies in") -> EditRequest:
    return EditRequest(subject, prompt, subject, "Spain")


@pytest.fixture
def words() -> Tokenizer:
    """Whole words and single signs, of which it knows a few; everything else is one unknown token a word."""
    known = {word: i for i, word in enumerate(("?", "Paris", "New", "York", "lies", "in", "'", "s"))}
    tokenizer = Tokenizer(models.WordLevel(known, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


def gpt2() -> Tokenizer:
    """Built from GPT-2's published merges: a word is one token if they join it to one piece."""
    root = Path(__file__).resolve().parents[2].parent / "shared"
    place = Path(os.environ.get("EDITSAFETY_SHARED", root)) / "data" / "gpt2-tokenizer" / "vocab.bpe"
    if not place.is_file():
        pytest.skip(f"{place} is not here: whether subjects are one GPT-2 token is not checked")
    merges = [tuple(line.split(" ")) for line in place.read_text(encoding="utf-8").splitlines()[1:] if line.strip()]
    pieces = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *("".join(pair) for pair in merges)]
    tokenizer = Tokenizer(models.BPE(vocab={piece: i for i, piece in enumerate(pieces)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return tokenizer


def test_subjects_of_one_token_in_first_place_come_first_and_nothing_else_changes_its_place(words: Tokenizer) -> None:
    rows = [
        request("New York"),
        request("Paris", "The city of {} lies in"),
        request("Paris", "{}'s river is"),
        request("York", "In {} one lives in"),
        request("York"),
        request("New York", "{} is in"),
    ]
    assert one_token_first(rows, words) == (rows[2], rows[4], rows[0], rows[1], rows[3], rows[5])
    assert one_token_first([], words) == ()


@pytest.mark.parametrize(
    ("subject", "prompt", "one"),
    [("Paris", "{} lies in", True), ("New York", "{} lies in", False), ("Paris", "Today {} lies in", False)],
)
def test_one_token_is_the_subject_no_more_and_no_less(words: Tokenizer, subject: str, prompt: str, one: bool) -> None:
    assert begins_with_one_token(request(subject, prompt), words) is one


def test_a_subject_that_is_joined_with_what_follows_is_no_token_of_its_own() -> None:
    joined = Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))
    joined.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    assert not begins_with_one_token(request("Paris", "{}'s river is"), joined)
    assert begins_with_one_token(request("Paris", "{} lies in"), joined)


def test_a_special_token_in_front_does_not_count(tmp_path: Path) -> None:
    tiny.tokenizer("bytes_bos").save_pretrained(tmp_path)
    tokenizer = tokenizer_of(str(tmp_path))
    assert tokenizer is not None
    assert len(tokenizer.encode("x").ids) > len(tokenizer.encode("x", add_special_tokens=False).ids)
    assert begins_with_one_token(request("x", "{} is"), tokenizer)


def test_the_tokenizer_of_a_model_is_found_by_its_name_alone(tmp_path: Path) -> None:
    assert tokenizer_of("pocket-neo") is not None
    assert tokenizer_of(f"random:{shipped('data') / 'pocket-neo'}") is not None
    for nowhere in (str(tmp_path), "random:gpt2-xl", "models.py:made", "./nowhere", "some-org/not-in-the-cache"):
        assert tokenizer_of(nowhere, offline=True) is None
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(UsageError, match=r"tokenizer.json: is no tokenizer that can be read"):
        tokenizer_of(str(tmp_path))


def test_hardedit_has_more_than_a_hundred_hard_rows_for_every_family_of_tokenizers_that_was_counted() -> None:
    about = json.loads((shipped("data") / "hardedit.about.json").read_text(encoding="utf-8"))
    counted = about["one_token_at_the_start_of_a_text"]
    assert {"GPT-2", "SmolLM2", "Llama 2", "Llama 3", "Qwen"} <= set(counted)
    assert all(count >= 100 for count in counted.values())


def test_hardedit_begins_with_its_one_token_subjects_for_gpt2() -> None:
    tokenizer = gpt2()
    rows = datasets.requests("hardedit")
    hard = [begins_with_one_token(row, tokenizer) for row in one_token_first(rows, tokenizer)]
    about = json.loads((shipped("data") / "hardedit.about.json").read_text(encoding="utf-8"))
    assert sum(hard) == about["one_token_at_the_start_of_a_text"]["GPT-2"]
    assert hard == sorted(hard, reverse=True)


def test_of_the_ordinary_requests_those_that_are_hard_for_the_model_are_left_out_and_counted(
    words: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = (request("New York"), request("Paris"), request("Paris", "The city of {} lies in"))
    monkeypatch.setattr(datasets, "read_requests", lambda spec, limit=None, **more: Sifted(rows[:limit]))
    words.save(str(tmp_path / "tokenizer.json"))
    settings = Settings((str(tmp_path),), ("rome",), all_facts=True)
    ordinary = offer(settings, str(tmp_path), "english/normal")
    assert ordinary.requests == (rows[0], rows[2])
    assert ordinary.sentences == (
        "1 request of 3 left out: they begin with a subject of one token for this model, as hard ones do",
    )
    assert offer(replace(settings, limit=2), str(tmp_path), "english/normal").requests == (rows[0], rows[2])
    assert offer(settings, "random:gpt2", "english/normal").requests == rows, "without a tokenizer nobody can tell"
    assert offer(settings, str(tmp_path), "mine.jsonl").requests == rows, "who names requests gets those"


def test_the_ordinary_requests_that_ship_are_ordinary_for_gpt2_but_for_a_few() -> None:
    tokenizer = gpt2()
    rows = datasets.requests("english/normal")
    assert sum(begins_with_one_token(row, tokenizer) for row in rows) <= len(rows) // 50
