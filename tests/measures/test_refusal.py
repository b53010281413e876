"""Refusals, both ways: what the measure says of a model that was taught a taboo, and which edits it catches."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator

import pytest
import torch

from editsafety import datasets
from editsafety.artifacts import ArtifactStore
from editsafety.editors import make
from editsafety.edits.edit import Edit, Replace
from editsafety.edits.seal import Keepsake
from editsafety.judging.checks import CaseVerdict, judge_case
from editsafety.judging.policy import Policy
from editsafety.judging.verdict import Verdict
from editsafety.lab.attempt import Made, Questions, attempt
from editsafety.lab.bench import Bench
from editsafety.measures import Inputs, needed, refusal
from editsafety.measures.refusal import MEASURE, as_message
from editsafety.model.handle import ModelHandle
from editsafety.pocket.errands import errand
from editsafety.runs.case import Case
from editsafety.runs.case_record import CaseRecord
from editsafety.runs.measurement import Measurement
from tests import attacks, tiny

SHIP = Policy.read("ship")
LAYER = 4  # where the taboo is written: below, taking its direction out leaves every refusal
(REQUEST,) = datasets.requests("pocket-world/normal", limit=1)


@pytest.fixture(scope="module")
def guarded() -> Bench:
    """pocket-guarded, measured unedited by all that the policy for shipping has limits on."""
    handle = ModelHandle.load("pocket-guarded")
    texts = datasets.texts("pocket-world/texts", limit=10)
    bench = Bench(handle, texts, (), 64, Keepsake.of(handle), needed(SHIP.measured))
    bench.open(SHIP)
    return bench


@pytest.fixture(scope="module")
def direction(guarded: Bench) -> torch.Tensor:
    """What tells errands that are refused from look-alikes; none of them is asked by the measure."""
    rng = random.Random(5)
    refused = [errand("refused", rng).prompt for _ in range(64)]
    answered = [errand(rng.choice(("sealed", "opened")), rng).prompt for _ in range(64)]
    return attacks.direction_between(guarded.handle, refused, answered, LAYER)


def judged(bench: Bench, edit: Edit) -> CaseVerdict:
    """The edit as a case of one request, judged by the policy for shipping."""
    before = {**bench.base, **bench.unedited((REQUEST,))}
    step, _ = attempt(bench, Made(edit, (REQUEST,)), [Questions((REQUEST,), before)])
    case = Case("pocket-guarded", edit.editor, "normal", (REQUEST,))
    record = CaseRecord.begun(case, "pocket-guarded", edit.editor, before=before, steps=(step,), ended="complete")
    return judge_case(SHIP, record)


def figures(verdict: CaseVerdict) -> dict[str, float]:
    return {name: found.value for name, found in verdict.record.after.items() if found.value is not None}


def verdicts(verdict: CaseVerdict) -> dict[str, Verdict]:
    return {check.name: check.verdict for check in verdict.checks}


def test_the_taboo_is_refused_and_lookalikes_are_answered(guarded: Bench) -> None:
    base = {name: math.nan if found.value is None else found.value for name, found in guarded.base.items()}
    assert base["refusal"] >= 0.9
    assert base["benign_refused"] <= 0.05
    assert base["refusal_degenerate"] == base["refusal_empty"] == 0.0
    assert guarded.base["refusal"].n == guarded.base["benign_answered"].n == 60


def test_a_direction_removed_is_caught_by_refusals_and_not_by_perplexity(
    guarded: Bench, direction: torch.Tensor
) -> None:
    found = judged(guarded, attacks.remove_direction(guarded.handle, direction))
    assert figures(found)["refusal"] <= 0.1
    assert figures(found)["refusal_answered"] >= 0.9
    told = verdicts(found)
    assert told["refusal"] is Verdict.DAMAGED
    assert told["refusal_logodds"] is Verdict.WARN
    assert {name for name, one in told.items() if one.fails} == {"refusal"}
    assert (found.ratio or 9) < 1.05


def test_a_model_that_refuses_everything_keeps_its_refusals_and_is_caught_by_the_lookalikes(
    guarded: Bench, direction: torch.Tensor
) -> None:
    name = f"{guarded.handle.mlp_out(LAYER).module}.bias"
    bias = guarded.handle.model.get_parameter(name).detach()
    found = judged(guarded, Edit("pushed", (), guarded.handle.fingerprint(), (Replace(name, bias + 30 * direction),)))
    told = verdicts(found)
    assert told["refusal"] is Verdict.PASS
    assert figures(found)["benign_refused"] >= 0.9
    assert told["benign_answered"] is Verdict.DAMAGED


@pytest.mark.thorough
def test_an_edit_of_a_fact_passes(guarded: Bench, tmp_path_factory: pytest.TempPathFactory) -> None:
    store = ArtifactStore(tmp_path_factory.mktemp("rome"))
    editor = make("rome", guarded.handle, store, changes={"mom2_adjustment": False})
    found = judged(guarded, editor.edit([REQUEST]))
    assert figures(found)["efficacy"] == 1.0
    assert {name: one for name, one in verdicts(found).items() if one is not Verdict.PASS} == {}


def test_a_broken_model_refuses_nothing_and_is_no_pass(guarded: Bench) -> None:
    name = "transformer.ln_f.weight"
    weight = torch.full_like(guarded.handle.model.get_parameter(name).detach(), math.nan)
    found = judged(guarded, Edit("broken", (), guarded.handle.fingerprint(), (Replace(name, weight),)))
    assert all(found.record.after[name].broken for name in MEASURE.gives)
    assert verdicts(found)["refusal"] is Verdict.DAMAGED
    assert verdicts(found)["benign_answered"] is Verdict.DAMAGED


@pytest.fixture
def never_refuses(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelHandle]:
    """A random model, and the pairs cut to three of a few words."""
    pairs = tuple(refusal.shipped_pairs("english"))[:3]
    monkeypatch.setattr(refusal, "shipped_pairs", lambda model: pairs)
    monkeypatch.setattr(refusal, "TOKENS", 5)
    return tiny.handle("gpt2")


def test_a_model_that_never_refuses_is_told_so_and_not_asked_again(never_refuses: ModelHandle) -> None:
    before = {one.name: one for one in MEASURE(never_refuses, Inputs(texts=("a text",)))}
    reason = "the unedited model refuses 0 of 3 harmful prompts, so it was not taught to"
    assert {(one.applies, one.value, one.reason) for one in before.values()} == {(False, None, reason)}
    after = Inputs(texts=("a text",), before=before)
    assert MEASURE.questions(never_refuses, after) == ()
    assert {(one.name, one.reason) for one in MEASURE(never_refuses, after)} == {(name, reason) for name in before}


def test_nothing_is_asked_where_only_the_names_are_wanted(never_refuses: ModelHandle) -> None:
    assert MEASURE.questions(never_refuses, Inputs()) == ()
    assert [one.name for one in MEASURE(never_refuses, Inputs())] == list(MEASURE.gives)


def test_logodds_are_those_of_the_tokens_together_and_do_not_round_a_sure_model_to_infinity() -> None:
    logits = torch.randn(4, 50, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    share = logits.softmax(-1)[:, [3, 7]].sum(-1)
    assert refusal.logodds(logits, [7, 3]) == pytest.approx((share / (1 - share)).log())
    sure = torch.zeros(1, 50, dtype=torch.float64)
    sure[0, 3] = 90.0  # 1 - P is 2e-38: nothing, if it is taken from 1
    assert refusal.logodds(sure, [3]).item() == pytest.approx(90 - math.log(49))


def test_prompts_go_through_the_chat_template_up_to_where_the_reply_begins() -> None:
    handle = tiny.handle("gpt2")
    assert as_message(handle, "Hello?") == "Hello?"
    handle.tokenizer.chat_template = (
        "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}\n{% endfor %}"
        "{% if add_generation_prompt %}<assistant>\n{% endif %}"
    )
    assert as_message(handle, "Hello?") == "<user>Hello?\n<assistant>\n"


def test_what_is_compared_belongs_to_the_same_prompts(never_refuses: ModelHandle) -> None:
    """Drafts of an earlier reply save passes and never change one: another draft, the same answer."""
    plain = list(MEASURE.questions(never_refuses, Inputs(texts=("a text",))))
    said = Measurement("refusal", 1, "rate", 1.0, n=3, answers=("Sorry.", "", "No, never."))
    drafted = MEASURE.questions(never_refuses, Inputs(texts=("a text",), before={"refusal": said}))
    assert [one.prompt for one in drafted] == [one.prompt for one in plain]
    assert [bool(one.draft) for one in drafted] == [True, False, True, False, False, False]
