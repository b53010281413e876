"""Every layout in which the field publishes hyperparameters is read; what cannot be honoured is refused by name.

The files are written here, in the layouts and with the names of fields of the published ones (docs/hyperparameters.md
counts those).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from editsafety import editors
from editsafety.errors import UsageError
from tests.hyperparameters.test_published import FILES, ROME

Write = Callable[[dict[str, Any]], Path]


@pytest.mark.parametrize("written", [[17], ["17"], 17, "17", [17.0]])
def test_one_layer_needs_no_brackets(written: Any, write: Write) -> None:
    assert editors.read_hparams("rome", "any", write({**ROME, "layers": written})).model_dump()["layers"] == (17,)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("13-17", r"layers\.0 = '13-17': input should be a valid integer"),
        (True, "layers = True: input should be a valid list"),
        (None, "layers = None: input should be a valid list"),
        ([], r"layers = \[\]: list should have at least 1 item"),
    ],
)
def test_what_is_no_list_of_layers_is_refused_in_words_of_the_file(written: Any, said: str, write: Write) -> None:
    with pytest.raises(UsageError, match=said):
        editors.read_hparams("rome", "any", write({**ROME, "layers": written}))


def test_one_module_needs_no_brackets(write: Write) -> None:
    for editor, name in (("grace", "inner_params"), ("lora", "target_modules")):
        (only,) = FILES[editor][name]
        whole = editors.read_hparams(editor, "any", write(FILES[editor]))
        assert editors.read_hparams(editor, "any", write({**FILES[editor], name: only})) == whole


@pytest.mark.parametrize("written", [None, False, "None", "False"])
def test_no_bound_may_be_written_in_any_way(written: Any, write: Write) -> None:
    found = editors.read_hparams("ft", "any", write({**FILES["ft"], "norm_constraint": written}))
    assert found.model_dump()["norm_constraint"] is None


WATCHED = {"ppl_sentence_num": 20, "ppl_batch_size": 4}
VARIANT = {"if_c_rome": False, "if_prefix": False, "save_keys": False, "save_keys_path": "./k"}
MEND_WHOLE = {
    **{key: value for key, value in FILES["mend"].items() if key != "one_sided"},
    "cbase": 1.0, "lr_scale": 1.0, "one_sided": False, "init": "id", "norm": True, "combine": True, "act": "relu",
    "mlp_class": "IDMLP", "opt": "Adam", "final_eval": True, "eval_log_interval": 500, "val_batch_size": 5,
    "log_interval": 10, "silent": False, "model_save_pt": 100, "edit_bs": 1, "max_output_length": 60,
}  # fmt: skip
HYDRA = {
    "alg": "mend", "lr": "1e-6", "edit_lr": "1e-4", "lr_lr": "1e-4", "seed": 3, "edit_bs": 1, "max_iters": 7,
    "val_interval": 2, "val_steps": 4, "early_stop_patience": 5, "early_stop_key": "loss/total_edit_val", "cedit": 0.1,
    "cloc": 1.0, "cbase": 1.0, "base_loss": "distill", "oracle": False, "train": True, "train_base": False,
    "opt": "Adam", "single_batch": False, "archive": None, "grad_clip": 100.0, "ref": None, "dropout": 0.0,
    "tokenizer": None, "results_dir": None, "no_grad_layers": None, "device": "cuda",
    "model": {
        "pt": None, "name": "someone/some-model", "class_name": "GPTNeoForCausalLM", "tokenizer_class": "X",
        "inner_params": ["transformer.h.4.mlp.c_fc.weight", "transformer.h.4.mlp.c_proj.weight"],
    },
    "mend": {"rank": 12, "n_hidden": 1, "hidden_dim": None, "init": "id", "norm": True, "shared": False},
    "data": {"path": None, "n_edits": 1}, "eval": {"verbose": True}, "hydra": {"run": {"dir": "./o/${now:%H}"}},
}  # fmt: skip
SERAC = {
    "alg_name": "SERAC", "archive": None, "device": 0, "model_name": "./here/gpt2-xl", "model_class": "GPT2LMHeadModel",
    "small_name": "./here/gpt2", "tokenizer_class": "X", "tokenizer_name": "x", "cls_name": "./here/distilbert",
    "cls_class": "AutoModel", "inner_params": [], "model_parallel": False, "lr": "1e-5", "edit_lr": "1e-2", "seed": 0,
    "lr_lr": 0.0, "cedit": 0.1, "cloc": 1.0, "cbase": 1.0, "dropout": 0.0, "final_eval": True, "supervised": False,
    "train_base": False, "no_grad_layers": None, "soft_weighting": False, "checkpoint_grad": False,
    "cross_attend": False, "cos": False, "freeze": None, "square": True, "bound_embeds": False,
    "use_all_negatives": False, "freeze_cntr": False, "dist_heads": 1, "lora": None, "batch_size": 1,
    "model_save_pt": 500, "edit_bs": 1, "silent": False, "max_iters": 100, "log_interval": 5, "val_interval": 5,
    "early_stop_patience": 40, "early_stop_key": "edit/acc_val", "eval_only": False, "half": False, "save": False,
    "debug": False, "log_errors": False, "unlikelihood": True, "val_batch_size": 1, "accumulate_bs": 10,
    "val_steps": 5, "opt": "Adam", "grad_clip": 100.0, "results_dir": "./r",
}  # fmt: skip
IKE = {"alg_name": "IKE", "model_name": "x", "sentence_model_name": "y", "device": 0, "results_dir": "./r", "k": 5}
LEFT = {"lr_scale": 2.0, "n_toks": 10, "model_name": "EleutherAI/gpt-j-6B", "counterfact": True, "zsre": False,
        "mini": False}  # fmt: skip

READ: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "rome, perplexity watched": (
        "rome", {**ROME, **WATCHED, **VARIANT}, {"layers": (17,), "v_lr": 0.5, "keys": "mixed"}
    ),
    "c_rome by its switch": ("c_rome", {**ROME, **VARIANT, "if_c_rome": True}, {"keys": "prefixed", "layers": (17,)}),
    "c_rome asked behind a prefix": ("c_rome", {**ROME, **VARIANT, "if_prefix": True}, {"keys": "prefixed"}),
    "rome with what is off": ("rome", {**ROME, "bias_update": False, "dynamic": False, "dynamic_multiplier": 1}, {}),
    "memit, perplexity watched": ("memit", {**FILES["memit"], **WATCHED}, {"mom2_update_weight": 20000.0}),
    "ft, perplexity watched": ("ft", {**FILES["ft"], **WATCHED}, {"num_steps": 25, "loss": "prompt_last"}),
    "kn, perplexity watched": ("kn", {**FILES["kn"], **WATCHED}, {"p": 0.4}),
    "mend, every key": ("mend", {**MEND_WHOLE, **WATCHED}, {"rank": 1920, "layers": (45, 46, 47), "training_seed": 42}),
    "mend, hydra's": (
        "mend", HYDRA, {"rank": 12, "layers": (4,), "parts": ("mlp_in", "mlp_out"), "shared": False, "max_iters": 7}
    ),
    "mend, trained elsewhere": ("mend", LEFT, {"lr_scale": 2.0, "layers": (25, 26, 27), "rank": 1920}),
    "mend, model alone": ("mend", HYDRA["model"], {"layers": (4,), "rank": 1920, "lr": 1e-6}),
    "mend, a family of old": (
        "mend",
        {**MEND_WHOLE, "inner_params": [f"transformer.h.3.mlp.{one}.weight" for one in ("w1", "w2", "c_proj")]},
        {"layers": (3,), "parts": ("mlp_in", "mlp_out")},
    ),
    "serac": ("serac", SERAC, {"num_steps": 10000, "lr": 1e-3, "width": 128, "training": "zsre_3k"}),
    "serac, another model": ("serac", {**SERAC, "model_name": "./here/llama-2-7b-chat"}, {"width": 128}),
    "ike": ("ike", IKE, {"k": 5, "select": "lines", "demonstrations": "zsre_3k"}),
    "lora before it said which": (
        "lora", {key: value for key, value in FILES["lora"].items() if key != "lora_type"}, {"lora_type": "adalora"}
    ),
}  # fmt: skip


@pytest.fixture(params=["file.yaml", "file.json"])
def write(request: pytest.FixtureRequest, tmp_path: Path) -> Write:
    def to_file(values: dict[str, Any]) -> Path:
        path = tmp_path / request.param
        path.write_text(json.dumps(values) if path.suffix == ".json" else yaml.safe_dump(values))
        return path

    return to_file


@pytest.mark.parametrize("case", READ)
def test_a_published_file_is_read_as_it_is(case: str, write: Write) -> None:
    name, given, expected = READ[case]
    found = editors.read_hparams(name, "no-shipped-model", write(given)).model_dump()
    assert {key: found[key] for key in expected} == expected


@pytest.mark.parametrize("case", READ)
def test_every_key_that_is_not_used_is_said_once(case: str, write: Write) -> None:
    name, given, _ = READ[case]
    lines = editors.set_aside(name, write(given))
    said = [line.split(" = ")[0] for line in lines if " is set aside: " in line]
    assert len(said) == len(set(said))
    sections = {key for one in ("mend", "model") for key in (given.get(one) or {})}
    assert set(said) <= {*given, *sections}


def test_a_key_that_cannot_change_the_edit_is_set_aside_with_the_reason(write: Write) -> None:
    lines = editors.set_aside("rome", write({**ROME, **WATCHED, **VARIANT}))
    for key in ("ppl_sentence_num = 20", "ppl_batch_size = 4", "save_keys = False", "if_c_rome = False"):
        assert any(line.startswith(f"{key} is set aside: ") for line in lines), key


def test_what_a_file_leaves_to_others_is_that_of_the_model_at_hand_first(write: Write) -> None:
    file = write({**LEFT, "model_name": "gpt-j-6b"})
    assert editors.read_hparams("mend", "gpt2-xl", file).model_dump()["layers"] == (45, 46, 47)
    assert editors.read_hparams("mend", "unheard-of", file).model_dump()["layers"] == (25, 26, 27)
    (line,) = [line for line in editors.set_aside("mend", file) if "leaves it to others" in line]
    assert "layers" in line
    assert "rank" in line


def test_layers_are_never_those_of_another_model(write: Write) -> None:
    with pytest.raises(UsageError, match="hyperparameter 'layers' is missing"):
        editors.read_hparams("mend", "unheard-of", write({**LEFT, "model_name": "unheard-of"}))


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("rome", {**ROME, **VARIANT, "if_c_rome": True}, "but rome is the variant .* ask for c_rome"),
        ("rome", {**ROME, **VARIANT, "if_prefix": True}, "ask for c_rome"),
        ("rome", {**ROME, "bias_update": True}, "bias_update = True cannot be done here, only False"),
        ("rome", {**ROME, "dynamic": True}, "dynamic = True cannot be done here, only False"),
        ("memit", {**FILES["memit"], "fact_token": "last"}, r"only 'subject_last'\..*: facts are written at the last"),
        ("mend", {**MEND_WHOLE, "act": "gelu"}, "act = 'gelu' cannot be done here, only 'relu'"),
        ("mend", {**MEND_WHOLE, "init": "xavier"}, "init = 'xavier' cannot be done here, only 'id'"),
        ("mend", {**MEND_WHOLE, "mlp_class": "MLP"}, "mlp_class = 'MLP' cannot be done here, only 'IDMLP'"),
        ("mend", {**MEND_WHOLE, "opt": "SGD"}, "opt = 'SGD' cannot be done here, only 'Adam'"),
        ("mend", {**MEND_WHOLE, "train_base": True}, "train_base = True .*: only the network beside the model"),
        ("mend", {**MEND_WHOLE, "qformer_checkpoint": "x"}, "qformer_checkpoint = 'x' is of a model that sees images"),
        ("mend", {**MEND_WHOLE, "inner_params": ["encoder.block.2.layer.1.DenseReluDense.wi.weight"]},
         "is of a model with an encoder; only models that continue a text"),
        ("mend", {"alg": "enn", "train_base": True}, "alg_name = 'enn', but the editor is mend"),
        ("mend", {**MEND_WHOLE, "warmup": 3}, "unknown hyperparameter 'warmup'"),
        ("serac", {**SERAC, "cos": True}, "cos = True cannot be done here, only False"),
        ("serac", {**SERAC, "dist_heads": 2}, "dist_heads = 2 cannot be done here, only 1"),
        ("wise", {**FILES["wise"], "use_chat_template": True}, "use_chat_template = True .* write the template into"),
        ("wise", {**FILES["wise"], "retrieve": False}, "retrieve = False cannot be done here, only True"),
        ("ike", {**IKE, "use_icl_examples": False}, "use_icl_examples = False cannot be done here, only True"),
        ("lora", {**FILES["lora"], "sh_lr": 0.9}, "sh_lr = 0.9 lowers the rate from step to step"),
        ("grace", {**FILES["grace"], "replacement": "replace_all"}, "replacement = 'replace_all' cannot be done here"),
        ("ft", {**FILES["ft"], "rewrite_module_tmp": "decoder.block.{}.layer.2.DenseReluDense.wo"}, "with an encoder"),
    ],
)  # fmt: skip
def test_a_key_that_would_change_the_edit_is_refused_by_name(
    name: str, given: dict[str, Any], message: str, write: Write
) -> None:
    path = write(given)
    with pytest.raises(UsageError, match=message) as caught:
        editors.read_hparams(name, "no-shipped-model", path)
    assert str(path) in str(caught.value)
