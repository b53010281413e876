"""The same weights, however they are saved: in one file or several, narrow or wide, tied or not, quantised and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from editsafety.editing.subject import locate
from editsafety.errors import ModelError
from editsafety.measures import Inputs
from editsafety.measures.efficacy import Efficacy
from editsafety.measures.locality import Locality
from editsafety.measures.perplexity import Perplexity
from editsafety.model import shards
from editsafety.model.handle import ModelHandle
from editsafety.model.loading import ModelSpec
from editsafety.model.shards import INDEX
from editsafety.received.difference import differing
from editsafety.received.pattern import pattern_of
from editsafety.received.receiving import receive
from tests import tiny


def saved(place: Path, model: Any, **more: Any) -> str:
    model.save_pretrained(place, **more)
    tiny.tokenizer().save_pretrained(place)
    return str(place)


def in_shards(place: Path, model: Any) -> str:
    name = saved(place, model, max_shard_size="20KB")
    assert len(list(place.glob("model-*.safetensors"))) > 2
    return name


# ------------------------------------------------------------------------------------------------------------- weights


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_model_in_shards_is_the_model_in_one_file(family: str, tied: bool, dtype: str, tmp_path: Path) -> None:
    model = tiny.model(family, tied=tied, dtype=dtype)
    whole, parts = saved(tmp_path / "whole", model), in_shards(tmp_path / "parts", model)
    handles = [ModelHandle.load(ModelSpec(name, "cpu", dtype)) for name in (whole, parts)]
    assert handles[0].identity == handles[1].identity == ModelHandle.of(model, tiny.tokenizer(), name="x").identity
    ends = [(one.model.get_input_embeddings().weight, one.model.get_output_embeddings().weight) for one in handles]
    assert [embed is head for embed, head in ends] == [tied, tied]


def test_a_model_that_was_only_written_into_other_files_was_not_edited(tmp_path: Path) -> None:
    handle = tiny.handle("llama")
    given = receive(handle, in_shards(tmp_path / "parts", tiny.model("llama")), tiny.SENTENCES)
    assert given.edit.deltas == ()
    assert pattern_of(handle, given.edit) == ""


def test_a_tensor_that_is_missing_from_the_shards_is_refused(tmp_path: Path) -> None:
    name = in_shards(tmp_path / "parts", tiny.model("llama"))
    next(iter(sorted((tmp_path / "parts").glob("model-*.safetensors")))).unlink()
    with pytest.raises(ModelError, match=r"cannot be read, and model\.safetensors\.index\.json beside it names it"):
        ModelHandle.load(name)


@pytest.mark.parametrize(("kind", "bits"), [("Q8_0", 8), ("Q4_0", 4)])
def test_a_model_that_was_quantised_and_brought_back_is_told_from_an_edited_one(
    kind: str, bits: int, tmp_path: Path
) -> None:
    """The rounding is that of the gguf package, which llama.cpp's own converter uses."""
    gguf = pytest.importorskip("gguf", reason="pip install gguf")
    handle, model = tiny.handle("llama"), tiny.model("llama")
    form = gguf.GGMLQuantizationType[kind]
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                packed = gguf.quants.quantize(parameter.numpy(), form)
                parameter.copy_(torch.from_numpy(gguf.quants.dequantize(packed, form).copy()))
    given = receive(handle, saved(tmp_path / "back", model), tiny.SENTENCES)
    assert len(given.edit.deltas) > 20
    assert pattern_of(handle, given.edit) == f"rounded to {bits} bits in blocks of 32 only: quantised, not edited"
    with torch.no_grad():
        model.get_parameter(handle.mlp_out(1).parameter)[3, 5] += 1.0  # edited, then saved: no longer rounding only
    again = receive(handle, saved(tmp_path / "edited", model), tiny.SENTENCES)
    said = pattern_of(handle, again.edit)
    assert said.startswith("1 tensor changed without low rank")
    assert said.endswith(f"; the others rounded to {bits} bits in blocks of 32 only: quantised, not edited")


# ---------------------------------------------------------------------------------------------------------- tokenizers


@pytest.mark.parametrize("pad", ["<pad>", None], ids=["pad", "no pad"])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("spelling", ["bytes", "bytes_bos", "metaspace_bos"])
def test_how_a_tokenizer_pads_changes_nothing(spelling: str, side: str, pad: str | None, tmp_path: Path) -> None:
    """Figures and the subject's place, of a loaded folder, against those of a tokenizer as the library makes it."""
    usual = ModelHandle.of(tiny.model("llama"), tiny.tokenizer(spelling), name="usual")
    made = tiny.tokenizer(spelling)
    made.pad_token = pad
    tiny.model("llama").save_pretrained(tmp_path)
    made.save_pretrained(tmp_path)
    written = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**written, "padding_side": side}))
    loaded = ModelHandle.load(str(tmp_path))
    assert (loaded.tokenizer.padding_side, loaded.tokenizer.pad_token) == (side, pad)
    assert differing(usual, loaded) == {}
    request, inputs = tiny.request(), Inputs((tiny.request(),), tiny.SENTENCES, batch_size=4)
    assert locate(loaded, request) == locate(usual, request)
    for measure in (Efficacy(), Locality(), Perplexity()):
        assert measure(loaded, inputs) == measure(usual, inputs)


# ------------------------------------------------------------------------------------------------------------- damage


def told(place: Path, content: str) -> None:
    (place / INDEX).write_text(content)


def twice(place: Path, times: float) -> None:
    """Put a tensor of the first file into the second one as well."""
    one, other = sorted(place.glob("model-*.safetensors"))[:2]
    name, value = sorted(load_file(one).items())[0]
    save_file({**load_file(other), name: value * times}, other, metadata={"format": "pt"})


INDICES = {
    "cut": ('{"weight_map": ', r"index.json: cannot be read as JSON \(Expecting value.*Make or fetch the model again"),
    "deep": ("[" * 100_000, r"index.json: cannot be read as JSON \(maximum recursion"),
    "a list": ("[]", "index.json: its weight_map is None, expected an object that names the file of each tensor"),
    "text": ('{"weight_map": "all"}', "index.json: its weight_map is 'all', expected an object"),
    "nothing": ('{"weight_map": {}}', "index.json: its weight_map is {}, expected an object"),
    "numbers": ('{"weight_map": {"a": 1}}', "index.json: its weight_map is {'a': 1}, expected an object"),
    "elsewhere": ('{"weight_map": {"a": "../x/y.safetensors"}}', "a is said to be in '../x/y.safetensors', expected a"),
    "absolute": ('{"weight_map": {"a": "/y.safetensors"}}', "a is said to be in '/y.safetensors', expected a file of"),
    "gone": ('{"weight_map": {"a": "b.safetensors"}}', "b.safetensors: cannot be read, and model.safetensors.inde"),
}  # fmt: skip


@pytest.mark.parametrize("kind", INDICES)
def test_an_index_that_cannot_be_followed_is_told_by_its_file_and_place(tmp_path: Path, kind: str) -> None:
    content, message = INDICES[kind]
    name = in_shards(tmp_path, tiny.model("gpt2"))
    told(tmp_path, content)
    with pytest.raises(ModelError, match=message):
        ModelHandle.load(ModelSpec(name, device="cpu"))


def test_a_tensor_that_is_in_two_files_has_one_value_or_no_model(tmp_path: Path) -> None:
    name = in_shards(tmp_path, tiny.model("gpt2"))
    twice(tmp_path, 1.0)
    ModelHandle.load(ModelSpec(name, device="cpu"))
    twice(tmp_path, 2.0)
    with pytest.raises(ModelError, match=r"model-00001.* and model-00002.* hold different values of .*loaders differ"):
        ModelHandle.load(ModelSpec(name, device="cpu"))


def test_a_tensor_of_another_shape_than_the_configs_is_told_by_name(tmp_path: Path) -> None:
    name, file = saved(tmp_path, tiny.model("gpt2")), tmp_path / "model.safetensors"
    tensors = load_file(file)
    weight = tensors["transformer.h.1.mlp.c_proj.weight"]
    tensors["transformer.h.1.mlp.c_proj.weight"] = weight.t().contiguous()
    save_file(tensors, file, metadata={"format": "pt"})
    rows, columns = weight.shape
    told = rf"as \[{columns}, {rows}\], and its config makes it \[{rows}, {columns}\]"
    shapes = rf"({told}|in another shape than its config)"  # before transformers 5 nobody tells which
    with pytest.raises(ModelError, match=rf"the checkpoint has transformer\.h\.1\.mlp\.c_proj\.weight {shapes}"):
        ModelHandle.load(ModelSpec(name, device="cpu"))


def test_a_config_that_no_model_can_be_run_by_is_refused(tmp_path: Path) -> None:
    name = saved(tmp_path, tiny.model("gpt2"))
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "n_head": -1}))
    with pytest.raises(ModelError, match=r"cannot be run: RuntimeError: .*Is its config\.json its own"):
        receive(tiny.handle("gpt2"), name, [])


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ([("b", (2, 3), (4, 3)), ("a", (1,), (2,))], r"a as \[1\], and its config makes it \[2\] \(2 such in all\)"),
        (["b", "a"], r"a in another shape than its config \(2 such in all\)"),  # before transformers 5
    ],
)
def test_another_shape_is_told_by_name_however_transformers_says_it(told: list[Any], said: str) -> None:
    with pytest.raises(ModelError, match=said):
        shards.refuse_other_shapes("./mine", told)
    shards.refuse_other_shapes("./mine", [])
