"""A program as an editor: what it leaves is its edit, what it does wrong is a sentence, and nothing stays behind."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from editsafety import editors
from editsafety.artifacts import ArtifactStore
from editsafety.edits.edit import Edit, LowRank, Replace
from editsafety.edits.session import EditSession
from editsafety.errors import EditorError, EditorTimeoutError, UsageError
from editsafety.lab.attempt import compute
from editsafety.model.handle import ModelHandle
from editsafety.outside.program import EARLIER, PATIENCE, ProgramEditor
from editsafety.outside.program_folder import ProgramFolder
from editsafety.runs.plan import RunPlan
from editsafety.runs.settings import Settings
from tests import tiny
from tests.outside.programs import WEIGHT, command

TENSORS = "save_file({WEIGHT: written()}, out / 'changed.safetensors')"
CHECKPOINT = "checkpoint({WEIGHT: written()})"


def made(name: str, handle: ModelHandle, place: Path, **more: Any) -> ProgramEditor:
    editor = editors.make(name, handle, ArtifactStore(place), **more)
    assert isinstance(editor, ProgramEditor)
    return editor


def run(body: str, place: Path, handle: ModelHandle | None = None, **more: Any) -> Edit:
    """The edit of a program that does `body`."""
    handle = handle or tiny.handle("gpt2")
    found = compute(handle, made(command(place, body), handle, place, **more), (tiny.request(),))
    assert found.leftovers == ()
    assert handle.fingerprint() == handle.identity
    return found.edit


@pytest.mark.parametrize("body", [TENSORS, CHECKPOINT], ids=["tensors", "checkpoint"])
def test_what_a_program_leaves_is_an_edit_in_factors(body: str, tmp_path: Path) -> None:
    handle = tiny.handle("gpt2")
    edit = run(body + "\nprint('first')\nprint('edited', rows[0]['target_new']['str'])", tmp_path, handle)
    (delta,) = edit.deltas
    assert isinstance(delta, LowRank)
    assert (delta.parameter, delta.left.shape[1]) == (WEIGHT, 1)
    assert (edit.editor, edit.made_for) == ("edit-py", handle.identity)
    assert edit.notes["exit status"] == 0
    assert edit.notes["last lines"] == f"first / edited {tiny.request().target_new}"
    # The same sum, by numpy here.
    import numpy as np

    draw = np.random.default_rng(0)
    before = handle.model.get_parameter(WEIGHT).detach().clone()
    outer = np.outer(draw.standard_normal(before.shape[0]), draw.standard_normal(before.shape[1]))
    with EditSession(handle) as session:
        session.apply(edit)
        now = handle.model.get_parameter(WEIGHT).detach()
        torch.testing.assert_close(now, before + 0.1 * torch.from_numpy(outer).float(), rtol=0, atol=1e-6)


def test_an_adapter_of_pefts_is_merged(tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="adapters need peft")
    body = """
module = "base_model.model.model.layers.1.mlp.gate_proj"
factors = {"A": draw.standard_normal((2, 32)), "B": draw.standard_normal((64, 2))}
save_file({f"{module}.lora_{name}.weight": one.astype("float32") for name, one in factors.items()},
          out / "adapter_model.safetensors")
config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 2, "lora_alpha": 4, "target_modules": ["gate_proj"],
          "layers_to_transform": [1], "inference_mode": True}
(out / "adapter_config.json").write_text(json.dumps(config))
"""
    (delta,) = run(body, tmp_path, tiny.handle("llama")).deltas
    assert isinstance(delta, LowRank)
    assert (delta.parameter, delta.left.shape[1]) == ("model.layers.1.mlp.gate_proj.weight", 2)


def test_a_saved_edit_is_taken_as_it_is_also_of_the_edited_model(tmp_path: Path) -> None:
    handle = tiny.handle("gpt2")
    first = Edit("other", (), handle.identity, (Replace(WEIGHT, handle.model.get_parameter(WEIGHT).detach() * 2),))
    with EditSession(handle) as session:
        session.apply(first)
        given = Edit("x", (), handle.fingerprint(), (Replace(WEIGHT, handle.model.get_parameter(WEIGHT).detach() * 3),))
        given.save(tmp_path / "given.safetensors")
        body = f"shutil.copy({str(tmp_path / 'given.safetensors')!r}, out)"
        edit = made(command(tmp_path, body), handle, tmp_path).edit([tiny.request()])
        session.apply(edit)
        assert torch.equal(handle.model.get_parameter(WEIGHT).detach(), given.deltas[0].value)  # type: ignore[union-attr]
    other = Edit("x", (), "0" * 64, given.deltas)
    other.save(tmp_path / "given.safetensors")
    with pytest.raises(EditorError, match="is an edit of a model with fingerprint 000000000000; what was given is"):
        run(body, tmp_path, handle)


def test_the_second_edit_of_a_sequence_is_made_on_the_model_that_holds_the_first(tmp_path: Path) -> None:
    handle = tiny.handle("gpt2")
    before = handle.model.get_parameter(WEIGHT).detach().clone()
    editor = made(
        command(tmp_path, "save_file({WEIGHT: weights[WEIGHT] * 2}, out / 'a.safetensors')"), handle, tmp_path
    )
    with EditSession(handle) as session:
        for _ in range(2):
            session.apply(editor.edit([tiny.request()]))
        assert torch.equal(handle.model.get_parameter(WEIGHT).detach(), 4 * before)


def test_the_model_is_written_once_for_each_state_of_its_weights(tmp_path: Path) -> None:
    handle = tiny.handle("gpt2")
    editor = made(command(tmp_path, "print(model.name)"), handle, tmp_path)
    double = Edit("other", (), handle.identity, (Replace(WEIGHT, handle.model.get_parameter(WEIGHT).detach() * 2),))
    said = [editor.edit([tiny.request()]).notes["last lines"] for _ in range(2)]
    with EditSession(handle) as session:
        session.apply(double)
        said.append(editor.edit([tiny.request()]).notes["last lines"])
    said.append(editor.edit([tiny.request()]).notes["last lines"])
    assert said == ["model-1", "model-1", "model-2", "model-1"]


def test_hyperparameters_seed_and_requests_are_handed_through(tmp_path: Path) -> None:
    yaml = tmp_path / "numbers.yaml"
    yaml.write_text("v_lr: 1.0e-05\nlayers: [1, 2]\nname: 1e-5 as text\n")
    name = command(
        tmp_path, "print(json.dumps([rows, Path(sys.argv[4]).read_text(), sys.argv[5]]))", more="{hparams} --s={seed}"
    )
    handle = tiny.handle("gpt2")
    said = str(made(name, handle, tmp_path, path=yaml, seed=7).edit([tiny.request()]).notes["last lines"])
    rows, numbers, seed = json.loads(said)
    assert (rows[0]["prompt"], rows[0]["target_new"]) == (tiny.request().prompt, {"str": tiny.request().target_new})
    assert json.loads(numbers) == {"v_lr": 1e-05, "layers": [1, 2], "name": "1e-5 as text"}
    assert "1.0e-05" in numbers  # a number to YAML 1.1 as well, which takes 1e-05 for text
    assert seed == "--s=7"
    with pytest.raises(UsageError, match=r"edit-py takes \{hparams\} and was given none"):
        editors.make(name, handle, ArtifactStore(tmp_path))
    with pytest.raises(UsageError, match="was given hyperparameters that it does not take"):
        editors.make(command(tmp_path, TENSORS), handle, ArtifactStore(tmp_path), path=yaml)


WRONG = {
    "exits": (
        "print('one')\nprint('no such layer')\nsys.exit(3)",
        "ended with exit status 3; its last lines: one / no such",
    ),
    "raises": ("raise KeyError('layer')", r"exit status 1; its last lines: Traceback.*KeyError: 'layer'"),
    "is killed": ("os.kill(os.getpid(), 11)", "was ended by SIGSEGV; it printed nothing"),
    "another shape": (
        "save_file({WEIGHT: written()[:8]}, out / 'a.safetensors')",
        r"c_proj.weight is \[8, 32\]; in the",
    ),
    "another name": ("save_file({'x': written()}, out / 'a.safetensors')", "holds 'x', and the model has no weight of"),
    "a cut file": ("(out / 'a.safetensors').write_bytes(b'x' * 9)", "a.safetensors: not a whole safetensors file"),
    "two files": (
        TENSORS + "\n" + TENSORS.replace("changed", "b"),
        "holds b.safetensors, changed.safetensors, expected",
    ),
    "pickled": ("(out / 'edited.pt').write_bytes(b'')", "Pickled weights are not loaded: save them as safetensors"),
    "the model itself": (
        "checkpoint({WEIGHT: written()}, model)",
        r"wrote into the model.*\(model.safetensors\).*save to",
    ),
    "another architecture": (
        CHECKPOINT + "\nconfig = json.loads((out / 'config.json').read_text())\nconfig['n_inner'] = 128\n"
        "(out / 'config.json').write_text(json.dumps(config))",
        r"cannot load '\{out\}': ",
    ),
    "another function": (
        CHECKPOINT
        + "\nconfig = json.loads((out / 'config.json').read_text())\nconfig['activation_function'] = 'relu'\n"
        "(out / 'config.json').write_text(json.dumps(config))",
        "computes something else than its weights do",
    ),
    "a stray memory": (CHECKPOINT + "\n(out / 'memory.npz').write_bytes(b'')", "has no place for.*memory.npz"),
}


@pytest.mark.parametrize(("body", "said"), WRONG.values(), ids=WRONG)
def test_what_a_program_does_wrong_is_an_error_of_its_case_in_a_sentence(body: str, said: str, tmp_path: Path) -> None:
    handle = tiny.handle("gpt2")
    editor = made(command(tmp_path, body), handle, tmp_path)
    with pytest.raises(EditorError, match=rf"(?s){said}"):
        compute(handle, editor, (tiny.request(),))
    assert handle.fingerprint() == handle.identity


def test_behind_a_program_that_wrote_into_the_model_the_next_one_gets_a_whole_one(tmp_path: Path) -> None:
    handle = tiny.handle("gpt2")
    body = f"""
flag = Path({str(tmp_path / "flag")!r})
checkpoint({{WEIGHT: written()}}, out if flag.exists() else model)
flag.touch()
"""
    editor = made(command(tmp_path, body), handle, tmp_path)
    with pytest.raises(EditorError, match="wrote into the model"):
        editor.edit([tiny.request()])
    (delta,) = editor.edit([tiny.request()]).deltas
    assert delta.parameter == WEIGHT
    after = delta.on(handle.model.get_parameter(WEIGHT).detach())
    assert float((after - handle.model.get_parameter(WEIGHT).detach()).abs().max()) < 1.0  # once, not twice


@pytest.mark.parametrize(
    ("body", "left"), [("pass", "nothing"), ("checkpoint({})", "what is the model already")], ids=["nothing", "a copy"]
)
def test_nothing_changed_is_an_edit_without_deltas_and_its_notes_say_so(body: str, left: str, tmp_path: Path) -> None:
    edit = run(body, tmp_path)
    assert edit.deltas == ()
    assert edit.notes["left"] == left


@pytest.mark.parametrize("body", ["save_file({WEIGHT: bad}, out / 'a.safetensors')", "checkpoint({WEIGHT: bad})"])
def test_numbers_that_are_not_finite_are_kept_to_be_found(body: str, tmp_path: Path) -> None:
    (delta,) = run("bad = written()\nbad[0, 0] = float('nan')\n" + body, tmp_path).deltas
    assert isinstance(delta, Replace)
    assert int(delta.value.isnan().sum()) == 1


def test_whatever_else_a_checkpoint_changes_is_in_the_edit(tmp_path: Path) -> None:
    norm = "transformer.h.0.ln_1.weight"
    edit = run(f"checkpoint({{WEIGHT: written(), {norm!r}: weights[{norm!r}] * 2}})", tmp_path)
    assert edit.parameters == (norm, WEIGHT)


def test_a_program_that_hangs_is_stopped_with_all_that_it_started(tmp_path: Path) -> None:
    body = f"""
import subprocess
child = subprocess.Popen(["sleep", "600"])
Path({str(tmp_path / "child")!r}).write_text(str(child.pid))
print("waiting", flush=True)
time.sleep(600)
"""
    with pytest.raises(EditorTimeoutError, match=r"the program did not end within .* s and was stopped; .*: waiting"):
        run(body, tmp_path, patience=4.0)
    assert not is_running(int((tmp_path / "child").read_text()))


def test_megabytes_of_output_are_read_and_only_their_end_is_kept(tmp_path: Path) -> None:
    body = "for i in range(200_000):\n    print('x' * 50, i)\n" + TENSORS
    said = str(run(body, tmp_path).notes["last lines"])
    assert said.endswith(" 199999")
    assert len(said) < 1000


def test_without_a_limit_of_the_run_a_program_has_ten_minutes_a_request_and_else_a_little_less_than_the_case(
    tmp_path: Path,
) -> None:
    editor = made(command(tmp_path, TENSORS), tiny.handle("gpt2"), tmp_path)
    assert editor._limit(3) == 3 * PATIENCE
    editor.patience = 100.0
    assert editor._limit(3) == EARLIER * 100.0
    editor.patience = 0
    assert editor._limit(3) is None


def test_nothing_is_left_on_the_disk_when_the_editor_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    handle = tiny.handle("gpt2")
    editor = made(command(tmp_path, TENSORS), handle, tmp_path)
    editor.edit([tiny.request()])
    (place,) = (tmp_path / "temporary").iterdir()
    assert [path.name for path in place.iterdir()] == ["model-1"]
    assert isinstance(editor._place, ProgramFolder)
    editor._place.close()
    assert list((tmp_path / "temporary").iterdir()) == []


def test_results_belong_to_the_command_line_and_to_the_files_that_it_names_and_imports(tmp_path: Path) -> None:
    (tmp_path / "formula.py").write_text("SIZE = 1\n")
    (tmp_path / "table.csv").write_text("1\n")
    name = command(tmp_path, "from formula import SIZE", more=str(tmp_path / "table.csv"))
    settings = Settings(("pocket-neo",), (name,), limit=1)
    seen = {(editors.code_version(name), RunPlan.of(settings).digest())}
    for file, text in (("formula.py", "SIZE = 2\n"), ("table.csv", "2\n"), ("edit.py", "pass\n")):
        (tmp_path / file).write_text(text)
        seen.add((editors.code_version(name), RunPlan.of(settings).digest()))
    assert len({code for code, _ in seen}) == len({plan for _, plan in seen}) == 4
    case = RunPlan.of(settings).cases[0]
    assert case.id.startswith("pocket-neo-edit-py-")


def is_running(process: int) -> bool:
    """Whether a process runs; one that has ended and was not waited for does not."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{process}/stat")
    return not (state.exists() and state.read_text().rpartition(")")[2].split()[0] == "Z")


def test_a_copy_of_the_editors_class_names_its_own_line(tmp_path: Path) -> None:
    first = editors.load(command(tmp_path, "pass"))
    second = editors.load(command(tmp_path, "pass", name="other.py"))
    assert copy.copy(first).line != second.line  # type: ignore[attr-defined]
