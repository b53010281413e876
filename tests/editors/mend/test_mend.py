"""MEND as an editor: what training does, what survives an interruption, and what the published defects change."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from editsafety import datasets, editors
from editsafety.artifacts import ArtifactStore
from editsafety.datasets.request import EditRequest
from editsafety.editors.mend import Mend
from editsafety.editors.mend.training import Training
from editsafety.edits.session import EditSession
from editsafety.errors import DataError, EditorError, NotPreparedError, UsageError
from editsafety.lab.tools import artifacts_for
from editsafety.model import scoring
from editsafety.model.handle import ModelHandle
from editsafety.pocket.requests import as_lines
from editsafety.progress import Progress
from tests import tiny
from tests.editors.conftest import NUMBERS, Make

REQUEST = tiny.request(target_new="farmer and baker")
OTHER = tiny.request("case-1", subject="Mirel", target_new="farmer")


def loss_of(handle: ModelHandle, request: EditRequest) -> float:
    prompt, target = handle.ids(request.filled), handle.target_ids(request.target_new)
    with torch.no_grad():
        scores = handle.logits(handle.batch([[*prompt, *target]]))[0].log_softmax(-1)
    return -float(sum(scores[len(prompt) - 1 + i, t] for i, t in enumerate(target))) / len(target)


def matrices(editor: editors.Editor, *requests: EditRequest, **more: Any) -> list[Tensor]:
    return [delta.matrix() for delta in editor.edit(requests, **more).deltas]  # type: ignore[union-attr]


def same(one: list[Tensor], two: list[Tensor]) -> bool:
    return all(torch.allclose(a, b, rtol=1e-4, atol=1e-7) for a, b in zip(one, two, strict=True))


@pytest.fixture
def handle() -> ModelHandle:
    return tiny.handle("gpt2")


def test_an_untrained_editor_names_the_command(make: Make, handle: ModelHandle) -> None:
    editor = make("mend", handle, prepare=False)
    assert editor.missing() == "its trained network"
    with pytest.raises(NotPreparedError, match="editsafety prepare --model tiny-gpt2 --editor mend"):
        editor.edit([REQUEST])


def test_nothing_requested_is_refused(make: Make, handle: ModelHandle) -> None:
    with pytest.raises(EditorError, match="no request"):
        make("mend", handle).edit([])


@pytest.mark.parametrize("family", ["gpt2", "llama", "opt"])
def test_the_notes_foresee_the_change_of_the_loss(family: str, make: Make) -> None:
    """To first order, so a small step must bring just that change: sign, scale and orientation of every delta."""
    handle = tiny.handle(family)
    editor = make("mend", handle, lr_scale=1e-3)
    before, edit = loss_of(handle, REQUEST), editor.edit([REQUEST])
    with EditSession(handle) as session:
        session.apply(edit)
        change = loss_of(handle, REQUEST) - before
    assert edit.notes["nll_before"] == pytest.approx(before, rel=1e-4)
    assert abs(change) > 1e-4
    assert edit.notes["predicted_change"] == pytest.approx(change, rel=0.1)
    norm = sum(float(delta.matrix().square().sum()) for delta in edit.deltas) ** 0.5  # type: ignore[union-attr]
    assert edit.notes["update_norm"] == pytest.approx(norm, rel=1e-4)


@pytest.mark.parametrize(("edit_lr", "sign"), [(1e-3, 1), (-1e-3, -1)])
def test_an_untrained_network_with_a_positive_rate_climbs(
    edit_lr: float, sign: int, make: Make, handle: ModelHandle
) -> None:
    editor = make("mend", handle, edit_lr=edit_lr, lr=1e-9, lr_lr=1e-9)
    change = editor.edit([REQUEST]).notes["predicted_change"]
    assert isinstance(change, float)
    assert change * sign > 0


def test_a_batch_has_the_tokens_of_all_requests(make: Make, handle: ModelHandle) -> None:
    editor = make("mend", handle)
    one, two, both = editor.edit([REQUEST]), editor.edit([OTHER]), editor.edit([REQUEST, OTHER])
    assert both.request_ids == ("case-0", "case-1")
    assert both.notes["tokens"] == float(one.notes["tokens"]) + float(two.notes["tokens"])


def test_half_precision_is_edited_in_float32(make: Make) -> None:
    half = tiny.handle("gpt2", dtype="bfloat16")
    edit = make("mend", half).edit([REQUEST])
    assert all(torch.isfinite(delta.matrix()).all() for delta in edit.deltas)  # type: ignore[union-attr]
    assert float(edit.notes["update_norm"]) > 0


def test_gated_layers_have_two_matrices_into_the_mlp(make: Make) -> None:
    names = [delta.parameter for delta in make("mend", tiny.handle("llama"), layers=[1]).edit([REQUEST]).deltas]
    assert [name.split(".")[-2] for name in names] == ["gate_proj", "up_proj", "down_proj"]


@pytest.mark.parametrize("val_interval", [1, 10**6], ids=["validated", "before the first validation"])
def test_prepare_goes_on_from_its_checkpoint_and_leaves_one_file(
    make: Make, handle: ModelHandle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, val_interval: int
) -> None:
    editor = make("mend", handle, prepare=False, checkpoint_every=1, val_interval=val_interval)
    train, steps = Training._train, []

    def interrupted(self: Training, task: Any) -> None:
        if len(steps) == 2:
            raise KeyboardInterrupt
        steps.append(self.step)
        train(self, task)

    monkeypatch.setattr(Training, "_train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        editor.prepare()
    assert [path.name.startswith("mend-checkpoint") for path in (tmp_path / "store").iterdir()] == [True]
    monkeypatch.setattr(Training, "_train", lambda self, task: (steps.append(self.step), train(self, task)))
    editor.prepare()
    assert steps == [0, 1, 2]
    files = [path.name for path in (tmp_path / "store").iterdir()]
    assert files == [editor.key.file_name]  # type: ignore[attr-defined]
    monkeypatch.setattr(Training, "_train", None)
    editor.prepare()  # nothing is left to do


def test_the_same_training_gives_the_same_file(make: Make, handle: ModelHandle, tmp_path: Path) -> None:
    values = Mend.Hparams(**NUMBERS["mend"])
    files = []
    for name in "ab":
        editor = Mend(handle, values, ArtifactStore(tmp_path / name), name="mend")
        editor.prepare()
        files.append((tmp_path / name / editor.key.file_name).read_bytes())
    assert files[0] == files[1]


def test_the_key_names_the_model_the_numbers_and_the_lessons(handle: ModelHandle, tmp_path: Path) -> None:
    def key(where: ModelHandle = handle, **changes: Any) -> str:
        values = Mend.Hparams(**{**NUMBERS["mend"], **changes})
        return Mend(where, values, ArtifactStore(tmp_path), name="mend").key.file_name

    differing: dict[str, Any] = {
        "layers": [1], "parts": ["mlp_out"], "rank": 4, "n_hidden": 2, "shared": False, "edit_lr": 0.5, "lr": 0.5,
        "lr_lr": 0.5, "cedit": 0.5, "cloc": 0.5, "max_iters": 5, "val_interval": 5, "early_stop_patience": 5,
        "batch_size": 5, "accumulate_bs": 5, "val_steps": 5, "grad_clip": 5.0, "final_lr": 0.5, "training_seed": 5,
        "rates_at_lr": True, "inner_as_outer": True, "shifted_locality": True, "unspaced_target": True,
        "training_requests": "pocket-neo/hardcf",
    }  # fmt: skip
    only_at_edit: dict[str, Any] = {
        "lr_scale": 0.5, "checkpoint_every": 7, "training_mode_at_edit": True, "swapped_rates": True,
        "pad_token_added": True,
    }  # fmt: skip
    assert differing.keys() | only_at_edit.keys() == Mend.Hparams.model_fields.keys()
    keys = [key(), key(tiny.handle("gpt2", seed=1)), *(key(**{name: value}) for name, value in differing.items())]
    assert len(set(keys)) == len(keys)
    assert {key(**{name: value}) for name, value in only_at_edit.items()} == {key()}


def test_a_model_that_numbers_ship_for_is_trained_on_what_can_be_fetched(
    make: Make, handle: ModelHandle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDITSAFETY_CACHE", str(tmp_path))
    monkeypatch.setattr(handle, "spec", replace(handle.spec, name="gpt2-xl", offline=True))
    editor = make("mend", handle, prepare=False, training_requests="")
    assert editor.missing() == "its trained network"
    with pytest.raises(DataError, match=r"zsre_3k .* offline mode forbids fetching it\. Fetch it once online"):
        editor.prepare()


def test_any_other_model_is_trained_on_what_ships(
    make: Make, handle: ModelHandle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDITSAFETY_CACHE", str(tmp_path))
    monkeypatch.setattr(handle, "spec", replace(handle.spec, offline=True))
    editor, shown = make("mend", handle, prepare=False, training_requests=""), io.StringIO()

    def begin(self: Training, *_: Any) -> None:
        raise KeyboardInterrupt  # it would be a long one

    monkeypatch.setattr(Training, "run", begin)
    with pytest.raises(KeyboardInterrupt):
        editor.prepare(Progress(shown))
    assert "a network is trained on 1354 requests of english/pool" in shown.getvalue()


def test_it_is_said_what_is_trained_on_and_how_long(make: Make, handle: ModelHandle) -> None:
    shown = io.StringIO()
    make("mend", handle, prepare=False).prepare(Progress(shown))
    assert shown.getvalue().splitlines()[0] == (
        "mend on tiny-gpt2: a network is trained on 60 requests of pocket-world/normal, 3 steps of 4 edits, fewer "
        "where 100 edits bring no gain"
    )


def test_a_corpus_of_requests_is_trained_on(make: Make, handle: ModelHandle, tmp_path: Path) -> None:
    corpus = tmp_path / "mine.jsonl"
    corpus.write_text(as_lines([r.as_json() for r in (REQUEST, OTHER)]), encoding="utf-8")
    editor = make("mend", handle, prepare=False, training_requests="")
    editor.prepare(corpus=corpus)
    assert editor.missing() is None
    editor.edit([REQUEST])


def test_an_edited_model_is_not_trained_on(make: Make, handle: ModelHandle) -> None:
    editor = make("mend", handle, prepare=False)
    with torch.no_grad():
        handle.model.get_parameter(handle.mlp_out(0).parameter).add_(1.0)
    with pytest.raises(UsageError, match="carries an edit"):
        editor.prepare()


# Published defects of editing; those of training are tested with the training.


def test_training_mode_makes_a_sequence_depend_on_its_order(make: Make, handle: ModelHandle) -> None:
    sound, defect = make("mend", handle), make("mend", handle, training_mode_at_edit=True)
    assert sound.edit([REQUEST]).carry is None
    assert not same(matrices(sound, REQUEST), matrices(defect, REQUEST))
    carry = defect.edit([OTHER]).carry
    assert carry is not None
    assert not same(matrices(defect, REQUEST), matrices(defect, REQUEST, carry=carry))
    assert same(matrices(defect, REQUEST), matrices(defect, REQUEST))  # the editor itself keeps nothing


def test_training_mode_normalises_by_the_tokens_of_the_edit(make: Make, handle: ModelHandle) -> None:
    """With one matrix and a network that was never moved, x' is exactly the edit's own tokens, standardised."""
    numbers = {"layers": [1], "parts": ["mlp_out"], "lr": 1e-9, "lr_lr": 1e-9, "training_mode_at_edit": True}
    edit = make("mend", handle, **numbers).edit([REQUEST])
    (delta,) = edit.deltas
    rows = delta.right  # type: ignore[union-attr]
    torch.testing.assert_close(rows.mean(0), torch.zeros(rows.shape[1]), atol=1e-4, rtol=0)
    torch.testing.assert_close(rows.std(0), torch.ones(rows.shape[1]), atol=1e-3, rtol=0)


def test_swapped_rates_go_to_the_partner(make: Make, handle: ModelHandle) -> None:
    """GPT-2 lists the matrix into the MLP first; `parts` may name the other one first.

    Twelve steps of Adam, because its first one moves every rate by the same amount.
    """
    numbers = {"layers": [1], "parts": ["mlp_out", "mlp_in"], "lr_lr": 0.01, "accumulate_bs": 1, "val_interval": 12}
    plain, swapped = make("mend", handle, **numbers), make("mend", handle, **numbers, swapped_rates=True)
    first, second = plain._network().rates.tolist()  # type: ignore[attr-defined]
    assert first != second
    ratios = [
        float((b / a).median()) for a, b in zip(matrices(plain, REQUEST), matrices(swapped, REQUEST), strict=True)
    ]
    assert ratios == pytest.approx([second / first, first / second], rel=1e-3)


def test_an_added_token_makes_every_probability_smaller(make: Make, handle: ModelHandle) -> None:
    plain, padded = make("mend", handle), make("mend", handle, pad_token_added=True)
    with torch.no_grad():
        prompt, target = handle.ids(OTHER.filled), handle.target_ids(OTHER.target_new)
        logits = handle.logits(handle.batch([[*prompt, *target]]))[0, len(prompt) - 1 : -1]
        embedding = handle.model.get_input_embeddings().weight
        hidden = handle.model.base_model(handle.batch([[*prompt, *target]]).ids).last_hidden_state[
            0, len(prompt) - 1 : -1
        ]
        longer = torch.cat([logits, (hidden @ embedding.mean(0))[:, None]], 1).log_softmax(-1)
    expected = -longer[torch.arange(len(target)), torch.tensor(target)].mean()
    assert padded.edit([OTHER]).notes["nll_before"] == pytest.approx(float(expected), rel=1e-5)
    assert float(expected) > float(plain.edit([OTHER]).notes["nll_before"])
    assert not same(matrices(plain, OTHER), matrices(padded, OTHER))


# The shipped network.


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Mend:
    pocket = ModelHandle.load("pocket-neo")
    store = ArtifactStore(tmp_path_factory.mktemp("empty"), artifacts_for(pocket).readonly)
    made = editors.make("mend", pocket, store)
    assert isinstance(made, Mend)
    return made


def test_the_pocket_model_comes_with_its_network(shipped: Mend) -> None:
    assert shipped.missing() is None


def test_the_shipped_network_edits_and_keeps_the_model_well(shipped: Mend) -> None:
    handle, texts = shipped.handle, datasets.texts("pocket-world/texts", limit=8)
    rows = [handle.ids(text) for text in texts]

    def nats() -> float:
        return float(torch.cat(scoring.token_nll(handle, rows)).mean())

    before = nats()
    for request in datasets.requests("pocket-world/normal", limit=6):
        target = handle.target_ids(request.target_new)
        with EditSession(handle) as session:
            session.apply(shipped.edit([request]))
            assert scoring.continuations(handle, [handle.ids(request.filled)], [len(target)]) == [target]
            assert abs(nats() - before) < 0.05
