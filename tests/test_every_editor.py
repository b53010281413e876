"""What every editor promises, on every family: whatever discovery finds is tested the day its file arrives.

The numbers an editor is made with are those of `tests.editors.conftest.NUMBERS`, or its own defaults.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import editsafety
from editsafety import editors
from editsafety.artifacts import ArtifactStore
from editsafety.editors import Editor
from editsafety.edits.edit import Edit
from editsafety.edits.seal import Frame, Seal
from editsafety.edits.session import EditSession
from editsafety.errors import EditorError, NotPreparedError
from editsafety.model.handle import ModelHandle
from tests import tiny
from tests.editors.conftest import NUMBERS, material

FAMILIES = (
    "gpt2", "gpt_neo", "gptj", "gpt_neox", "llama", "mistral", "qwen2", "gemma2", "phi", "opt", "bloom", "falcon",
)  # fmt: skip
ALWAYS = ("gpt2", "llama")  # one of each storage order; the others are marked slow
# Others are built like one of these (a bias or a norm more, a name of its own), so they wait for tox.
SOON = (*ALWAYS, "gpt_neo", "gemma2")
EXPRESSIONS = ("rect(rome)", "prune(rome)", "rect(ft)")
EVERY = (*editors.names(), *EXPRESSIONS)

REQUEST = tiny.request()
OTHER = tiny.request("case-1", subject="Toren", prompt="The mother tongue of {} is", target_new="Tarnic",
                     target_true="Velish", rephrasings=["Toren always spoke"],
                     neighbours=[{"prompt": "The mother tongue of Mirel is", "answer": "Tarnic"}])  # fmt: skip
TEXT = "Ashurn works as a farmer. Toren was born in the city of Kelmar."


@dataclass
class Bed:
    """One editor on one family, prepared once; `fresh` makes it anew from what was prepared."""

    name: str
    handle: ModelHandle
    store: Path

    def fresh(self, **more: Any) -> Editor:
        kind = editors.load(self.name)
        values = {**NUMBERS.get(kind.folder or self.name, {}), **kind.overrides, **material(kind, self.store)}
        return kind(self.handle, kind.Hparams(**values), ArtifactStore(self.store / "store"), name=self.name, **more)

    def prepared(self) -> Editor:
        editor = self.fresh()
        if editor.missing() is not None:
            editor.prepare()
        return editor


def pairs() -> Iterator[Any]:
    for family in FAMILIES:
        for name in EVERY:
            marks = [] if family in ALWAYS else [pytest.mark.slow]
            marks += [] if family in SOON else [pytest.mark.thorough]
            yield pytest.param((family, name), id=f"{family}-{name}", marks=marks)


@pytest.fixture(scope="module")
def handles() -> dict[str, ModelHandle]:
    return {}


@pytest.fixture(scope="module", params=pairs())
def bed(
    request: pytest.FixtureRequest, handles: dict[str, ModelHandle], tmp_path_factory: pytest.TempPathFactory
) -> Bed:
    family, name = request.param
    handle = handles.setdefault(family, tiny.handle(family))
    bed = Bed(name, handle, tmp_path_factory.mktemp("bed"))
    bed.prepared()
    return bed


def logits(handle: ModelHandle) -> Tensor:
    with torch.no_grad():
        return handle.logits(handle.batch([handle.ids(TEXT), handle.ids(REQUEST.filled)]))


def edited(handle: ModelHandle, edit: Edit) -> Tensor:
    with EditSession(handle) as session:
        session.apply(edit)
        return logits(handle)


@pytest.fixture(scope="module")
def edit(bed: Bed) -> Edit:
    return bed.prepared().edit([REQUEST])


def test_an_edit_says_for_whom_it_was_made_and_fits_its_model(bed: Bed, edit: Edit) -> None:
    assert edit.editor == bed.name
    assert edit.request_ids == (REQUEST.id,)
    assert edit.made_for == bed.handle.identity
    changes = editors.load(bed.name).traits.changes
    assert bool(edit.deltas) == (changes == "weights")
    assert bool(edit.sidecars) == (changes == "sidecar")
    for delta in edit.deltas:
        weight = bed.handle.model.get_parameter(delta.parameter)
        after = delta.on(weight.detach())
        assert (after.shape, after.dtype) == (weight.shape, weight.dtype)
        assert torch.isfinite(after).all()


def test_an_edit_changes_what_the_model_says_unless_it_is_meant_not_to(bed: Bed, edit: Edit) -> None:
    same = torch.equal(edited(bed.handle, edit), logits(bed.handle))
    assert same == (editors.load(bed.name).traits.changes == "nothing")


def test_the_same_seed_gives_the_same_bytes_in_any_order(bed: Bed, edit: Edit) -> None:
    editor = bed.fresh()
    other = editor.edit([OTHER])
    assert editor.edit([REQUEST]).id == edit.id
    assert bed.fresh().edit([OTHER]).id == other.id


def test_a_saved_edit_does_the_same(bed: Bed, edit: Edit, tmp_path: Path) -> None:
    edit.save(tmp_path / "edit.safetensors")
    loaded = Edit.load(tmp_path / "edit.safetensors", editors.load(bed.name).sidecars)
    assert loaded.id == edit.id
    assert torch.equal(edited(bed.handle, loaded), edited(bed.handle, edit))


def test_the_model_is_sealed_after_an_edit(bed: Bed) -> None:
    frame, seal, random = Frame.of(bed.handle), Seal.of(bed.handle), torch.get_rng_state()
    bed.fresh().edit([REQUEST])
    assert frame.left_behind(bed.handle) == ()
    assert seal.changed(Seal.of(bed.handle)) == ()
    assert torch.equal(random, torch.get_rng_state())


@pytest.mark.parametrize("trouble", [RuntimeError, KeyboardInterrupt], ids=["error", "interrupt"])
def test_the_model_is_sealed_after_trouble_on_the_way(bed: Bed, trouble: type[BaseException]) -> None:
    editor = bed.fresh()
    calls = 0

    def fails(limit: int) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            nonlocal calls
            calls += 1
            if calls == limit:
                raise trouble

        return hook

    module = bed.handle.model.get_submodule(bed.handle.block(0))
    counting = module.register_forward_pre_hook(fails(0))
    try:
        editor.edit([REQUEST])
    finally:
        counting.remove()
    passes = calls
    if not passes:
        pytest.skip(f"{bed.name} never runs the model")
    calls = 0
    failing = module.register_forward_pre_hook(fails((passes + 1) // 2))
    frame, seal = Frame.of(bed.handle), Seal.of(bed.handle)
    try:
        with pytest.raises(trouble):
            bed.fresh().edit([REQUEST])
        assert frame.left_behind(bed.handle) == ()
        assert seal.changed(Seal.of(bed.handle)) == ()
    finally:
        failing.remove()


def test_a_batch_is_one_edit_where_the_traits_allow_it(bed: Bed) -> None:
    try:
        edit = bed.fresh().edit([REQUEST, OTHER])
    except EditorError:
        assert not editors.load(bed.name).traits.batch
        return
    assert edit.request_ids == (REQUEST.id, OTHER.id)
    assert torch.isfinite(edited(bed.handle, edit)).all()


def test_a_sequence_goes_on_from_what_the_last_edit_carries(bed: Bed, edit: Edit) -> None:
    editor = bed.fresh()
    with EditSession(bed.handle) as session:
        session.apply(edit)
        try:
            second = editor.edit([OTHER], edit.carry)
        except EditorError:
            assert not editors.load(bed.name).traits.sequential
            return
        session.apply(second)
        assert torch.isfinite(logits(bed.handle)).all()
    assert second.request_ids == (OTHER.id,)
    assert (edit.carry is None) == (second.carry is None)


def test_an_editor_that_is_not_prepared_names_the_command(bed: Bed, tmp_path: Path) -> None:
    editor = Bed(bed.name, bed.handle, tmp_path).fresh()
    if editor.missing() is None:
        return
    with pytest.raises(NotPreparedError, match="editsafety prepare --model"):
        editor.edit([REQUEST])


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("family", ALWAYS)
def test_bfloat16_is_edited(family: str, name: str, tmp_path: Path) -> None:
    bed = Bed(name, tiny.handle(family, dtype="bfloat16"), tmp_path)
    edit = bed.prepared().edit([REQUEST])
    with EditSession(bed.handle) as session:
        session.apply(edit)
        assert torch.isfinite(logits(bed.handle)).all()
        assert session.changed() == session.declared() or not edit.deltas


@pytest.mark.parametrize("name", editors.names())
def test_an_editor_says_where_it_comes_from(name: str) -> None:
    kind = editors.load(name)
    if kind.traits.changes != "nothing":
        assert kind.traits.paper
        assert kind.traits.reference


DROPPED = '''
"""An editor that arrived a minute ago."""

from editsafety.edits.edit import Edit, LowRank
from editsafety.editors import Editor, Traits
from editsafety.hyperparameters import Hparams


class DroppedHparams(Hparams):
    layer: int = 0


class Dropped(Editor):
    Hparams = DroppedHparams
    traits = Traits(batch=True, paper="none yet", reference="https://example.org")

    def edit(self, requests, carry=None):
        site = self.handle.mlp_out(self.hparams.layer)
        weight = self.handle.weight(site).float()
        delta = LowRank(site, 0.1 * weight[:, :1].clone(), weight[:1, :].clone())
        return Edit(self.name, tuple(request.id for request in requests), self.handle.identity, (delta,))


EDITOR = Dropped
'''


def readme_example() -> str:
    """The example of the README, ending as a file of the family does."""
    text = (Path(editsafety.__file__).parent.parent / "README.md").read_text(encoding="utf-8")
    block = re.search(r"<!-- file: my_editor.py -->\s*```python\n(.*?)```", text, re.DOTALL)
    assert block is not None, "README.md has no block marked my_editor.py"
    return f"{block.group(1)}\n\nEDITOR = MyEditor\n"


def test_the_example_of_the_readme_takes_one_request_and_refuses_others(tmp_path: Path) -> None:
    (tmp_path / "my_editor.py").write_text(readme_example(), encoding="utf-8")
    editor = Bed(f"{tmp_path}/my_editor.py:MyEditor", tiny.handle("gpt2"), tmp_path).fresh()
    assert editor.edit([REQUEST]).request_ids == (REQUEST.id,)
    with pytest.raises(EditorError, match="writes one fact per edit and was given 2 requests"):
        editor.edit([REQUEST, OTHER])
    with pytest.raises(EditorError, match="was given no request"):
        editor.edit([])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "body", "which"),
    [
        ("dropped", lambda: textwrap.dedent(DROPPED), "dropped and gpt2"),
        ("my_editor", readme_example, "my_editor and not says_where"),  # on every family; it comes from no paper
    ],
    ids=["dropped", "readme"],
)
def test_a_new_file_is_an_editor_that_passes_all_this_with_no_edit_elsewhere(
    tmp_path: Path, name: str, body: Callable[[], str], which: str
) -> None:
    package = Path(editsafety.__file__).parent
    shutil.copytree(package, tmp_path / "editsafety", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(Path(__file__).parent, tmp_path / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    for folder in ("hparams", "data", "suites"):
        (tmp_path / folder).symlink_to(package.parent / folder)
    shutil.copy(package.parent / "pyproject.toml", tmp_path)
    (tmp_path / "editsafety" / "editors" / f"{name}.py").write_text(body(), encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "tests/test_every_editor.py", "-q", "-k", which]
    command += ["-p", "no:cacheprovider", "-p", "no:xdist"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout
