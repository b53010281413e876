"""Folders as save_pretrained makes them: without a tokenizer, in a narrower dtype, with tensors that nobody takes."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from editsafety.errors import ModelError
from editsafety.judging.verdict import Verdict
from editsafety.model.handle import ModelHandle
from editsafety.received import folders
from editsafety.received.receiving import receive
from tests import tiny
from tests.builders import default_without
from tests.received.given import TEXTS, folder, judged


def test_a_folder_without_a_tokenizer_is_read_with_that_of_the_unedited_model(tmp_path, policy):
    model = tiny.model("gpt2")
    model.transformer.h[1].mlp.c_proj.weight.data.mul_(1.01)
    model.save_pretrained(tmp_path / "edited")
    given = receive(tiny.handle("gpt2"), str(tmp_path / "edited"), TEXTS)
    assert given.remarks == ("edited holds no tokenizer: that of the unedited model is used",)
    assert judged(tiny.handle("gpt2"), given, policy).group.verdict is not Verdict.NO_OP
    with pytest.raises(ModelError, match=r"cannot load .*edited': it holds no tokenizer. Save one beside the model"):
        ModelHandle.load(str(tmp_path / "edited"))


def test_a_folder_with_an_empty_tokenizer_holds_none(tmp_path):
    """As transformers makes and saves it for a model of a kind that it knows, when there is no vocabulary."""
    tiny.model("gpt2").save_pretrained(tmp_path / "edited")
    empty = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
             "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True},
             "post_processor": None, "decoder": None, "model": {"type": "BPE", "vocab": {}, "merges": []}}  # fmt: skip
    (tmp_path / "edited" / "tokenizer.json").write_text(json.dumps(empty))
    (tmp_path / "edited" / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    assert receive(tiny.handle("gpt2"), str(tmp_path / "edited"), TEXTS).borrowed


def add(place, **tensors):
    """Write further tensors into a checkpoint."""
    file = f"{place}/model.safetensors"
    save_file({**load_file(file), **tensors}, file, {"format": "pt"})


@pytest.mark.filterwarnings("ignore")
def test_tensors_that_the_model_has_no_place_for_are_named_and_make_no_pass(tmp_path, policy):
    side = {"transformer.h.1.mlp.c_proj.side_weight": torch.ones(3)}
    add(place := folder(tmp_path), **side)
    found = judged(tiny.handle("gpt2"), place, policy)
    assert found.group.verdict is Verdict.NO_OP
    assert "so it was not loaded: transformer.h.1.mlp.c_proj.side_weight" in found.reasons[0].sentence
    add(place := folder(tmp_path, lambda model: model.transformer.ln_f.weight.mul_(1.001), name="changed"), **side)
    found = judged(tiny.handle("gpt2"), place, policy)
    assert found.group.verdict is Verdict.WARN
    assert [reason.name for reason in found.reasons] == ["loaded"]
    assert found.as_json()["not_loaded"] == list(side)


@pytest.mark.filterwarnings("ignore")
def test_what_the_unedited_checkpoint_holds_too_is_no_loss(tmp_path):
    side = {"transformer.mtp.weight": torch.ones(3)}
    places = [folder(tmp_path, name=name) for name in ("before", "after")]
    for place in places:
        add(place, **side)
    handle = ModelHandle.load(places[0])
    assert handle.dropped == tuple(side)
    assert receive(handle, places[1], TEXTS).dropped == ()


def test_files_with_weights_that_nobody_reads_are_named(tmp_path):
    folder(tmp_path)
    known = (
        "pytorch_model.bin",
        "model-00001-of-00002.safetensors",
        "optimizer.pt",
        "rng_state_0.pth",
        "README.bin.md",
    )
    for name in ("side_memory.pt", "codebook.safetensors", *known, "training_args.bin", "model.fp16.safetensors"):
        (tmp_path / "edited" / name).write_text("")
    assert folders.unread(tmp_path / "edited") == ("codebook.safetensors", "side_memory.pt")
    assert folders.unread(tmp_path / "nowhere") == ()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_model_that_was_only_saved_in_a_narrower_dtype_is_a_no_op(dtype, tmp_path, policy):
    found = judged(tiny.handle("gpt2"), folder(tmp_path, lambda model: model.to(dtype)), policy)
    assert found.group.verdict is Verdict.NO_OP
    assert found.edited == []
    assert "nothing but the precision" in found.reasons[0].sentence


def test_an_edit_in_a_model_that_was_saved_in_a_narrower_dtype_is_judged_as_the_edit(tmp_path):
    def change(model):
        model.transformer.ln_f.weight.mul_(100)
        model.to(torch.bfloat16)

    found = judged(tiny.handle("gpt2"), folder(tmp_path, change), default_without("base_perplexity"))
    assert found.group.verdict is Verdict.COLLAPSE
