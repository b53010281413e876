"""Folders as save_pretrained makes them: without a tokenizer, in a narrower dtype, with tensors that nobody takes."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from editsafety.errors import EditError, ModelError
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


def test_a_folder_with_the_config_of_a_tokenizer_alone_holds_none(tmp_path):
    """As it is left where only small files were copied, or where a chat template was saved apart."""
    tiny.model("gpt2").save_pretrained(tmp_path / "edited")
    tiny.tokenizer().save_pretrained(tmp_path / "tokenizer")
    (tmp_path / "tokenizer" / "tokenizer_config.json").rename(tmp_path / "edited" / "tokenizer_config.json")
    (tmp_path / "edited" / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    assert receive(tiny.handle("gpt2"), str(tmp_path / "edited"), TEXTS).borrowed
    with pytest.raises(ModelError, match=r"it holds no tokenizer\. Save one beside the model"):
        ModelHandle.load(str(tmp_path / "edited"))
    (tmp_path / "edited" / "tokenizer.json").write_text('{"version": "1.0"}')
    with pytest.raises(ModelError, match=r"cannot load .*edited': .*Save the model again, or copy all files"):
        receive(tiny.handle("gpt2"), str(tmp_path / "edited"), TEXTS)


@pytest.mark.parametrize(
    ("files", "given", "said"),
    [
        ((), ".", r"the folder holds no config\.json\. Save the model again"),
        (("model.safetensors",), ".", r"holds no config\.json\. .* or copy the one of the unedited model to it"),
        (
            ("checkpoint-9/config.json", "checkpoint-10/config.json"),
            ".",
            "that is meant: checkpoint-10, checkpoint-9",
        ),
        (("mine/adapter_config.json",), ".", r"that is meant: mine\."),
        (("adapter_model.safetensors",), ".", r"the weights of an adapter and no adapter_config\.json"),
        (("config.json", "model.pt"), "model.pt", r"it is a file, not a folder\. .* made, .*edited\."),
        (("weights.pt",), "weights.pt", r"it is a file, not a folder\. Give the folder that save_pretrained made\."),
    ],
)
def test_what_holds_no_model_is_told_with_what_is_probably_meant(tmp_path, files, given, said):
    place = tmp_path / "edited"
    place.mkdir()
    for name in files:
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_text("{}")
    with pytest.raises(ModelError, match=rf"cannot load .*: .*{said}"):
        receive(tiny.handle("gpt2"), str(place / given), TEXTS)


def test_an_adapter_is_no_unedited_model(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"it is an adapter .* Give the model that it was made from"):
        ModelHandle.load(str(tmp_path))


def test_the_weights_of_a_model_are_told_from_a_saved_edit(tmp_path):
    place = folder(tmp_path)
    with pytest.raises(EditError, match=r"not one that editsafety wrote .* Of a model give the folder, .*edited\."):
        receive(tiny.handle("gpt2"), f"{place}/model.safetensors", TEXTS)


def test_a_shard_that_is_missing_is_named(tmp_path):
    place = tmp_path / "edited"
    tiny.model("gpt2").save_pretrained(place, max_shard_size="20KB")
    sorted(place.glob("*.safetensors"))[1].unlink()
    with pytest.raises(
        ModelError,
        match=r"model-00002-of-\d+\.safetensors: cannot be read, and .* names it .*No such file.* Fetch it again",
    ):
        receive(tiny.handle("gpt2"), str(place), TEXTS)


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
