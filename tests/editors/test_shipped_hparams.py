"""The shipped hyperparameters: every file can be read by its editors, every number says where it comes from."""

from pathlib import Path

import pytest

from editsafety import editors
from editsafety.shipped import shipped

FILES = sorted(shipped("hparams").glob("*/*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_editor_of_a_folder_accepts_its_files(path: Path) -> None:
    users = [name for name in editors.names() if (editors.load(name).folder or name) == path.parent.name]
    assert users, f"no editor reads hparams/{path.parent.name}"
    for name in users:
        editors.read_hparams(name, path.stem)


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_number_names_its_source(path: Path) -> None:
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.startswith(("#", "models:", " ", "-")):
            assert "  # " in line, f"{path.name}: {line!r} has no source"


def test_a_hub_name_finds_the_file_of_its_model() -> None:
    assert editors.read_hparams("rome", "llama-2-7b-hf") == editors.read_hparams("rome", "llama-2-7b")


def test_the_variants_of_rome_read_one_file_and_differ_in_their_keys() -> None:
    found = {
        name: editors.read_hparams(name, "gpt2-xl").model_dump() for name in ("rome", "c_rome", "r_rome", "p_rome")
    }
    assert [values.pop("keys") for values in found.values()] == ["mixed", "prefixed", "prefixed", "prompt"]
    assert len({str(values) for values in found.values()}) == 1
