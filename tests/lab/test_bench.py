"""The bench: what is refused before anything is edited, and what is measured of the unedited model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from editsafety import measures
from editsafety.edits.seal import Keepsake
from editsafety.edits.session import EditSession
from editsafety.errors import MeasureError, UndoError, UnknownNameError, UsageError
from editsafety.judging.policy import Policy, Threshold
from editsafety.lab import single
from editsafety.lab.bench import Bench
from editsafety.measures import Inputs, Measure
from editsafety.model.handle import ModelHandle
from editsafety.runs.case import Case
from editsafety.runs.measurement import Measurement
from editsafety.runs.signals import STEP
from tests import tiny
from tests.lab.walking import PRINTS, REQUESTS, TEXTS, Push, course, editor, go

DEFAULT = Policy.read("default")


class Confidence:
    """A measure of somebody else's: how much it is of request 0 among those that were asked about."""

    name = "confidence"
    version = 1
    scope = "case"

    def __call__(self, handle: ModelHandle, inputs: Inputs) -> tuple[Measurement, ...]:
        items = tuple(float(one.id == "case-0") for one in inputs.requests)
        if not items:
            return (Measurement.missing("confidence", 1, "rate", "no requests"),)
        return (Measurement("confidence", 1, "rate", sum(items) / len(items), n=len(items), items=items),)


@pytest.fixture
def bench() -> Bench:
    handle = tiny.handle("gpt2")
    return Bench(handle, TEXTS, (), 8, Keepsake.of(handle))


def limit(measure: str, figure: str = "after", **more: Any) -> Threshold:
    values: Mapping[str, Any] = {"pass_at_most": 0.5, **more}
    return Threshold(measure=measure, figure=figure, why="", **values)  # type: ignore[arg-type]


def policy(**parts: Mapping[str, Threshold]) -> Policy:
    whole: dict[str, Any] = {"case": {"finite": limit("weights_finite")}, "group": {}, "course": {}, **parts}
    return Policy(name="mine", **whole)


def never(*_: Any) -> None:
    raise AssertionError("the model was measured")


@pytest.mark.parametrize("part", ["case", "group"])
def test_a_limit_on_what_nothing_measures_is_refused_before_anything_is_measured(
    bench: Bench, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Bench, "measure_base", never)
    with pytest.raises(UnknownNameError, match=f"'eficacy'.*It is {part}.mine.measure of policy mine"):
        bench.open(policy(**{part: {"mine": limit("eficacy")}}))


def test_a_limit_on_courses_that_no_step_has_is_refused_where_courses_will_be_judged(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    nonsense = policy(course={"nonsense": limit("there_is_no_such_thing")})
    with monkeypatch.context() as patched:
        patched.setattr(Bench, "measure_base", never)
        with pytest.raises(UnknownNameError, match=r"'there_is_no_such_thing'.*It is course\.nonsense\.measure"):
            bench.open(nonsense, probes=())
        with pytest.raises(UnknownNameError, match="'delta_norm'"):  # of one edit, not of a step
            bench.open(policy(course={"size": limit("delta_norm")}), probes=())
        with pytest.raises(UnknownNameError, match="'prints'"):
            bench.open(policy(course={"prints": limit("prints")}), probes=())
    bench.open(nonsense)
    bench.open(policy(course={"prints": limit("prints")}), probes=(PRINTS,))
    bench.open(policy(course={name: limit(name) for name in ("me_ppl", *STEP)}), probes=())
    bench.open(DEFAULT, probes=())


@pytest.mark.parametrize("noise", [0.3, math.nan])
def test_a_limit_that_is_finer_than_the_noise_is_refused(bench: Bench, noise: float) -> None:
    bench.open(DEFAULT, {}, 0.2)
    with pytest.raises(UsageError, match=r"perplexity passes up to 1\.25x, but re-runs of the unedited model differ"):
        bench.open(DEFAULT, {}, noise)


def test_the_unedited_model_is_measured_unless_that_is_known(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.open(DEFAULT)
    base, noise = bench.base, bench.noise
    assert base["me_ppl"].n == len(TEXTS)
    assert 0 <= noise < 1e-4
    monkeypatch.setattr(Bench, "measure_base", never)
    other = Bench(bench.handle, TEXTS, (), 8, bench.keepsake)
    other.open(DEFAULT, base, noise)
    assert (other.base, other.noise) == (base, noise)


def test_a_measure_that_a_limit_on_courses_needs_is_measured_at_every_step(tmp_path: Path) -> None:
    handle = tiny.handle("gpt2")
    mine: Measure = Confidence()
    bench = Bench(handle, TEXTS, (), 8, Keepsake.of(handle), (*measures.needed(), mine))
    bench.open(DEFAULT, probes=())
    assert list(bench.along) == []
    plain = go(bench, editor(Push, bench, tmp_path), course("sequential", REQUESTS[:3], every=2), limit=math.inf)
    assert "confidence" not in plain.step.found
    bench.open(policy(course={"sure": limit("confidence", pass_at_most=1.0)}), probes=())
    assert list(bench.along) == [mine]
    record = go(bench, editor(Push, bench, tmp_path), course("sequential", REQUESTS[:3], every=2), limit=math.inf)
    # Of the requests since the step before: the first two, then the third.
    assert [step.found["confidence"].value for step in record.steps] == [0.5, 0.0]


def test_requests_and_probes_are_asked_once_of_the_unedited_model(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, probed = bench.unedited(REQUESTS[:2]), bench.probed(PRINTS)
    other = bench.unedited(REQUESTS[1::-1])
    assert first["locality"].answers == other["locality"].answers[::-1]
    monkeypatch.setattr(Bench, "measure", never)
    monkeypatch.setattr(type(PRINTS), "__call__", never)
    assert bench.unedited(REQUESTS[:2]) is first
    assert bench.probed(PRINTS) is probed


def test_the_prefix_of_a_request_is_the_same_in_any_company(bench: Bench) -> None:
    bench.prefixes = ("One. ", "Two. ", "Three. ")
    together = dict(zip(REQUESTS, bench.inputs(REQUESTS).prefixes, strict=True))
    assert len(set(together.values())) > 1
    for request in REQUESTS:
        assert bench.inputs((request,)).prefixes == [together[request]]
    bench.prefixes = ()
    assert bench.inputs(REQUESTS).prefixes == []


def test_every_byte_is_brought_back_or_it_is_said_that_it_cannot_be(bench: Bench) -> None:
    with torch.no_grad():
        bench.handle.model.get_input_embeddings().weight.zero_()
    bench.repair()
    assert bench.handle.fingerprint() == bench.handle.identity
    copy = next(copy for _, copy in bench.keepsake.values.values() if copy is not None)
    copy[0] += 1  # the keepsake itself is damaged
    with pytest.raises(UndoError, match="tiny-gpt2 cannot be brought back; load it again"):
        bench.repair()


def test_measures_keep_what_they_need_of_the_unedited_model_wherever_its_figures_come_from(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    strict = policy(case={"tokens": limit("kl_tokens", pass_at_most=0.05)})
    bench = Bench(tiny.handle("gpt2"), TEXTS, (), 8, Keepsake.of(tiny.handle("gpt2")), measures.needed(["kl_tokens"]))
    bench.open(strict)
    assert bench.base["kl_tokens"].value == 0.0
    monkeypatch.setattr(Bench, "measure_base", never)
    again = Bench(tiny.handle("gpt2"), TEXTS, (), 8, bench.keepsake, bench.measures)  # a run that goes on
    again.open(strict, bench.base, bench.noise)
    assert again.measure("model")["kl_tokens"].value == 0.0
    with torch.no_grad():
        again.handle.model.get_parameter("transformer.ln_f.weight").mul_(1.5)
    assert (again.measure("model")["kl_tokens"].value or 0) > 0.0
    assert list(Bench(bench.handle, TEXTS, (), 8, bench.keepsake).references) == []


class Claims:
    """A measure of somebody else's that returns whatever figures it is told to, and that it says it gives."""

    name = "claims"
    version = 1

    def __init__(self, *figures: str, later: str = "", scope: str = "case", gives: tuple[str, ...] = ()) -> None:
        self.figures, self.later, self.scope = figures, later, scope
        if gives:
            self.gives = gives

    def __call__(self, handle: ModelHandle, inputs: Inputs) -> tuple[Measurement, ...]:
        late = (self.later,) if self.later and (inputs.requests or inputs.texts) else ()
        return tuple(Measurement(one, 1, "rate", 1.0, n=1) for one in (*self.figures, *late))


def with_measure(one: Any) -> Bench:
    handle = tiny.handle("gpt2")
    return Bench(handle, TEXTS, (), 8, Keepsake.of(handle), (*measures.needed(), one))


@pytest.mark.parametrize("figure", ["me_ppl", "efficacy", "weights_finite"])
def test_a_figure_of_two_measures_is_refused_before_anything_is_measured(
    figure: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dead model at 164 times its perplexity passed as 1.00x."""
    monkeypatch.setattr(Bench, "measure_base", never)
    with pytest.raises(MeasureError, match=rf"measures \w+ and claims both give '{figure}'"):
        with_measure(Claims(figure)).open(DEFAULT)


@pytest.mark.parametrize("figure", ["kept", "drift_growth"])
def test_a_figure_of_courses_belongs_to_no_measure(figure: str) -> None:
    with pytest.raises(MeasureError, match=f"measure claims gives '{figure}', which is a figure of courses"):
        with_measure(Claims(figure)).open(DEFAULT)


@pytest.mark.parametrize(
    ("one", "said"),
    [
        (Claims("mine", later="efficacy"), "measures efficacy and claims both give 'efficacy'"),
        (Claims("mine", later="me_ppl"), "of scope 'case', returned 'me_ppl', which is a figure of measure perplexity"),
        (Claims("mine", later="me_ppl", gives=("mine",)), "claims returned 'me_ppl', but in `gives` it says: mine"),
        (Claims("mine", later="other", gives=("mine",)), "claims returned 'other', but in `gives` it says: mine"),
        (Claims("mine", later="mine"), "claims returned 'mine' twice"),
    ],
)
def test_a_figure_that_comes_later_is_an_error_of_its_measure(one: Any, said: str, tmp_path: Path) -> None:
    """It may show itself only once there are requests; the case names the measure, not the editor."""
    bench = with_measure(one)
    bench.open(DEFAULT)
    case = Case("tiny-gpt2", "push", "hard", REQUESTS[:1])
    record = single.run(bench, "push", case, lambda _: (_ for _ in ()).throw(AssertionError("an edit was made")))
    assert record.failure is not None
    assert record.failure.kind == "measure"
    assert said in record.failure.message
    assert "push" not in record.failure.message


def test_what_is_no_measurement_is_an_error_of_its_measure() -> None:
    class Bare(Claims):
        def __call__(self, handle: ModelHandle, inputs: Inputs) -> Any:
            return (0.5,)

    with pytest.raises(MeasureError, match="measure claims returned float, expected a tuple of Measurement"):
        with_measure(Bare()).open(DEFAULT)


def test_a_measure_of_its_own_figures_stands_beside_the_others() -> None:
    bench = with_measure(Claims("mine", scope="model", gives=("mine",)))
    bench.open(DEFAULT)
    assert bench.base["mine"].value == 1.0
    assert bench.base["me_ppl"].n == len(TEXTS)


def test_every_request_is_compared_with_its_own_unedited_answers(bench: Bench) -> None:
    """Whatever was asked before it; what is known of one is not taken for what is known of another."""
    found = [bench.unedited((request,)) for request in REQUESTS[:3]]
    alone = [bench.measure("case", (request,)) for request in REQUESTS[:3]]
    assert found == alone
    assert len({one["target_probability"].value for one in found}) == 3
    assert bench.unedited(REQUESTS[:2]) == bench.measure("case", REQUESTS[:2])


def noisy(handle: ModelHandle, size: float) -> ModelHandle:
    """A model that is by this much less sure in a batch of several texts than in one of a single text."""
    run = handle.logits
    handle.logits = lambda batch: run(batch) * (1 if len(batch.ids) == 1 else 1 - size)  # type: ignore[method-assign]
    return handle


def test_the_noise_is_the_most_by_which_a_text_differs_when_it_is_measured_again() -> None:
    handle = noisy(tiny.handle("gpt2"), 0.05)
    texts = tuple(f"The quick brown fox jumps over {number} lazy dogs." for number in ("two", "six", "ten"))
    bench = Bench(handle, texts, (), 8, Keepsake.of(handle))
    bench.measure_base()
    (together, *_), (apart, *_) = (
        measures.load("perplexity")(handle, Inputs(texts=texts, batch_size=size)) for size in (8, 1)
    )
    pairs = zip(together.items, apart.items, strict=True)
    differences = [abs((was or 0.0) - (now or 0.0)) / (was or 1.0) for was, now in pairs]
    assert bench.noise == pytest.approx(max(differences))
    assert bench.noise > 1e-3


class Looks:
    """A measure that opens a session of its own."""

    name, version, scope, gives = "looks", 1, "case", ("looks",)

    def __call__(self, handle: ModelHandle, inputs: Inputs) -> tuple[Measurement, ...]:
        with EditSession(handle):
            return (Measurement("looks", 1, "rate", 1.0, n=1),)


def test_what_a_measure_proves_by_a_session_of_its_own_is_not_taken_over_by_the_next_edit() -> None:
    """It runs with signal handlers around it that would be looked for, and missed, afterwards."""
    handle = tiny.handle("gpt2")
    one = Bench(handle, TEXTS, (), 8, Keepsake.of(handle), (Looks(),))
    with handle.engine.in_a_row():
        one.unedited(REQUESTS[:1])
        with EditSession(handle) as session:
            pass
    assert session.leftovers == ()
