"""Methods of an EasyEdit checkout: found in its own table, imported alone, called with its own hyperparameters.

The checkouts here are small ones in the layout of the real one; what of that runs is told in docs/editors.md.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from editsafety import editors, names
from editsafety.artifacts import ArtifactStore
from editsafety.edits.edit import LowRank
from editsafety.edits.session import EditSession
from editsafety.errors import UnknownNameError, UsageError
from editsafety.runs.plan import RunPlan
from editsafety.runs.settings import Settings
from tests import tiny

TABLE = """
from ..models.mine import MineHyperParams, apply_mine_to_model
from ..models.heavy import HeavyHyperParams, apply_heavy_to_model
from ..models.trained import TrainedHparams, TrainedExecutor

raise ImportError("the table is read and not run")
ALG_DICT = {'MINE': apply_mine_to_model, "HEAVY": apply_heavy_to_model, 'TRAINED': TrainedExecutor().apply_to_model}
"""
NUMBERS = """
from dataclasses import dataclass
from pathlib import Path
import yaml

@dataclass
class {name}:
    device: int
    alg_name: str
    size: float
    width: int = 3

    @classmethod
    def from_hparams(cls, path):
        return cls(**yaml.safe_load(Path(path).read_text()))
"""
METHOD = """
from .numbers import MineHyperParams
from ...util.size import times
import torch

def apply_mine_to_model(model, tok, requests, hparams, copy=False, return_orig_weights=False,
                        keep_original_weight=False, **kwargs):
    assert isinstance(hparams, MineHyperParams) and hparams.width == 3 and hparams.device == "cpu"
    assert not (copy or return_orig_weights or keep_original_weight)
    weight = model.get_parameter("transformer.h.1.mlp.c_proj.weight")
    with torch.no_grad():
        weight += times(hparams.size) * torch.ones(weight.shape[0])[:, None] * len(requests)
    return model, {}
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Path]:
    """A checkout with three methods; what is imported of it is forgotten afterwards."""
    files = {
        "__init__.py": "raise ImportError('everything is imported')",
        "models/__init__.py": "raise ImportError('every method is imported')",
        "util/__init__.py": "",
        "util/alg_dict.py": TABLE,
        "util/size.py": "def times(size):\n    return 2 * size\n",
        "models/mine/__init__.py": "from .numbers import MineHyperParams\nfrom .main import apply_mine_to_model\n",
        "models/mine/numbers.py": NUMBERS.format(name="MineHyperParams"),
        "models/mine/main.py": METHOD,
        "models/heavy/__init__.py": "import a_package_that_nobody_has.part\n",
        "models/trained/__init__.py": NUMBERS.format(name="TrainedHparams")
        + "\nclass TrainedExecutor:\n    def apply_to_model(self, model, tok, requests, hparams, copy=False):\n"
        "        return model, {}\n",
    }
    for name, text in files.items():
        path = tmp_path / "easyeditor" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "easyeditor"]:
        del sys.modules[name]


def test_a_method_is_imported_without_the_others_and_its_change_is_an_edit(checkout: Path, tmp_path: Path) -> None:
    numbers = tmp_path / "mine.yaml"
    numbers.write_text("alg_name: MINE\nsize: 0.25\ndevice: 0\n")
    handle = tiny.handle("gpt2")
    name = f"easyedit:MINE@{checkout}"
    editor = editors.make(name, handle, ArtifactStore(tmp_path), path=numbers)
    with EditSession(handle) as session:
        edit = editor.edit([tiny.request()])
    assert session.leftovers == ()
    (delta,) = edit.deltas
    assert isinstance(delta, LowRank)
    assert torch.allclose(delta.matrix(), torch.full_like(delta.matrix(), 0.5), atol=1e-6)
    assert edit.editor == names.label(name) == names.tag(name) == "easyedit-MINE"
    before = editors.code_version(name)
    (checkout / "easyeditor" / "util" / "size.py").write_text("def times(size):\n    return size\n")
    assert editors.code_version(name) != before


def test_a_method_of_a_class_is_made_and_called(checkout: Path, tmp_path: Path) -> None:
    numbers = tmp_path / "trained.yaml"
    numbers.write_text("alg_name: TRAINED\nsize: 1\ndevice: 0\n")
    editor = editors.make(f"easyedit:TRAINED@{checkout}", tiny.handle("gpt2"), ArtifactStore(tmp_path), path=numbers)
    assert editor.edit([tiny.request()]).deltas == ()


def test_what_is_missing_is_said_by_its_name(checkout: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"EasyEdit's HEAVY needs a_package_that_nobody_has, which is not installed"):
        editors.load(f"easyedit:HEAVY@{checkout}")
    with pytest.raises(UnknownNameError, match=r"no method of EasyEdit named 'MIEN'.*MINE"):
        editors.load(f"easyedit:MIEN@{checkout}")
    with pytest.raises(UsageError, match="holds no folder easyeditor"):
        editors.load(f"easyedit:MINE@{tmp_path / 'elsewhere'}")
    with pytest.raises(UsageError, match="takes hyperparameters and was given none"):
        editors.make(f"easyedit:MINE@{checkout}", tiny.handle("gpt2"), ArtifactStore(tmp_path))


def test_one_process_takes_methods_of_one_checkout_only(
    checkout: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    editors.load(f"easyedit:MINE@{checkout}")
    other = tmp_path_factory.mktemp("other")
    (other / "easyeditor").symlink_to(checkout / "easyeditor")
    with pytest.raises(UsageError, match="easyeditor is imported already, from"):
        editors.load(f"easyedit:MINE@{other}")


def test_the_folder_is_an_option_of_a_run(checkout: Path) -> None:
    given = Settings(("pocket-neo",), ("easyedit:MINE",), easyedit=str(checkout), limit=1)
    plan = RunPlan.of(given)
    assert plan.settings.editors == (f"easyedit:MINE@{checkout}",)
    assert plan.cases[0].id.startswith("pocket-neo-easyedit-MINE-")
    (checkout / "easyeditor" / "util" / "size.py").touch()
    before = plan.digest()
    (checkout / "easyeditor" / "util" / "size.py").write_text("def times(size):\n    return size\n")
    assert RunPlan.of(given).digest() != before
    with pytest.raises(UsageError, match=r"no checkout is given\. Say --easyedit FOLDER, or easyedit:MINE@FOLDER"):
        RunPlan.of(Settings(("pocket-neo",), ("easyedit:MINE",), limit=1))
    with pytest.raises(UsageError, match="no editor of this run is a method of EasyEdit"):
        RunPlan.of(Settings(("pocket-neo",), ("rome",), easyedit=str(checkout), limit=1))
