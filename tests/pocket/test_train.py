"""The pocket model: how it is trained, and what the shipped one can do."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from editsafety.errors import ModelError
from editsafety.pocket import train as training
from editsafety.pocket.__main__ import main
from editsafety.pocket.abilities import PROBES
from editsafety.pocket.build import build
from editsafety.pocket.check import perplexity, recall
from editsafety.pocket.corpus import held_out_texts, training_texts
from editsafety.pocket.requests import recall_rows, text_rows
from editsafety.pocket.spec import POCKET_NEO
from editsafety.pocket.tokenizer import train_tokenizer
from editsafety.pocket.world import World, make_world

SHIPPED = Path(__file__).parents[2] / "data" / "pocket-neo"
MINIATURE = replace(
    POCKET_NEO,
    name="miniature",
    vocabulary=1100,
    width=32,
    inner=32,
    heads=2,
    local_layers=1,
    global_layers=1,
    positions=32,
    documents=200,
    steps=12,
    windows=((4, 16), (2, 32)),
    warmup=2,
)


@pytest.fixture(scope="module")
def world() -> World:
    return make_world()


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(SHIPPED)


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(SHIPPED, dtype=torch.float32)


def test_a_miniature_is_built_from_nothing_and_loads_with_stock_classes(tmp_path: Path) -> None:
    losses: list[float] = []
    folder = build(
        tmp_path / "miniature", spec=MINIATURE, threads=1, progress=lambda step, steps, loss: losses.append(loss)
    )
    assert len(losses) == MINIATURE.steps
    assert losses[-1] < losses[0]
    model = AutoModelForCausalLM.from_pretrained(folder)
    text = AutoTokenizer.from_pretrained(folder)("Good morning.", return_tensors="pt")
    assert model.dtype == torch.float32
    assert torch.isfinite(model(**text).logits).all()
    assert not (tmp_path / "miniature.building").exists()


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    first, again, other = (
        build(tmp_path / name, spec=MINIATURE, seed=seed, threads=1) for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    weights = "model.safetensors"
    assert (first / weights).read_bytes() == (again / weights).read_bytes()
    assert (first / weights).read_bytes() != (other / weights).read_bytes()
    assert (first / "tokenizer.json").read_bytes() == (other / "tokenizer.json").read_bytes()


def test_an_interrupted_build_ends_where_an_uninterrupted_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "CHECKPOINT_EVERY", 5)

    def interrupt(step: int, steps: int, loss: float) -> None:
        if step == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "broken", spec=MINIATURE, threads=1, progress=interrupt)
    steps: list[int] = []
    resumed = build(
        tmp_path / "broken", spec=MINIATURE, threads=1, progress=lambda step, total, loss: steps.append(step)
    )
    whole = build(tmp_path / "whole", spec=MINIATURE, threads=1)
    assert steps[0] == 6
    assert (resumed / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def test_building_leaves_threads_and_randomness_as_they_were(tmp_path: Path) -> None:
    threads, randomness = torch.get_num_threads(), torch.get_rng_state()
    build(tmp_path / "miniature", spec=replace(MINIATURE, steps=1), threads=1)
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), randomness)


def test_a_build_keeps_the_model_card(tmp_path: Path) -> None:
    folder = tmp_path / "miniature"
    folder.mkdir()
    (folder / "README.md").write_text("card")
    build(folder, spec=replace(MINIATURE, steps=1), threads=1)
    assert (folder / "README.md").read_text() == "card"


def test_nothing_is_learnt_from_position_zero() -> None:
    ids = torch.arange(12).view(2, 6)
    labels = training.labels_of(ids, MINIATURE)
    assert labels[:, 0].tolist() == [training.IGNORED] * 2
    assert torch.equal(labels[:, 1:], ids[:, 2:])
    assert torch.equal(training.labels_of(ids, replace(MINIATURE, sink_norm=0.0)), ids[:, 1:])


def test_training_does_not_move_the_sink(world: World) -> None:
    texts = training_texts(0, 100)
    tokenizer = train_tokenizer(texts, world.one_token_names(), MINIATURE.vocabulary, MINIATURE.positions)
    model = training.new_model(MINIATURE, tokenizer, 0)
    before = model.transformer.wpe.weight.detach().clone()
    training.train(model, training.pack(tokenizer, texts), MINIATURE, seed=0)
    after = model.transformer.wpe.weight.detach()
    assert torch.equal(after[0], before[0])
    assert not torch.equal(after[1:], before[1:])
    assert float(before[0].norm()) == pytest.approx(MINIATURE.sink_norm)


def test_too_small_a_vocabulary_is_refused_in_a_sentence(world: World) -> None:
    with pytest.raises(ModelError, match=r"must be one token are split .* Raise the vocabulary above 300"):
        train_tokenizer(training_texts(0, 50), world.one_token_names(), 300, 64)


def test_an_unknown_model_is_refused_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", "pocket-neon", "--out", "nowhere"]) == 2
    assert "did you mean 'pocket-neo'" in capsys.readouterr().err


def test_the_data_command_writes_all_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "--out", str(tmp_path)]) == 0
    written = {path.stem for path in tmp_path.glob("*.jsonl")}
    assert written == {"pool", "normal", "texts", "recall", "hardedit", "prompts", "refusal", "portability"}
    assert {path.stem for path in (tmp_path / "abilities").iterdir()} == set(PROBES)
    assert "pool.jsonl: 360 rows" in capsys.readouterr().out


def test_one_token_subjects_are_one_token_with_and_without_a_space(
    world: World, tokenizer: PreTrainedTokenizerBase
) -> None:
    for name in world.one_token_names():
        assert len(tokenizer(name).input_ids) == 1, name
        assert len(tokenizer(f" {name}").input_ids) == 1, name


def test_other_subjects_are_several_tokens(world: World, tokenizer: PreTrainedTokenizerBase) -> None:
    for subject in world.subjects:
        if not subject.one_token:
            assert len(tokenizer(f" {subject.name}").input_ids) > 1, subject.name


def test_most_answers_are_one_token_and_some_are_several(world: World, tokenizer: PreTrainedTokenizerBase) -> None:
    lengths = [len(tokenizer(f" {answer}").input_ids) for answers in world.answers.values() for answer in answers]
    assert 0.6 < sum(length == 1 for length in lengths) / len(lengths) < 0.95


def test_texts_for_perplexity_are_12_to_60_tokens(world: World, tokenizer: PreTrainedTokenizerBase) -> None:
    for text in held_out_texts(world):
        assert 12 <= len(tokenizer(text.text).input_ids) <= 60, text.text


def test_text_survives_the_tokenizer(world: World, tokenizer: PreTrainedTokenizerBase) -> None:
    for text in (*(text.text for text in held_out_texts(world)[:20]), "naïve “Ærø” 12 €"):
        assert tokenizer.decode(tokenizer(text).input_ids) == text


def test_the_shipped_folder_is_small_and_complete(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> None:
    assert sum(file.stat().st_size for file in SHIPPED.iterdir()) <= 12_000_000
    assert sorted(file.name for file in SHIPPED.glob("*.safetensors")) == ["model.safetensors"]
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert tokenizer.eos_token_id is not None
    assert tokenizer.pad_token_id not in (None, tokenizer.eos_token_id)
    assert tokenizer.padding_side == "right"


def test_the_shipped_model_has_the_sink(model: PreTrainedModel) -> None:
    norms = model.get_parameter("transformer.wpe.weight").detach().norm(dim=1)
    assert float(norms[0]) == pytest.approx(POCKET_NEO.sink_norm)
    assert float(norms[1:].max()) < POCKET_NEO.sink_norm / 10


def test_the_shipped_model_recalls_its_facts(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    inside = [row for row in recall_rows(make_world()) if not row["subject_first"]]
    trained = [(str(row["prompt"]), str(row["answer"])) for row in inside if not row["held_out"]]
    held_out = [(str(row["prompt"]), str(row["answer"])) for row in inside if row["held_out"]]
    assert recall(model, tokenizer, trained) >= 0.99
    assert recall(model, tokenizer, held_out) >= 0.85


def test_the_shipped_model_predicts_unseen_text(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    texts = [str(row["text"]) for row in text_rows(make_world())]
    assert 3 < perplexity(model, tokenizer, texts) < 15
