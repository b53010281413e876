"""An experiment's context: a tiny random model, two hard and two normal requests, and a store of its own."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from editsafety.progress import Progress
from editsafety.research.experiments import Context
from editsafety.runs.settings import Settings
from editsafety.runs.store import Store
from tests import tiny
from tests.system import world

ROME = {
    "layers": [1], "v_num_grad_steps": 4, "v_lr": 0.5, "v_weight_decay": 0.01, "clamp_norm_factor": 4,
    "mom2_adjustment": True, "context_template_length_params": [[6, 3]],
}  # fmt: skip

Make = Callable[..., Context]


@pytest.fixture(scope="session")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """make(family="gpt2", **options): a context; artifacts and finished cases are shared by all of a family."""
    place = tmp_path_factory.mktemp("experiments")
    paths = world.write(place)
    corpus = place / "corpus.txt"
    corpus.write_text("\n".join(tiny.SENTENCES), encoding="utf-8")
    asked = [
        {"id": str(i), "prompt": "Mirel works as a", "options": ["baker", "judge"], "gold": i % 2} for i in range(4)
    ]
    (place / "choosing.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    numbers = place / "rome.yaml"
    numbers.write_text(json.dumps({**ROME, "mom2_corpus": str(corpus)}))

    def made(family: str = "gpt2", **more: object) -> Context:
        name = f"tiny-{family}"
        settings = Settings(
            (name,), ("rome",), hard=paths["hard"], normal=paths["normal"], texts_from=paths["texts"], device="cpu",
            hparams=(str(numbers),), controls=0, prepare=True, probe=(str(place / "choosing.jsonl"),),
        )  # fmt: skip
        store = Store(Path(place) / family / "store.sqlite")
        return Context(settings, store, Progress.quiet(), handles={name: tiny.handle(family)}, **more)  # type: ignore[arg-type]

    return made


@pytest.fixture(scope="session")
def shared(make: Make, tmp_path_factory: pytest.TempPathFactory) -> Context:
    """One context for all tests that only look."""
    monkey = pytest.MonkeyPatch()
    monkey.setenv("EDITSAFETY_CACHE", str(tmp_path_factory.mktemp("cache")))
    yield make()  # type: ignore[misc]
    monkey.undo()
