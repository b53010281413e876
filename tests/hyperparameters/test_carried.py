"""Numbers of the nearest published model, for a model without any: which is near, what is moved, what is said."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from editsafety import editors, hyperparameters
from editsafety.errors import UsageError
from editsafety.hyperparameters.carried import Build, carry_over, published
from editsafety.model.architectures import ROWS
from editsafety.model.loading import RANDOM_CONFIGS, read_config, size_of_random
from editsafety.shipped import shipped

SMOLLM = Build("llama", 30, 134_515_008)
WITH_LAYERS = ("rome", "memit", "alphaedit", "emmet", "ft", "lora", "mend", "grace", "wise")


def origin(name: str, build: Build, slug: str = "my-model") -> Any:
    return editors.carried_from(name, slug, None, build)


def numbers(name: str, build: Build, slug: str = "my-model") -> dict[str, Any]:
    return editors.read_hparams(name, slug, build=build).model_dump()


@pytest.mark.parametrize("name", published())
def test_a_published_model_is_built_as_the_table_says(name: str) -> None:
    config = read_config(f"random:{name}")
    assert name in RANDOM_CONFIGS
    assert published()[name] == Build(config.model_type, config.num_hidden_layers, size_of_random(f"random:{name}"))


@pytest.mark.parametrize(
    ("build", "model"),
    [
        (SMOLLM, "llama-2-7b"),  # of the two Llamas, as deep as each other, the smaller one
        (Build("llama", 32, 8_030_261_248), "llama-3-8b"),
        (Build("gpt2", 6, 81_912_576), "gpt2"),  # DistilGPT-2
        (Build("gpt2", 40, 1_000_000_000), "gpt2-large"),  # 40/36 is nearer than 48/40
        (Build("qwen2", 24, 494_032_768), "llama-2-7b"),  # gated, as deep as GPT-2 medium
        (Build("phi3", 32, 3_821_079_552), "llama-2-7b"),  # gated in one matrix
        (Build("gpt_neox", 24, 1_414_647_808), "gpt2-medium"),  # not gated
        (Build("gpt_neox", 28, 6_000_000_000), "gpt-j-6b"),
        (Build("unheard-of", 12, 1), "gpt2"),
    ],
)
def test_the_nearest_model_is_of_the_family_then_of_the_kind_then_as_deep_then_as_large(
    build: Build, model: str
) -> None:
    assert origin("rome", build).model == model


def test_layers_are_moved_by_relative_depth() -> None:
    # (30 - 1) / (32 - 1) = 0.9355: 5 -> 4.68; 4, 5, 6, 7, 8 -> 3.74, 4.68, 5.61, 6.55, 7.48; 27 -> 25.26
    assert numbers("rome", SMOLLM)["layers"] == (5,)
    assert numbers("memit", SMOLLM)["layers"] == (4, 5, 6, 7, 8)
    assert numbers("wise", SMOLLM)["layer"] == 25
    # (3 - 1) / (32 - 1) = 0.0645: 29, 30, 31 -> 1.87, 1.94, 2, and there are just three
    assert numbers("mend", Build("llama", 3, 50_000))["layers"] == (0, 1, 2)
    assert numbers("mend", Build("llama", 2, 50_000))["layers"] == (1,)
    assert numbers("ft", Build("llama", 1, 50_000))["layers"] == (0,)


@pytest.mark.parametrize("layers", [*range(5, 33), 80])
def test_layers_that_fall_together_are_spread_as_near_as_so_many_can_be(layers: int) -> None:
    found = numbers("memit", Build("llama", layers, 50_000))["layers"]
    depths = [layer * (layers - 1) / 31 for layer in (4, 5, 6, 7, 8)]

    def off(chosen: tuple[int, ...]) -> float:
        return sum((one - depth) ** 2 for one, depth in zip(chosen, depths, strict=True))

    assert list(found) == sorted(set(found))
    assert len(found) == 5
    assert off(found) == pytest.approx(min(map(off, combinations(range(min(layers, 25)), 5))), abs=1e-9)


@pytest.mark.parametrize("name", ["rome", "memit", "ft", "lora", "kn", "serac", "ike"])
def test_every_other_number_is_as_published(name: str) -> None:
    ours, theirs = numbers(name, SMOLLM), editors.read_hparams(name, "llama-2-7b").model_dump()
    assert {key for key in ours if ours[key] != theirs[key]} <= {"layers", *editors.load(name).Hparams.shipped_data}


def test_data_that_would_have_to_be_fetched_becomes_what_ships() -> None:
    assert numbers("ike", SMOLLM)["demonstrations"] == "english/pool"
    assert numbers("serac", SMOLLM)["held_out"] == ("english/normal", "hardedit")
    assert origin("ike", SMOLLM).sentence.endswith("(ike/llama-2-7b.yaml), demonstrations zsre_3k as english/pool")


def test_a_variant_keeps_its_own_number() -> None:
    assert numbers("c_rome", SMOLLM) == {**numbers("rome", SMOLLM), "keys": "prefixed"}


def test_it_is_said_whose_numbers_they_are_and_what_was_moved() -> None:
    assert origin("memit", SMOLLM).sentence == (
        "those of llama-2-7b (memit/llama-2-7b.yaml), layers [4, 5, 6, 7, 8] of 32 as [4, 5, 6, 7, 8] of 30"
    )
    assert origin("grace", SMOLLM).sentence.endswith("layer 27 of 32 as 25 of 30")
    assert origin("kn", SMOLLM).sentence == "those of llama-2-7b (kn/llama-2-7b.yaml)"


@pytest.mark.parametrize(
    ("family", "names"),
    [
        ("mistral", ("q_proj", "v_proj")),
        ("phi3", ("attention_in",)),  # one matrix for queries, keys and values
        ("gpt_neox", ("mlp_in", "mlp_out")),  # from GPT-J, where they are fc_in and fc_out
        ("opt", ("mlp_in", "mlp_out")),
    ],
)
def test_projections_that_the_family_has_not_are_named_as_parts(family: str, names: tuple[str, ...]) -> None:
    build = Build(family, 28, 6_000_000_000)
    assert numbers("lora", build)["target_modules"] == names
    assert ("target_modules" in origin("lora", build).moved) == (names != ("q_proj", "v_proj"))


@pytest.mark.parametrize("name", WITH_LAYERS)
@pytest.mark.parametrize("family", [row.model_type for row in ROWS])
def test_every_editor_has_numbers_on_every_family_and_no_layer_that_is_not_there(family: str, name: str) -> None:
    found = numbers(name, Build(family, 3, 50_000))
    layers = found["layers"] if "layers" in found else (found["layer"],)
    assert all(0 <= layer < 3 for layer in layers)


@pytest.mark.parametrize("name", WITH_LAYERS)
def test_every_number_that_counts_layers_is_declared(name: str) -> None:
    kind = editors.load(name).Hparams
    assert set(kind.layer_numbers) == {"layer", "layers"} & set(kind.model_fields)


def test_a_model_with_numbers_of_its_own_keeps_them() -> None:
    xl = published()["gpt2-xl"]
    assert origin("rome", xl, "gpt2-xl") is None
    assert numbers("rome", xl, "gpt2-xl") == editors.read_hparams("rome", "gpt2-xl").model_dump()
    assert numbers("rome", xl, "a-copy-of-it") == editors.read_hparams("rome", "gpt2-xl").model_dump()


def test_numbers_of_pocket_models_are_never_carried_over() -> None:
    for family in ("gpt_neo", "qwen3"):
        assert not origin("rome", Build(family, 4, 2_900_000)).model.startswith("pocket")


def test_a_users_file_wins_and_nothing_is_said(tmp_path: Path) -> None:
    file = shipped("hparams") / "rome" / "gpt2-xl.yaml"
    assert editors.carried_from("rome", "my-model", file, SMOLLM) is None
    assert editors.read_hparams("rome", "my-model", file, build=SMOLLM) == editors.read_hparams("rome", "gpt2-xl")
    keep = tmp_path / "keep.yaml"
    keep.write_text("rect_keep: 0.2\n")  # of the regulariser alone: the editor's are carried over
    found = editors.read_hparams("rect(memit)", "my-model", keep, build=SMOLLM).model_dump()
    assert found == {**numbers("memit", SMOLLM), "rect_keep": 0.2}
    told = editors.carried_from("rect(memit)", "my-model", keep, SMOLLM)
    assert told is not None
    assert told.file == "memit/llama-2-7b.yaml"


def test_without_a_file_an_editor_of_ones_own_has_its_defaults_or_is_told_what_it_needs(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from editsafety import Editor, Hparams\n\n\nclass Given(Hparams):\n    lr: float\n    steps: int = 3\n\n\n"
        "class Mine(Editor):\n    Hparams = Given\n\n    def edit(self, requests, carry=None): ...\n"
    )
    name = f"{tmp_path / 'mine.py'}:Mine"
    assert editors.carried_from(name, "my-model", None, SMOLLM) is None
    with pytest.raises(UsageError, match=r"Give --hparams FILE with a line for lr\.$"):
        editors.read_hparams(name, "my-model", build=SMOLLM)


def test_nothing_is_carried_over_to_a_model_that_nothing_is_known_of() -> None:
    kind = editors.load("rome").Hparams
    assert carry_over(kind, "rome", "my-model", None) is None
    assert carry_over(hyperparameters.Hparams, "no-such-editor", "my-model", SMOLLM) is None
