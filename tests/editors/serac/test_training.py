"""How SERAC's networks are trained: on which facts, by which losses."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from editsafety.editors import Editor
from editsafety.editors.serac import networks
from editsafety.editors.serac.networks import Asking, Net, NetShape
from editsafety.errors import EditorError, NotPreparedError
from editsafety.progress import Progress
from tests import tiny
from tests.editors.conftest import Make
from tests.editors.serac.asking import REQUEST, said_by


def test_it_has_to_be_prepared_and_is_prepared_once(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    handle = tiny.handle("gpt2")
    editor = make("serac", handle, prepare=False)
    assert editor.missing() == "its scope and answer networks"
    with pytest.raises(NotPreparedError, match="editsafety prepare --model tiny-gpt2 --editor serac"):
        editor.edit([REQUEST])
    before = torch.get_rng_state()
    editor.prepare()
    assert torch.equal(before, torch.get_rng_state())
    assert editor.missing() is None
    edit = editor.edit([REQUEST])
    assert make("serac", handle, prepare=False, num_steps=3).missing() is not None
    monkeypatch.setattr(networks, "train", lambda *_, **__: pytest.fail("trained twice"))
    editor.prepare()
    assert make("serac", handle, prepare=False, mixing="soft").missing() is None
    monkeypatch.undo()
    other = make("serac", tiny.handle("gpt2"), prepare=False)
    other.artifacts.root = other.artifacts.root / "elsewhere"
    other.prepare()
    assert other.edit([REQUEST]).id == edit.id  # the same bytes whenever and wherever it is trained


def rows(path: Path, *about: tuple[str, str]) -> str:
    values = {"prompt": "{} works as a", "target_new": "smith"}
    lines = [{"id": f"r{i}", "subject": name, "relation": job, **values} for i, (name, job) in enumerate(about)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def test_no_fact_that_is_held_out_is_trained_on(make: Make, tmp_path: Path) -> None:
    training = rows(tmp_path / "a.jsonl", ("Ashurn", "job"), ("Ashurn", "home"), ("Mirel", "job"))
    held_out = rows(tmp_path / "b.jsonl", ("Ashurn", "job"), ("Toren", "job"))
    editor: Any = make("serac", tiny.handle("gpt2"), prepare=False, training=training, held_out=[held_out])
    assert [(r.subject, r.relation) for r in editor.requests] == [("Ashurn", "home"), ("Mirel", "job")]
    empty: Any = make("serac", tiny.handle("gpt2"), prepare=False, training=held_out, held_out=[held_out])
    with pytest.raises(EditorError, match="nothing to learn"):
        empty.prepare()


def net(words: int = tiny.VOCABULARY) -> Net:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        made = Net(NetShape(words, 16, 1, 2))
        made.head.weight.data *= 0.3  # so that texts are neither all near nor all far
        return made


EXAMPLES = (
    Asking("Ashurn works as a", "farmer", "The work of Ashurn is that of a", "Mirel works as a"),
    Asking("Toren lives in", "Ostrin and Kelmar", "Toren lives in", "The quick brown fox"),
)


def test_the_scope_loss_is_the_cross_entropy_of_every_position_and_memory() -> None:
    handle, scope = tiny.handle("gpt2"), net()

    def vectors(text: str) -> Tensor:
        ids = torch.tensor([handle.ids(text)[:24]])
        return torch.as_tensor(scope.head(scope.body(input_ids=ids).last_hidden_state)[0]).double()

    near, far = [], []
    with torch.no_grad():
        for m, memory in enumerate(EXAMPLES):
            end = vectors(memory.prompt)[-1]
            for t, text in enumerate(EXAMPLES):
                for kind in ("prompt", "question", "other"):
                    distances = (vectors(getattr(text, kind)) - end).square().sum(-1)
                    if m == t and kind == "question":
                        near.append(float(distances[-1]))
                    if m == t and kind != "other":
                        distances = distances[:-1]
                    far += [float(-torch.log(1 - torch.exp(-d) + 1e-6)) for d in distances]
        found = float(networks.scope_loss(scope, handle, EXAMPLES))
    assert found == pytest.approx(2 * sum(near) / 2 + sum(far) / 2, rel=1e-3)
    assert sum(far) > 0.01


def test_the_answer_loss_is_that_of_the_targets_tokens() -> None:
    handle, answers = tiny.handle("gpt2", spelling="bytes_bos"), net()
    nll = []
    with torch.no_grad():
        for example in EXAMPLES:
            target = handle.target_ids(example.target)
            fact = [*handle.ids(example.prompt), tiny.VOCABULARY, *target, tiny.VOCABULARY + 1]
            for at, token in enumerate(target):
                nll.append(-float(said_by(answers, fact, [*handle.ids(example.question), *target[:at]])[token]))
        assert float(networks.answer_loss(answers, handle, EXAMPLES)) == pytest.approx(sum(nll) / len(nll), rel=1e-4)


@pytest.mark.parametrize("spelling", ["bytes", "bytes_bos", "metaspace_bos"])
def test_a_word_is_read_alike_at_the_start_and_behind_a_space(spelling: str) -> None:
    handle = tiny.handle("gpt2", spelling=spelling)
    fold = networks.folding(handle, tiny.VOCABULARY)
    inside = handle.ids("A farmer bakes", special=False)
    for word in (" farmer", "farmer"):
        ids = handle.ids(word, special=False)
        if len(ids) == 1:
            assert int(fold[ids[0]]) == handle.target_ids("farmer")[0]
    assert [int(fold[token]) for token in inside[1:]] == inside[1:]
    special = [*handle.tokenizer.all_special_ids, tiny.VOCABULARY, tiny.VOCABULARY + 1]
    assert [int(fold[token]) for token in special] == special
    assert len(fold) == tiny.VOCABULARY + 2


def test_training_makes_both_losses_fall(make: Make) -> None:
    handle = tiny.handle("gpt2")

    def losses(steps: int) -> dict[str, float]:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            shape = NetShape(tiny.VOCABULARY, 16, 1, 2)
            *_, notes = networks.train(
                shape, iter([*EXAMPLES] * steps).__next__, handle, steps=steps, batch_size=2, lr=0.01,
                progress=Progress.quiet(),
            )  # fmt: skip
            return notes

    first, last = losses(1), losses(40)
    assert last["scope_loss"] < first["scope_loss"] / 2
    assert last["answer_loss"] < first["answer_loss"] / 2


def test_a_training_text_that_is_out_of_scope_never_asks_for_the_fact(make: Make) -> None:
    """Drawn many times: the other text is neither the prompt nor a rephrasing about the drawn subject."""
    import random

    editor: Any = make("serac", tiny.handle("gpt2"), prepare=False)
    assert isinstance(editor, Editor)
    examples = networks.Examples(editor.handle, editor.requests, (), random.Random(0))
    drawn = [examples.draw() for _ in range(300)]
    assert all(example.question != example.other and example.prompt != example.other for example in drawn)
    assert len({example.prompt for example in drawn}) > 200
