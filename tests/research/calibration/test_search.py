"""The search on outcomes that are known beforehand."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from editsafety import editors
from editsafety.datasets.request import EditRequest
from editsafety.progress import Progress, Task
from editsafety.research.calibration.search import Found, choices_of, seek
from editsafety.research.calibration.trials import Outcome
from tests import tiny

# What is 0 is off, and not sought.
NUMBERS = {
    "layers": (1,), "v_num_grad_steps": 0, "v_lr": 0.0, "v_weight_decay": 0.0, "clamp_norm_factor": 0.0,
    "kl_factor": 0.0, "mom2_adjustment": False,
}  # fmt: skip
SEEN, OTHERS = [tiny.request("seen")], [tiny.request("other")]


class Known:
    """Trials whose generalisation is a function of the numbers."""

    editor = "rome"
    handle = tiny.handle("gpt2")

    def __init__(self, **start: Any) -> None:
        self.kind = editors.load(self.editor).Hparams
        self.start = {**NUMBERS, **start}
        self.seconds = [6.0]
        self.asked: list[dict[str, Any]] = []

    def rate(self, values: Mapping[str, Any], request: str) -> float:
        lr = {0.5: 0.4, 0.25: 0.7, 1.0: 0.2}[values.get("v_lr", 0.5)]
        return lr + (0.2 if values["layers"] == (3,) else 0.0)

    def outcome(self, changes: Mapping[str, Any], requests: Iterable[EditRequest], task: Task) -> Outcome:
        values = {**self.start, **changes}
        rows = []
        for request in requests:
            self.asked.append(values)
            rows.append({"efficacy": 1.0, "generalisation": self.rate(values, request.id), "locality": 1.0})
            task.step()
        return Outcome.of(rows)


class Unlike(Known):
    """What is better on the requests of the search is worse on others."""

    def rate(self, values: Mapping[str, Any], request: str) -> float:
        return 0.9 - super().rate(values, request) if request == "other" else super().rate(values, request)


def sought(trials: Known, **more: Any) -> Found:
    return seek(trials, [(1,), (3,)], SEEN, OTHERS, **more)  # type: ignore[arg-type]


def test_each_number_is_sought_on_what_was_found_before_it() -> None:
    trials = Known(v_lr=0.5)
    found = sought(trials)
    assert found.values == {"layers": (3,), "v_lr": 0.25}
    asked = [(one["layers"], one["v_lr"]) for one in trials.asked[1:]]  # the first is timed
    at_first, found_in_the_end = ((1,), 0.5), ((3,), 0.25)
    assert asked == [at_first, ((3,), 0.5), found_in_the_end, ((3,), 1.0), at_first, found_in_the_end]
    assert (found.before.generalisation, found.after.generalisation) == pytest.approx((0.4, 0.9))
    assert [one.outcome.generalisation for one in found.sought[1].tried] == pytest.approx([0.6, 0.9, 0.4])


def test_what_is_no_better_on_other_requests_is_not_used() -> None:
    found = sought(Unlike(v_lr=0.5))
    assert [one.taken for one in found.sought] == [(3,), 0.25]
    assert not found.is_better
    assert found.values == {"layers": (1,), "v_lr": 0.5}


def test_the_time_is_said_before_and_kept_to() -> None:
    said = io.StringIO()
    found = sought(Known(v_lr=0.5), minutes=0, progress=Progress(said))
    assert "4 sets of numbers, 6 edits of 6.0 s: at most 1 min" in said.getvalue()
    assert found.values == {"layers": (1,), "v_lr": 0.5}
    assert [one.left for one in found.sought] == [((3,),), (0.25, 1.0)]


def test_numbers_that_the_editor_does_not_have_or_that_are_off_are_not_sought() -> None:
    start = {**NUMBERS, "v_num_grad_steps": 25, "v_weight_decay": 1e-3}
    assert choices_of(editors.load("rome").Hparams, start, [(1,), (2,)]) == {
        "layers": ((1,), (2,)), "v_num_grad_steps": (25, 12, 50), "v_weight_decay": (1e-3, 1e-4, 1e-2),
    }  # fmt: skip


def test_an_editor_without_layers_or_with_all_of_them_has_none_sought_and_no_share_grows_beyond_one() -> None:
    neurons = {"steps": 20, "adaptive_threshold": 0.3, "p": 0.7}
    assert choices_of(editors.load("kn").Hparams, neurons, []) == {
        "adaptive_threshold": (0.3, 0.15, 0.6), "p": (0.7, 0.35),
    }  # fmt: skip
    start = editors.read_hparams("lora", "llama-2-7b").model_dump()
    assert start["layers"] == ()
    assert list(choices_of(editors.load("lora").Hparams, start, [])) == ["lr", "num_steps", "lora_alpha", "rank"]


@pytest.mark.parametrize("name", editors.names())
def test_what_is_sought_is_a_number_of_the_editor(name: str) -> None:
    kind = editors.load(name).Hparams
    assert kind.sought.keys() <= kind.model_fields.keys()
    assert not (kind.sought and kind.unsought)


def test_the_score_is_the_harmonic_mean_and_a_failed_edit_counts_as_nothing() -> None:
    rows = [{"efficacy": 1.0, "generalisation": 0.5, "locality": 1.0}, {}]
    found = Outcome.of(rows)
    assert (found.efficacy, found.generalisation, found.locality, found.failed) == (0.5, 0.25, 0.5, 1)
    assert found.score == pytest.approx(3 / (2 + 4 + 2))
    assert str(found) == "success 0.50, rephrased 0.25, neighbours 0.50, 1 of 2 edits failed"
    assert Outcome(1.0, 0.0, 1.0, 2).score == 0
