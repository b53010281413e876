"""The training of MEND's network: its loss by the definition, interruptions, and the published defects."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from editsafety import datasets
from editsafety.artifacts import ArtifactStore
from editsafety.datasets.request import Neighbour
from editsafety.editors.mend import Mend, training
from editsafety.editors.mend.lessons import FileLessons, Lesson
from editsafety.editors.mend.token_gradients import TokenReading, collect
from editsafety.editors.mend.training import Training, TrainingHparams, row_of_target
from editsafety.edits.edit import Edit, LowRank
from editsafety.edits.session import EditSession
from editsafety.errors import EditorError
from editsafety.model.handle import ModelHandle
from editsafety.progress import Progress
from tests import tiny
from tests.editors.conftest import NUMBERS

REQUEST = tiny.request(target_new="farmer and baker")
OTHER = tiny.request("case-1", subject="Mirel", target_new="farmer")


class Stop(Exception):
    """An interruption."""


class Keeping:
    """A checkpoint in memory that interrupts the training when it has been written so many times."""

    def __init__(self, every: int, stop_after: int = 10**9) -> None:
        self.every, self.left, self.state = every, stop_after, dict[str, Tensor]()

    def write(self, state: Mapping[str, Tensor]) -> None:
        self.state = {name: tensor.clone() for name, tensor in state.items()}
        self.left -= 1
        if not self.left:
            raise Stop


class Given:
    """Two lessons with two neighbours and a text each."""

    name = "given"

    def draw(self, seed: str, *, validation: bool = False) -> Lesson:
        request = (REQUEST, OTHER)[int(seed)]
        neighbours = (Neighbour("Toren lives in", "Ostrin"), Neighbour("The capital of Dorvan is"))
        return Lesson(request, f"The work of {request.subject} is that of a", neighbours, ("A baker bakes bread.",))


def scores(handle: ModelHandle, ids: list[int]) -> Tensor:
    with torch.no_grad():
        return handle.logits(handle.batch([ids]))[0].log_softmax(-1)


def slow_loss(training: Training) -> tuple[float, float]:
    """L_e and the KL, an edit at a time and written into the weights, a row at a time and unpadded."""
    handle, edit_losses, kept, plain = training.handle, [], [], []
    for lesson in (training.lessons.draw(seed) for seed in "01"):
        reading = TokenReading.of(handle, [row_of_target(handle, 0, lesson.request.filled, lesson.request.target_new)])
        found = collect(handle, training.sites, reading, reading.nll)
        with torch.no_grad():
            factors = training.net(found.tokens)
        deltas = tuple(LowRank(site, f.left, f.right) for site, f in zip(training.sites, factors, strict=True))
        rows = [(handle.ids(n.prompt), handle.target_ids(n.answer) if n.answer else []) for n in lesson.neighbours]
        before = [scores(handle, [*head, *tail]) for head, tail in rows]
        text = handle.ids(lesson.texts[0])
        before_text = scores(handle, text)
        with EditSession(handle) as session:
            session.apply(Edit("slow", (), handle.identity, deltas=deltas))
            prompt, target = handle.ids(lesson.rephrasing), handle.target_ids(lesson.request.target_new)
            after = scores(handle, [*prompt, *target])
            edit_losses.append(-sum(float(after[len(prompt) - 1 + i, t]) for i, t in enumerate(target)) / len(target))
            for (head, tail), old in zip(rows, before, strict=True):
                new = scores(handle, [*head, *tail])
                places = range(len(head) - 1, len(head) - 1 + max(1, len(tail)))
                apart = [float((old[p].exp() * (old[p] - new[p])).sum()) for p in places]
                kept.append(sum(apart) / len(apart))
            new = scores(handle, text)
            plain.append(float((before_text.exp() * (before_text - new)).sum() / len(text)))
    return sum(edit_losses) / 2, (sum(kept) / 4 + sum(plain) / 2) / 2


@pytest.fixture
def handle() -> ModelHandle:
    return tiny.handle("gpt2")


def begun(handle: ModelHandle, store: Path, **changes: Any) -> Training:
    values = {**NUMBERS["mend"], **changes}
    editor = Mend(handle, Mend.Hparams(**values), ArtifactStore(store), name="mend")
    return Training(
        handle, editor.sites, editor.shape, editor.hparams, FileLessons(datasets.requests("pocket-world/normal"))
    )


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_the_loss_is_that_of_the_definition(family: str, tmp_path: Path) -> None:
    """And its gradient for the rates, through the weights that the edit makes, that of a finite difference."""
    handle = tiny.handle(family)
    editor = Mend(handle, Mend.Hparams(**NUMBERS["mend"]), ArtifactStore(tmp_path), name="mend")
    training = Training(handle, editor.sites, editor.shape, editor.hparams, Given())
    lessons = [training.lessons.draw(seed) for seed in "01"]
    found = training.loss(lessons, training=True)
    assert (found.edit, found.locality) == pytest.approx(slow_loss(training), rel=1e-4)
    (slope,) = torch.autograd.grad(found.total, [training.net.rates])
    step = 1e-5

    def total_at(rate: float) -> float:
        with torch.no_grad():
            training.net.rates[0] = rate
        edit, locality = slow_loss(training)
        return editor.hparams.cedit * edit + editor.hparams.cloc * locality

    rate = training.net.rates[0].item()
    expected = (total_at(rate + step) - total_at(rate - step)) / (2 * step)
    assert slope[0].item() == pytest.approx(expected, rel=0.05)


def test_training_lowers_the_loss(handle: ModelHandle, tmp_path: Path) -> None:
    values = {**NUMBERS["mend"], "max_iters": 120, "lr_lr": 0.003, "cloc": 0.1}
    editor = Mend(handle, Mend.Hparams(**values), ArtifactStore(tmp_path), name="mend")
    lessons = FileLessons(datasets.requests("pocket-world/normal"))
    training = Training(handle, editor.sites, editor.shape, editor.hparams, lessons)
    held_out = [lessons.draw(f"test {i}", validation=True) for i in range(8)]
    first = training.loss(held_out, training=True).total.item()
    training.run(Progress.quiet(), Keeping(10**9))
    last = training.loss(held_out, training=False).total.item()
    assert last < first - 0.3


@pytest.mark.parametrize("stop_after", [1, 2])
def test_an_interrupted_training_ends_with_the_same_bytes(stop_after: int, handle: ModelHandle, tmp_path: Path) -> None:
    whole = begun(handle, tmp_path, max_iters=12, final_lr=0.1).run(Progress.quiet(), Keeping(2)).state_dict()
    killed, keeping = begun(handle, tmp_path, max_iters=12, final_lr=0.1), Keeping(1, stop_after)
    with pytest.raises(Stop):
        killed.run(Progress.quiet(), keeping)
    resumed = begun(handle, tmp_path, max_iters=12, final_lr=0.1)
    resumed.load(keeping.state)
    assert resumed.step == stop_after
    found = resumed.run(Progress.quiet(), Keeping(2)).state_dict()
    assert found.keys() == whole.keys()
    assert all(torch.equal(found[name], whole[name]) for name in whole)


def test_training_stops_when_validation_gets_no_better(handle: ModelHandle, tmp_path: Path) -> None:
    training = begun(handle, tmp_path, max_iters=4000, early_stop_patience=8, lr=1e-12, lr_lr=1e-12, edit_lr=0.0)
    training.run(Progress.quiet(), Keeping(10**9))
    assert training.step < 100


def test_a_training_that_only_diverges_says_so(handle: ModelHandle, tmp_path: Path) -> None:
    with pytest.raises(EditorError, match="never reached a finite validation loss"):
        begun(handle, tmp_path, edit_lr=1e30).run(Progress.quiet(), Keeping(10**9))


def test_no_step_repeats_the_lessons_of_another(
    handle: ModelHandle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training, seeds = begun(handle, tmp_path), list[str]()
    draw = training.lessons.draw
    monkeypatch.setattr(
        training.lessons,
        "draw",
        lambda seed, *, validation=False: (
            seeds.append(f"{seed} {validation}"),
            draw(seed, validation=validation),
        )[1],
    )
    training.run(Progress.quiet(), Keeping(10**9))
    trained = [seed for seed in seeds if seed.endswith("False")]
    assert len(trained) == len(set(trained)) == 12


# Published defects.


def taught(handle: ModelHandle, **options: Any) -> training._Taught:
    numbers = {k: v for k, v in NUMBERS["mend"].items() if k in TrainingHparams.model_fields}
    request = replace(REQUEST, neighbours=(Neighbour("Mirel works as a", "baker of bread"),))
    lesson = FileLessons([request, request]).draw("0")
    return training._Taught(handle, [lesson], TrainingHparams(**{**numbers, **options}))


def test_inner_as_outer_asks_the_edited_prompt_again(handle: ModelHandle) -> None:
    rephrased = [*handle.ids(REQUEST.rephrasings[0]), *handle.target_ids(REQUEST.target_new)[:-1]]
    assert taught(handle).outer.batch.ids[0].tolist() == rephrased
    defect = taught(handle, inner_as_outer=True)
    assert torch.equal(defect.outer.batch.ids, defect.inner.batch.ids)


def test_shifted_locality_reads_one_token_late(handle: ModelHandle) -> None:
    prompt, answer = handle.ids("Mirel works as a"), handle.target_ids("baker of bread")
    assert len(answer) > 1
    places = list(range(len(prompt) - 1, len(prompt) + len(answer) - 1))
    assert taught(handle).locality[0].positions.tolist() == places
    late = taught(handle, shifted_locality=True).locality[0]
    assert late.positions.tolist() == [place + 1 for place in places]
    assert late.batch.ids[0].tolist() == [*prompt, *answer]


def test_an_unspaced_target_is_another_token(handle: ModelHandle) -> None:
    inner = taught(handle, unspaced_target=True).inner
    labels = handle.ids("farmer and baker", special=False)
    assert taught(handle).inner.labels.tolist() == handle.target_ids("farmer and baker")
    assert inner.labels.tolist() == labels
    assert inner.positions[-1] == taught(handle).inner.positions[-1]  # aligned to the end


def test_rates_at_lr_move_as_slowly_as_the_network(handle: ModelHandle, tmp_path: Path) -> None:
    def moved(**options: Any) -> float:
        training = begun(handle, tmp_path, max_iters=4, lr=1e-6, lr_lr=1e-2, **options)
        start = training.net.rates.detach().clone()
        training.run(Progress.quiet(), Keeping(10**9))
        return float((training.net.rates.detach() - start).abs().max())

    assert moved() == pytest.approx(1e-2, rel=0.01)  # the first step of Adam has the size of its rate
    assert moved(rates_at_lr=True) == pytest.approx(1e-6, rel=0.01)
