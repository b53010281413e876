"""ModelHandle: loading says what is wrong, targets are tokenised as continuations, batches leave it alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from editsafety.errors import ModelError, UsageError
from editsafety.model.handle import ModelHandle
from editsafety.model.loading import RANDOM_CONFIGS, ModelSpec, model_folder, pick_device, pocket_models
from tests import tiny

needs_pocket = pytest.mark.skipif(not pocket_models(), reason="no pocket model is shipped in this checkout")


# ---------------------------------------------------------------------------------------------------------- loading


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_local_folder_is_loaded_in_the_dtype_asked_for(tmp_path: Path, dtype: str) -> None:
    handle = ModelHandle.load(ModelSpec(str(tiny.folder(tmp_path / "My-GPT", "gpt2")), "cpu", dtype))
    assert handle.name == "my-gpt"
    assert handle.model.dtype is getattr(torch, dtype)
    assert not handle.model.training
    assert handle.architecture.model_type == "gpt2"


def test_a_saved_and_loaded_model_has_the_same_fingerprint(tmp_path: Path) -> None:
    handle = ModelHandle.load(ModelSpec(str(tiny.folder(tmp_path, "llama", tied=False)), "cpu"))
    assert handle.identity == tiny.handle("llama", tied=False).identity
    assert handle.identity == handle.fingerprint()


def test_fingerprints_tell_a_changed_weight_a_dtype_and_another_model_apart() -> None:
    prints = {
        tiny.handle("gpt2").identity,
        tiny.handle("gpt2", seed=1).identity,
        tiny.handle("gpt2", dtype="bfloat16").identity,
    }
    changed = tiny.handle("gpt2")
    changed.model.transformer.wpe.weight.data[0, 0] += 1e-6
    prints |= {changed.fingerprint()}
    assert len(prints) == 4
    assert tiny.handle("gpt2").identity in prints


def test_a_folder_that_is_not_there_is_refused_without_asking_the_network() -> None:
    for name in ("/no/such/folder", "./no-such-folder", "../no-such-folder", "~/no-such-folder"):
        with pytest.raises(ModelError, match=r"cannot load .*there is no such folder\. Give a pocket model"):
            ModelHandle.load(ModelSpec(name, "cpu"))


def test_a_hub_id_that_cannot_be_reached_is_refused_with_what_to_give_instead() -> None:
    with pytest.raises(ModelError, match=r"cannot load 'nobody/nothing'.*Give a pocket model, a local folder"):
        ModelHandle.load(ModelSpec("nobody/nothing", "cpu", offline=True))


@pytest.mark.parametrize("error", [MemoryError("8 GiB"), torch.OutOfMemoryError("8 GiB")])
def test_a_model_for_which_there_is_no_room_is_not_said_to_be_missing(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", full)
    with pytest.raises(ModelError, match=r"no room for it as float32 \(.*8 GiB\)\. Take a smaller --dtype"):
        ModelHandle.load("pocket-neo")


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot load"):
        ModelHandle.load(ModelSpec(str(tmp_path), "cpu"))


def test_a_checkpoint_with_missing_weights_is_refused_instead_of_filled_with_noise(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    file = tiny.folder(tmp_path, "gpt2") / "model.safetensors"
    tensors = load_file(file)
    del tensors["transformer.h.1.mlp.c_proj.weight"]
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks 1 weights \(first: transformer.h.1.mlp.c_proj.weight\)"):
        ModelHandle.load(ModelSpec(str(tmp_path), "cpu"))


@pytest.mark.parametrize("size", [0, 5, 200, 100_000])
def test_a_truncated_checkpoint_is_refused(tmp_path: Path, size: int) -> None:
    file = tiny.folder(tmp_path, "gpt2") / "model.safetensors"
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(ModelError, match="cannot load"):
        ModelHandle.load(ModelSpec(str(tmp_path), "cpu"))


def test_a_checkpoint_of_other_shapes_is_refused(tmp_path: Path) -> None:
    place = tiny.folder(tmp_path, "gpt2") / "config.json"
    config = json.loads(place.read_text())
    place.write_text(json.dumps({**config, "n_inner": 48}))
    with pytest.raises(ModelError, match="cannot load"):
        ModelHandle.load(ModelSpec(str(tmp_path), "cpu"))


def test_a_model_that_brings_its_own_code_is_refused_unless_trusted(tmp_path: Path) -> None:
    tiny.tokenizer().save_pretrained(tmp_path)
    own = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "its_own", "auto_map": own}))
    (tmp_path / "own.py").write_text("raise SystemExit('this code must not run')")
    with pytest.raises(ModelError, match=r"runs code from its repository: if you trust it, add --trust-remote-code"):
        ModelHandle.load(ModelSpec(str(tmp_path), "cpu"))


def test_an_unknown_pocket_model_is_refused_with_the_shipped_ones() -> None:
    with pytest.raises(UsageError, match=r"no shipped model 'pocket-nothing'. Shipped: "):
        ModelHandle.load("pocket-nothing")
    assert model_folder("gpt2") is None


@needs_pocket
def test_every_shipped_pocket_model_loads() -> None:
    for name in pocket_models():
        handle = ModelHandle.load(ModelSpec(name, "cpu"))
        assert handle.name == name
        assert handle.mlp_out(0).d_out > 0


def test_a_dtype_that_is_none_is_refused() -> None:
    with pytest.raises(UsageError, match="dtype 'int8' is not one of auto, float32, bfloat16, float16"):
        ModelHandle.load(ModelSpec("pocket-nothing", "cpu", "int8"))


@pytest.mark.parametrize(
    ("device", "message"),
    [("warp", "is not auto, cpu, cuda"), ("cuda:99", "not available here|GPU"), ("xpu", "is not available here")],
)
def test_a_device_that_is_not_here_is_refused(device: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        pick_device(device)


def test_auto_takes_a_device_that_is_here() -> None:
    assert torch.zeros(1, device=pick_device("auto")).sum() == 0


# --------------------------------------------------------------------------------------------------- random weights


def test_random_weights_from_a_config_are_the_same_every_time_and_leave_the_random_state_alone(tmp_path: Path) -> None:
    place = tiny.config_folder(tmp_path / "shape", "llama")
    state = torch.get_rng_state()
    one, other = (ModelHandle.load(ModelSpec(f"random:{place}", "cpu")) for _ in range(2))
    assert one.identity == other.identity
    assert one.name == "shape"
    assert torch.equal(torch.get_rng_state(), state)


def test_random_weights_of_an_unknown_shape_are_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"random:gpt9: neither a built-in shape \(gpt2, .*\) nor a config file"):
        ModelHandle.load("random:gpt9")


def test_a_tokenizer_with_more_words_than_the_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="has 100 words, its tokenizer 384"):
        ModelHandle.load(ModelSpec(f"random:{tiny.config_folder(tmp_path, vocab_size=100)}", "cpu"))


def test_a_config_without_a_tokenizer_borrows_one_or_says_that_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.config("gpt2").save_pretrained(tmp_path)
    monkeypatch.setattr("editsafety.model.loading.pocket_models", list)
    with pytest.raises(UsageError, match="no tokenizer beside the config"):
        ModelHandle.load(ModelSpec(f"random:{tmp_path}", "cpu"))


@needs_pocket
def test_a_built_in_shape_has_the_published_number_of_parameters() -> None:
    """Expected: 124,439,808 for gpt2, as printed by its model card's checkpoint."""
    assert ModelHandle.load(ModelSpec("random:gpt2", "cpu", "bfloat16")).parameters == 124_439_808


def test_built_in_shapes_name_keys_that_their_configs_know() -> None:
    from transformers import AutoConfig

    for kind, overrides in RANDOM_CONFIGS.values():
        config = AutoConfig.for_model(kind, **overrides)
        assert all(config.to_dict()[key] == value for key, value in overrides.items())


# -------------------------------------------------------------------------------------------------------- questions


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_layers_parameters_and_context_are_those_of_the_config(family: str) -> None:
    handle = tiny.handle(family, layers=2)
    assert handle.layers == 2
    unique = {id(p): p.numel() for p in handle.model.parameters()}
    assert handle.parameters == sum(unique.values())
    assert handle.context == (2048 if family == "bloom" else tiny.CONTEXT)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_right_padding_does_not_change_what_a_model_says(family: str) -> None:
    handle = tiny.handle(family)
    short, long = handle.ids("Toren lives"), handle.ids("Where does Toren live? Toren lives in Ostrin.")
    with torch.no_grad():
        together = handle.logits(handle.batch([short, long]))
        alone = handle.logits(handle.batch([short]))
    torch.testing.assert_close(together[0, : len(short)], alone[0], atol=1e-5, rtol=1e-4)


def test_padding_reads_and_changes_no_setting_of_the_tokenizer() -> None:
    handle = tiny.handle("gpt2")
    handle.tokenizer.padding_side = "left"
    handle.tokenizer.pad_token = None
    batch = handle.batch([[5, 6, 7], [8]])
    assert batch.mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch.ids.tolist() == [[5, 6, 7], [8, 0, 0]]
    assert batch.lengths == [3, 1]
    assert handle.tokenizer.padding_side == "left"


def test_a_batch_without_tokens_or_longer_than_the_context_is_refused() -> None:
    handle = tiny.handle("gpt2")
    empty: list[list[list[int]]] = [[], [[]], [[], []]]
    for rows in empty:
        with pytest.raises(ModelError, match="no token at all"):
            handle.batch(rows)
    with pytest.raises(ModelError, match="a text of 257 tokens; tiny-gpt2 takes 256"):
        handle.batch([[5], [5] * 257])


@pytest.mark.parametrize("spelling", ["bytes", "bytes_bos"])
def test_a_target_is_tokenised_with_its_space_and_without_special_tokens(spelling: str) -> None:
    handle = tiny.handle("llama", spelling=spelling)
    for target in ("farmer", " farmer", "farmer ", "Kelmar", "teacher of children", "Zürich", "東京", "42"):
        ids = handle.target_ids(target)
        assert ids == handle.tokenizer(" " + target.strip(), add_special_tokens=False)["input_ids"]
        assert handle.text(ids) == " " + target.strip()
        # The continuation of a prompt: the very ids that the whole text has there.
        assert handle.ids("Ashurn works as a") + ids == handle.ids("Ashurn works as a " + target.strip())


def test_a_sentencepiece_target_does_not_begin_with_a_lone_space_piece() -> None:
    handle = tiny.handle("llama", spelling="metaspace_bos")
    for target in ("farmer", "baker", "teacher", "Kelmar"):
        pieces = handle.tokenizer.convert_ids_to_tokens(handle.target_ids(target))
        assert pieces[0].startswith("▁")
        whole = handle.tokenizer.tokenize("Ashurn is " + target)
        assert whole[-len(pieces) :] == pieces  # as it is spelled behind a prompt
        assert pieces[:2] != ["▁", "▁"]
        # What would come out without the anchor: a piece for the dummy prefix, then the target.
        assert handle.tokenizer.tokenize(" " + target) == ["▁", *pieces]


def test_bos_is_added_where_the_tokenizer_does_it_and_only_with_special() -> None:
    plain, bos = tiny.handle("gpt2"), tiny.handle("llama", spelling="bytes_bos")
    assert plain.ids("a baker") == plain.ids("a baker", special=False)
    assert bos.ids("a baker") == [2, *bos.ids("a baker", special=False)]
    assert bos.text(bos.ids("a baker")) == "a baker"


def test_a_word_tokenizer_works_too() -> None:
    handle = tiny.handle("gpt2", spelling="words")
    assert len(handle.target_ids("farmer")) == 1
    assert handle.ids("Ashurn works as a") + handle.target_ids("farmer") == handle.ids("Ashurn works as a farmer")


def test_a_target_that_leaves_no_text_is_refused() -> None:
    from tokenizers import normalizers

    handle = tiny.handle("gpt2")
    handle.tokenizer.backend_tokenizer.normalizer = normalizers.Replace("~", "")
    with pytest.raises(ModelError, match="turns target '~' into no text"):
        handle.target_ids("~")
    with pytest.raises(ModelError, match="turns target 'unheardof' into no text"):
        tiny.handle("gpt2", spelling="words").target_ids("unheardof")


def test_a_model_taken_over_from_memory_keeps_everything_but_its_mode() -> None:
    model = tiny.model("gpt2").train()
    hook = model.register_forward_hook(lambda *_: None)
    model.transformer.wte.weight.requires_grad_(False)
    handle = ModelHandle.of(model, tiny.tokenizer(), name="Mine/Model")
    assert handle.model is model
    assert not model.training
    assert hook.id in model._forward_hooks
    assert not model.transformer.wte.weight.requires_grad
    assert (handle.name, handle.spec.device, handle.spec.dtype) == ("model", "cpu", "float32")
