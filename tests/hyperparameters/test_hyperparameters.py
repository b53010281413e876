"""Hyperparameters: read safely, checked strictly, found by model."""

from __future__ import annotations

from pathlib import Path

import pytest

from editsafety import hyperparameters
from editsafety.errors import UsageError
from editsafety.hyperparameters import Hparams


class Numbers(Hparams):
    """An editor's numbers, for these tests."""

    layer: int
    lr: float = 0.1
    layers: tuple[int, ...] = ()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "numbers.yaml"


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A shipped `hparams` folder with one editor in it."""
    monkeypatch.setattr(hyperparameters, "shipped", lambda room: tmp_path / room)
    place = tmp_path / "hparams" / "mine"
    place.mkdir(parents=True)
    return place


def load(file: Path) -> Numbers:
    return hyperparameters.load(Numbers, "mine", "mine", "gpt2", file)


def test_numbers_are_read_with_their_types(file: Path) -> None:
    file.write_text("layer: 5  # Meng et al. 2022, section 3\nlr: 5e-1\nlayers: [3, 4]\n")
    assert load(file) == Numbers(layer=5, lr=0.5, layers=(3, 4))


def test_a_number_that_yaml_takes_for_text_is_still_a_number(file: Path) -> None:
    """YAML 1.1 reads 5e-4 (no dot) as text; so it is in half of the published files."""
    file.write_text("layer: 5\nlr: 5e-4\n")
    assert load(file).lr == 0.0005


def test_json_is_read_too(file: Path) -> None:
    file.write_text('{"layer": 5, "lr": 0.25}')
    assert load(file) == Numbers(layer=5, lr=0.25)


def test_the_list_of_models_is_no_number(file: Path) -> None:
    file.write_text("models: [gpt2, gpt2-xl]\nlayer: 5\n")
    assert load(file) == Numbers(layer=5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("layer: 5\nlayerz: 6\n", r"unknown hyperparameter 'layerz'\. Known: layer, layers, lr"),
        ("lr: 0.5\n", "hyperparameter 'layer' is missing"),
        ("layer: five\n", "layer = 'five': input should be a valid integer"),
        ("layer: 5.5\n", "layer = 5.5"),
        ("layer: 5\nlr: .nan\n", "lr = nan: input should be a finite number"),
        ("layer: 5\nlr: .inf\n", "lr = inf"),
        ("layer: 5\nlayers: [3, x]\n", r"layers.1 = 'x'"),
        ("layer: 5\n7: 8\n", "unknown hyperparameter '7'"),
        ("- 1\n- 2\n", "expected 'name: number' lines, found list"),
        ("", "expected 'name: number' lines, found NoneType"),
        ("layer: [1\n", "cannot be read as YAML or JSON"),
        ("layer: !!python/object/apply:os.system ['touch code-was-run']\n", "cannot be read as YAML"),
        ("layer: !!python/name:os.system\n", "cannot be read as YAML"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_file_and_key(
    file: Path, text: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(file.parent)
    file.write_text(text)
    with pytest.raises(UsageError, match=message) as caught:
        load(file)
    assert str(file) in str(caught.value)
    assert list(file.parent.iterdir()) == [file]  # no code was run


def test_files_that_cannot_be_read_are_refused_by_name(file: Path) -> None:
    with pytest.raises(UsageError, match="there is no such hyperparameter file"):
        load(file)
    file.write_bytes(b"layer: \xff\xfe\n")
    with pytest.raises(UsageError, match="cannot be read as YAML"):
        load(file)
    with pytest.raises(UsageError, match="cannot be read"):
        load(file.parent)


def test_hyperparameters_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Numbers(layer=1).layer = 2


def test_a_shipped_file_is_found_by_its_name_or_by_its_list_of_models(shelf: Path) -> None:
    (shelf / "gpt2.yaml").write_text("layer: 1\n")
    (shelf / "llamas.yaml").write_text("models: [Llama-2-7B, llama-3-8b]\nlayer: 2\n")
    (shelf / "nobody.yaml").write_text("models:\nlayer: 3\n")
    for slug, layer in (("gpt2", 1), ("llama-2-7b", 2), ("llama-3-8b", 2)):
        assert hyperparameters.load(Numbers, "mine", "mine", slug).layer == layer


def test_a_model_without_a_file_is_refused_with_the_models_that_have_one(shelf: Path) -> None:
    (shelf / "gpt2.yaml").write_text("layer: 1\n")
    (shelf / "gptj.yaml").write_text("layer: 1\n")
    with pytest.raises(
        UsageError, match=r"of mine for opt \(shipped are those for: gpt2, gptj\).* Give .* a line for layer\."
    ):
        hyperparameters.load(Numbers, "mine", "mine", "opt")


def test_an_editor_whose_numbers_all_have_defaults_needs_no_file(shelf: Path) -> None:
    class Free(Hparams):
        lr: float = 0.5

    assert hyperparameters.load(Free, "mine", "mine", "opt").lr == 0.5


def test_a_broken_file_of_another_model_is_named_rather_than_skipped(shelf: Path) -> None:
    (shelf / "broken.yaml").write_text("models: [1\n")
    with pytest.raises(UsageError, match=r"broken.yaml: cannot be read"):
        hyperparameters.load(Numbers, "mine", "mine", "opt")
