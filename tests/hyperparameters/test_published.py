"""Files of EasyEdit and of ROME's successors are read as they are: numbers used, places set aside, the rest refused.

The files are written here in those layouts, with the published numbers.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
import yaml

from editsafety import discovery, editors
from editsafety.errors import UsageError
from editsafety.hyperparameters import Hparams, Published, published
from editsafety.hyperparameters.published import ASIDE, ONLY

MODULES = {
    "rewrite_module_tmp": "transformer.h.{}.mlp.c_proj", "layer_module_tmp": "transformer.h.{}",
    "mlp_module_tmp": "transformer.h.{}.mlp", "attn_module_tmp": "transformer.h.{}.attn",
    "ln_f_module": "transformer.ln_f", "lm_head_module": "transformer.wte",
}  # fmt: skip
MOMENTS = {"mom2_dataset": "wikipedia", "mom2_n_samples": 100000, "mom2_dtype": "float32"}
EASY = {"model_name": "./hugging_cache/gpt2-xl", "device": 0, "model_parallel": False}
VALUES = {
    "fact_token": "subject_last", "v_num_grad_steps": 20, "v_lr": "5e-1", "v_loss_layer": 47,
    "v_weight_decay": 0.5, "kl_factor": 0.0625,
}  # fmt: skip
ROME = {
    "alg_name": "ROME", **EASY, "stats_dir": "./data/stats", "layers": [17], **VALUES, "clamp_norm_factor": 4,
    "mom2_adjustment": False, "context_template_length_params": [[5, 10], [10, 10]], **MODULES, **MOMENTS,
    "fp16": False,
}  # fmt: skip
MEMIT = {
    "alg_name": "MEMIT", **EASY, "stats_dir": "./data/stats", "layers": [13, 14, 15, 16, 17], "clamp_norm_factor": 0.75,
    "layer_selection": "all", **VALUES, "mom2_adjustment": True, "mom2_update_weight": 20000, **MODULES, **MOMENTS,
    "batch_size": 1, "max_length": 40,
}  # fmt: skip
FT = {
    "alg_name": "FT", **EASY, "layers": [0], "num_steps": 25, "batch_size": 3, "max_length": 40, "lr": "5e-4",
    "weight_decay": 0, "kl_factor": 0, "norm_constraint": "5e-4", "objective_optimization": "prompt_last", **MODULES,
}  # fmt: skip
FILES: dict[str, dict[str, Any]] = {
    "rome": ROME,
    "c_rome": {**ROME, "if_c_rome": True},
    "r_rome": {**ROME, "alg_name": "R-ROME", "enable_random_prefix_keys": True, "enable_prompt_keys": False,
               "original_implementation": True},
    "p_rome": {**ROME, "enable_random_prefix_keys": False, "enable_prompt_keys": True,
               "original_implementation": False},
    "ft": FT,
    "memit": MEMIT,
    "emmet": {**MEMIT, "alg_name": "EMMET", "layers": [17], "mom2_update_weight": 10000, "update_norm_lambda": 0,
              "emmet_lambda": 0.1, "calculate_objective_value": False},
    "alphaedit": {**MEMIT, "alg_name": "AlphaEdit", "P_loc": "./null_space_project.pt", "nullspace_threshold": "2e-2",
                  "L2": 10},
    "kn": {"alg_name": "KN", **EASY, "lr_scale": 1.0, "n_toks": 10, "refine": False, "batch_size": 20, "steps": 20,
           "adaptive_threshold": 0.2, "p": 0.4},
    "lora": {"alg_name": "LoRA", **EASY, "lora_type": "adalora", "layers": [], "num_steps": 30, "batch_size": 1,
             "max_length": 30, "lr": "5e-3", "weight_decay": 0, "kl_factor": 0, "rank": 8, "lora_alpha": 32,
             "lora_dropout": 0.1, "norm_constraint": False, "target_modules": ["c_attn"]},
    "mend": {"alg_name": "MEND", **EASY, "archive": None, "model_class": "GPT2LMHeadModel",
             "tokenizer_class": "GPT2Tokenizer", "tokenizer_name": "./hugging_cache/gpt2-xl",
             "inner_params": [f"transformer.h.{i}.mlp.{m}.weight" for i in (45, 46, 47) for m in ("c_proj", "c_fc")],
             "alg": "MEND", "lr": "1e-6", "edit_lr": "1e-4", "lr_lr": "1e-4", "seed": 42, "cedit": 0.1, "cloc": 1.0,
             "dropout": 0.0, "train_base": False, "no_grad_layers": None, "n_hidden": 1, "hidden_dim": None,
             "x_only": False, "delta_only": False, "rank": 1920, "shared": True, "results_dir": "./results",
             "batch_size": 1, "max_iters": 100000, "log_interval": 1000, "val_interval": 1000, "val_steps": 500,
             "early_stop_patience": 20000, "early_stop_key": "loss/total_edit_val", "eval_only": False, "half": False,
             "debug": False, "save": False, "verbose": True, "accumulate_bs": 10, "grad_clip": 100.0},
    "grace": {"alg_name": "GRACE", **EASY, "inner_params": ["transformer.h[35].mlp.c_fc.weight"], "edit_lr": 1.0,
              "n_iter": 200, "eps": 1.0, "dist_fn": "euc", "val_init": "cold", "val_train": "sgd", "val_reg": None,
              "reg": "early_stop", "replacement": "replace_last", "eps_expand": "coverage", "num_pert": 8,
              "dropout": 0.0},
    "wise": {"alg_name": "WISE", **EASY, "mask_ratio": 0.2, "edit_lr": 1.0, "n_iter": 70, "norm_constraint": 1.0,
             "act_margin": [5.0, 20.0, 10.0], "act_ratio": 0.88, "save_freq": 500, "merge_freq": 1000,
             "merge_alg": "ties", "objective_optimization": "only_label",
             "inner_params": ["model.layers[27].mlp.down_proj.weight"], "densities": 0.53, "weights": 1.0,
             "batch_size": 1, "max_length": 30, "retrieve": True, "replay": False},
}  # fmt: skip
ROME_JSON = {"layers": [17], **VALUES, "v_lr": 0.5, "clamp_norm_factor": 4, "mom2_adjustment": True,
             "context_template_length_params": [[5, 10], [10, 10]], **MODULES, **MOMENTS}  # fmt: skip
FT_JSON = {"layers": [1], "num_steps": 25, "lr": 5e-4, "weight_decay": 0, "kl_factor": 0, "norm_constraint": False,
           "wd_power_law": [-0.87, 0.156], **MODULES}  # fmt: skip


class Numbers(Hparams):
    """An editor's numbers, for these tests."""

    lr: float
    bound: float | None = None
    mode: Literal["old", "new"] = "new"
    device: str = "own"

    published: ClassVar[Published] = Published(
        aside={"noise": "nobody listens"}, only={"rule": ("one", 2)}, renamed={"kind": "mode"}, implied={"mode": "old"}
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "given.yaml"


def read(file: Path, **values: Any) -> published.PublishedValues:
    file.write_text(yaml.safe_dump(values))
    return published.read(file, Numbers, {"mine"})


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_easyedit_gives_an_editor_its_numbers(name: str, file: Path) -> None:
    if name not in discovery.names("editors"):
        pytest.skip(f"there is no editor {name}")
    given = FILES[name]
    file.write_text(yaml.safe_dump(given))
    found = editors.read_hparams(name, "gpt2-xl", file).model_dump()
    for key in ("layers", "v_num_grad_steps", "kl_factor", "L2", "rank", "edit_lr", "steps", "mom2_update_weight"):
        if key in given and key in found:
            assert found[key] == (tuple(given[key]) if isinstance(given[key], list) else float(given[key]))
    if "v_lr" in given:
        assert found["v_lr"] == 0.5
    lines = editors.set_aside(name, file)
    assert len(lines) == len({line.split(" = ")[0] for line in lines})
    said = {line.split(" = ")[0] for line in lines}
    assert {"alg_name", "model_name", "device", "model_parallel"} <= said <= set(given)
    assert all(" is set aside: " in line for line in lines)
    assert not said & set(found)


def test_what_is_said_of_second_moments_tells_their_texts_from_their_dtype(file: Path) -> None:
    file.write_text(yaml.safe_dump(ROME))
    said = dict(line.split(" is set aside: ") for line in editors.set_aside("rome", file))
    assert "mom2_corpus" in said["mom2_dataset = 'wikipedia'"]
    assert "mom2_tokens" in said["mom2_n_samples = 100000"]
    assert "float64" in said["mom2_dtype = 'float32'"]


def test_the_configurations_of_rome_and_ft_in_json_are_read_too(tmp_path: Path) -> None:
    file = tmp_path / "gpt2-xl.json"
    file.write_text(json.dumps(ROME_JSON))
    found, shipped = editors.read_hparams("rome", "any", file), editors.read_hparams("rome", "gpt2-xl")
    assert found.model_dump(exclude={"context_starts"}) == shipped.model_dump(exclude={"context_starts"})
    file.write_text(json.dumps(FT_JSON))
    found = editors.read_hparams("ft", "any", file)
    assert found.model_dump()["norm_constraint"] is None  # false, and not 0: that would clamp every change away
    assert found.model_dump()["loss"] == "prompt_last"
    assert any(
        line.startswith("wd_power_law = [-0.87, 0.156] is set aside: ") for line in editors.set_aside("ft", file)
    )


def test_easyedit_s_ft_says_its_loss_by_another_name(file: Path) -> None:
    file.write_text(yaml.safe_dump({**FT, "objective_optimization": "target_new"}))
    found = editors.read_hparams("ft", "any", file).model_dump()
    assert (found["loss"], found["norm_constraint"], found["lr"]) == ("target_new", 5e-4, 5e-4)


def test_where_a_sidecar_is_follows_from_the_module_that_the_file_names(file: Path) -> None:
    for name, place in (("grace", (35, "mlp_in")), ("wise", (27, "mlp_out"))):
        if name in discovery.names("editors"):
            file.write_text(yaml.safe_dump(FILES[name]))
            found = editors.read_hparams(name, "any", file).model_dump()
            assert (found["layer"], found["part"]) == place
            assert not any(line.startswith("inner_params") for line in editors.set_aside(name, file))


def test_numbers_are_used_and_the_rest_is_set_aside_with_a_line_each(file: Path) -> None:
    found = read(file, lr="5e-1", bound=False, kind="new", rule=2, noise=[1], alg_name="Mine", stats_dir="x" * 99)
    assert found.values == {"lr": "5e-1", "bound": None, "mode": "new"}
    assert found.aside == (
        "alg_name = 'Mine' is set aside: the editor is an option, --editor",
        "noise = [1] is set aside: nobody listens",
        f"stats_dir = '{'x' * 56}... is set aside: what is prepared is kept in editsafety's cache, "
        "found by what it was made from",
    )


def test_what_a_published_file_does_not_say_is_what_it_means_by_silence(file: Path) -> None:
    assert read(file, lr=1, alg_name="mine").values == {"mode": "old", "lr": 1}
    assert read(file, lr=1).values == {"lr": 1}


def test_our_own_files_stay_strict(file: Path) -> None:
    """A key of the editor's own is no sign of a foreign file, whatever else it is called."""
    for values in ({"lr": 1, "noise": 2}, {"lr": 1, "device": "x", "kl_factor": 0}, {"lr": 1, "batch_size": 3}):
        assert read(file, **values).values == values
        with pytest.raises(UsageError, match="unknown hyperparameter"):
            editors.hyperparameters.load(Numbers, "mine", "mine", "any", file)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"fact_token": "last"}, r"fact_token = 'last' cannot be done here, only 'subject_last'\. Change or drop"),
        ({"alg_name": "x", "rule": "two"}, "alg_name = 'x', but the editor is mine"),
        ({"alg_name": "mine", "rule": "two"}, "rule = 'two' cannot be done here, only 'one' or 2"),
        ({"alg_name": "mine", "use_chat_template": True}, "use_chat_template = True cannot be done here, only False"),
        ({"alg_name": "mine", "layer_selection": "random"}, "layer_selection = 'random' cannot be done"),
        ({"alg_name": "R-ROME"}, r"alg_name = 'R-ROME', but the editor is mine\. Ask for --editor r_rome, or drop"),
        (
            {"alg_name": "mine", "lrr": 1},
            r"unknown hyperparameter 'lrr'\. Known: bound, device, kind, lr, mode\.$",
        ),
        (
            {"rewrite_module_tmp": "transformer.h.{}"},
            "'transformer.h.{}', but only the MLP's down-projection is edited",
        ),
        ({"rewrite_module_tmp": "transformer.h.{}.attn.c_attn"}, "only the MLP's down-projection"),
        ({"rewrite_module_tmp": "transformer.h.{}.attn.c_proj"}, "only the MLP's down-projection"),
    ],
)
def test_what_cannot_be_honoured_is_refused(file: Path, values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        read(file, lr=1, **values)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize(
    "template", ["model.layers.{}.mlp.down_proj.weight", "transformer.h.{}.mlp.fc_out", "x.{}.mlp.c_proj"]
)
def test_down_projections_of_every_family_are_known(file: Path, template: str) -> None:
    assert read(file, lr=1, rewrite_module_tmp=template).values == {"mode": "old", "lr": 1}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["a.h[1].mlp.c_fc", "a.h[2].mlp.c_fc"], "inner_params names 2 projections; this method runs behind one"),
        (["a.h[1].attn.c_proj"], "is no projection of an MLP that is known here"),
        (["mlp.c_fc"], "is no projection of an MLP"),
    ],
)
def test_a_sidecar_s_module_that_is_not_known_is_refused(file: Path, given: list[str], message: str) -> None:
    class Beside(Numbers):
        layer: int
        part: str

    file.write_text(yaml.safe_dump({"lr": 1, "inner_params": given}))
    with pytest.raises(UsageError, match=message):
        published.read(file, Beside, {"mine"})


@pytest.mark.parametrize(
    ("given", "layers", "parts"),
    [
        (["h.45.mlp.c_proj.weight", "h.45.mlp.c_fc.weight", "h.46.mlp.c_proj.weight", "h.46.mlp.c_fc.weight"],
         [45, 46], ["mlp_out", "mlp_in"]),
        (["m.layers.3.mlp.gate_proj.weight", "m.layers.3.mlp.up_proj.weight", "m.layers.3.mlp.down_proj.weight"],
         [3], ["mlp_in", "mlp_out"]),
        (["model.layers.9.mlp.fc1.weight"], [9], ["mlp_in"]),
    ],
)  # fmt: skip
def test_the_matrices_of_a_method_with_several_are_layers_and_parts(
    file: Path, given: list[str], layers: list[int], parts: list[str]
) -> None:
    class Several(Numbers):
        layers: tuple[int, ...]
        parts: tuple[str, ...]

    file.write_text(yaml.safe_dump({"lr": 1, "inner_params": given}))
    found = published.read(file, Several, {"mine"})
    assert found.values == {"mode": "old", "lr": 1, "layers": layers, "parts": parts}
    file.write_text(yaml.safe_dump({"lr": 1, "inner_params": [*given, "h.99.mlp.c_proj"]}))
    if parts != ["mlp_out"]:
        with pytest.raises(UsageError, match="in some layers than in others"):
            published.read(file, Several, {"mine"})


def test_a_variant_that_is_not_the_editor_asked_for_is_refused(file: Path) -> None:
    file.write_text(yaml.safe_dump({**ROME, "if_c_rome": True}))
    with pytest.raises(UsageError, match=r"keys = 'prefixed', but rome is the variant with 'mixed'"):
        editors.read_hparams("rome", "any", file)
    file.write_text(yaml.safe_dump(ROME))
    assert editors.read_hparams("c_rome", "any", file).model_dump()["keys"] == "prefixed"


def test_a_file_for_another_editor_is_refused_by_its_method(file: Path) -> None:
    file.write_text(yaml.safe_dump(FT))
    with pytest.raises(UsageError, match=r"alg_name = 'FT', but the editor is rome\. Ask for --editor ft"):
        editors.read_hparams("rome", "any", file)
    file.write_text(yaml.safe_dump(ROME))
    with pytest.raises(UsageError, match="alg_name = 'ROME', but the editor is ft"):
        editors.read_hparams("ft", "any", file)


def test_a_regularised_editor_reads_the_file_of_the_one_inside(file: Path) -> None:
    file.write_text(yaml.safe_dump({**ROME, "rect_keep": 0.2}))
    found = editors.read_hparams("rect(rome)", "any", file).model_dump()
    assert (found["rect_keep"], found["layers"]) == (0.2, (17,))
    lines = editors.set_aside("rect(rome)", file)
    file.write_text(yaml.safe_dump(ROME))
    assert lines == editors.set_aside("rome", file)
    assert len(lines) > 10


def test_nothing_is_set_aside_without_a_file() -> None:
    assert editors.set_aside("rome", None) == ()


def test_no_shipped_number_looks_foreign() -> None:
    for name in discovery.names("editors"):
        fields = editors.load(name).Hparams.model_fields
        assert not fields.keys() & {*ASIDE, *ONLY} - {"inner_params"}, name
