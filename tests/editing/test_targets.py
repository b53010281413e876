"""v*: the optimised output at the subject's last token."""

from typing import Any

import pytest
import torch

from editsafety import datasets
from editsafety.datasets.request import EditRequest
from editsafety.editing import buckets
from editsafety.editing.subject import locate, locate_text
from editsafety.editing.suffix import Suffix
from editsafety.editing.targets import Target, TargetHparams, _Search, optimise, optimise_many
from editsafety.edits.seal import Frame, Seal
from editsafety.model import trace
from editsafety.model.handle import ModelHandle
from tests import tiny

CONTEXTS = ("{}", "The quick. {}", "Toren lives. {}", "A farmer grows wheat and bread. {}")
SETTINGS = TargetHparams(v_num_grad_steps=6, v_lr=0.2, v_weight_decay=0.1, clamp_norm_factor=4)
LONG = tiny.request(prompt="The work of {} is that of a", target_new="farmer and baker")


def slow_losses(handle: ModelHandle, module: str, found: Target) -> tuple[float, float]:
    """NLL and KL with v* in place, one unpadded row at a time and by the definition: an independent calculation."""
    delta = found.value - found.start
    target = handle.target_ids(LONG.target_new)

    def scores(ids: list[int], place: int, size: float) -> torch.Tensor:
        def shift(output: torch.Tensor) -> torch.Tensor:
            output = output.clone()
            output.reshape(1, len(ids), -1)[0, place] += size * delta
            return output

        with torch.no_grad(), trace.watch(handle.model, change={module: shift}):
            return handle.logits(handle.batch([ids]))[0].log_softmax(-1)

    per_context = []
    for context in CONTEXTS:
        prompt = locate(handle, LONG, context)
        rows = scores([*prompt.ids, *target], prompt.subject, 1.0)
        per_context.append(-sum(rows[len(prompt.ids) - 1 + a, t] for a, t in enumerate(target)) / len(target))
    kl = locate_text(handle, "{} is a", LONG.subject)
    after, before = (scores(list(kl.ids), kl.subject, size)[kl.subject] for size in (1.0, 0.0))
    return float(sum(per_context) / len(per_context)), float((after.exp() * (after - before)).sum())


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("place", ["projection", "block"])
def test_the_losses_are_those_of_the_definition(family: str, place: str) -> None:
    handle = tiny.handle(family)
    module = handle.mlp_out(1).module if place == "projection" else handle.block(1)
    found = optimise(handle, module, LONG, CONTEXTS, SETTINGS)
    nll, kl = slow_losses(handle, module, found)
    assert found.nll == pytest.approx(nll, rel=1e-4)
    assert found.kl == pytest.approx(kl, rel=1e-3, abs=1e-6)
    decay = float((found.value - found.start).norm() / found.start.norm() ** 2)
    assert found.loss == pytest.approx(nll + 0.0625 * kl + 0.1 * decay, rel=1e-4)


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize("request_", [tiny.request(), LONG], ids=["subject-first", "mid-sentence"])
def test_running_from_the_subject_on_gives_what_whole_rows_give(family: str, request_: EditRequest) -> None:
    handle = tiny.handle(family)
    module = handle.mlp_out(1).module
    fast, slow = (optimise(handle, module, request_, CONTEXTS, SETTINGS, whole_rows=whole) for whole in (False, True))
    assert fast.steps == slow.steps
    torch.testing.assert_close(fast.value, slow.value, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("family", "more"),
    [
        ("gpt_neo", {"attention_types": [[["local", "global", "local"], 1]], "window_size": 2}),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 2, "max_window_layers": 1}),
    ],
)
def test_running_from_the_subject_on_respects_sliding_windows(family: str, more: dict[str, Any]) -> None:
    handle = tiny.handle(family, **more)
    module = handle.mlp_out(1).module
    fast, slow = (optimise(handle, module, LONG, CONTEXTS, SETTINGS, whole_rows=whole) for whole in (False, True))
    torch.testing.assert_close(fast.value, slow.value, rtol=1e-3, atol=1e-4)


def test_the_loss_falls_and_the_start_is_the_modules_own_output() -> None:
    handle = tiny.handle("gpt2")
    module = handle.mlp_out(1).module
    short, long = (
        optimise(handle, module, LONG, CONTEXTS, SETTINGS.model_copy(update={"v_num_grad_steps": n})) for n in (1, 20)
    )
    assert torch.equal(short.value, short.start)
    assert (short.steps, long.steps) == (0, 19)
    assert long.nll < short.nll
    prompt = locate(handle, LONG)
    with torch.no_grad(), trace.watch(handle.model, [module]) as seen:
        handle.logits(handle.batch([prompt.ids]))
    torch.testing.assert_close(short.start, seen.outputs[module][0, prompt.subject], rtol=1e-4, atol=1e-5)


def test_the_change_stays_within_the_clamp() -> None:
    settings = SETTINGS.model_copy(update={"clamp_norm_factor": 0.05, "v_num_grad_steps": 12})
    handle = tiny.handle("gpt2")
    found = optimise(handle, handle.mlp_out(1).module, LONG, CONTEXTS, settings)
    assert float((found.value - found.start).norm() / found.start.norm()) == pytest.approx(0.05, rel=1e-4)


def test_the_search_stops_below_the_stop_loss() -> None:
    handle = tiny.handle("gpt2")
    settings = SETTINGS.model_copy(update={"v_stop_loss": 1e9})
    assert optimise(handle, handle.mlp_out(1).module, LONG, CONTEXTS, settings).steps == 0


def test_a_broken_model_ends_the_search_at_once() -> None:
    handle = tiny.handle("gpt2")
    with torch.no_grad():
        handle.model.get_parameter(handle.mlp_out(2).parameter).fill_(float("nan"))
    found = optimise(handle, handle.mlp_out(1).module, LONG, CONTEXTS, SETTINGS)
    assert found.steps == 0
    assert found.loss != found.loss


def test_the_search_leaves_no_trace_on_the_model() -> None:
    handle = tiny.handle("gpt2")
    frame, seal = Frame.of(handle), Seal.of(handle)
    optimise(handle, handle.mlp_out(1).module, LONG, CONTEXTS, SETTINGS)
    assert frame.left_behind(handle) == ()
    assert seal.changed(Seal.of(handle)) == ()


def test_the_callers_mode_does_not_matter() -> None:
    handle = tiny.handle("gpt2")
    usual = optimise(handle, handle.mlp_out(1).module, LONG, CONTEXTS, SETTINGS)
    with torch.no_grad():
        inside = optimise(handle, handle.mlp_out(1).module, LONG, CONTEXTS, SETTINGS)
    assert torch.equal(usual.value, inside.value)


# Of several widths, targets and times to converge.
BLOCK = (
    tiny.request(),
    LONG,
    tiny.request("case-2", prompt="{} was born in the city of", subject="Toren", target_new="Ostrin"),
    tiny.request("case-3", prompt="The capital of {} is", subject="Dorvan", target_new="Kelmar"),
    tiny.request("case-4", prompt="Where does {} live? They live in", subject="Mirel", target_new="Ostrin"),
    tiny.request("case-5", prompt="{} plays the", subject="Toren", target_new="violin every evening"),
)


def apart(one: Target, other: Target) -> float:
    """By how much two deltas differ, relative to the second."""
    return float((one.value - other.value).norm() / (other.value - other.start).norm())


@pytest.mark.parametrize("padding", [buckets.PADDING, 1.0], ids=["of one width", "padded"])
@pytest.mark.parametrize("place", ["projection", "block"])
@pytest.mark.parametrize("family", tiny.by_family())
def test_together_requests_find_what_each_finds_alone(
    family: str, place: str, padding: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buckets, "PADDING", padding)
    handle = tiny.handle(family)
    module = handle.mlp_out(1).module if place == "projection" else handle.block(1)
    alone = [optimise(handle, module, request, CONTEXTS, SETTINGS) for request in BLOCK]
    together = optimise_many(handle, module, BLOCK, CONTEXTS, SETTINGS)
    assert [found.steps for found in together] == [found.steps for found in alone]
    for found, expected in zip(together, alone, strict=True):
        assert apart(found, expected) < 1e-5
        assert (found.loss, found.nll) == pytest.approx((expected.loss, expected.nll), rel=1e-5)


def test_the_place_in_the_block_does_not_matter() -> None:
    handle = tiny.handle("llama")
    module = handle.block(1)
    forward = optimise_many(handle, module, BLOCK, CONTEXTS, SETTINGS)
    backward = optimise_many(handle, module, BLOCK[::-1], CONTEXTS, SETTINGS)[::-1]
    few = optimise_many(handle, module, BLOCK[2:4], CONTEXTS, SETTINGS)
    assert max(map(apart, backward, forward)) < 1e-5
    assert max(map(apart, few, forward[2:4])) < 1e-5


def test_each_request_of_a_block_stops_by_itself() -> None:
    handle = ModelHandle.load("pocket-neo")  # it learns, so that each gets there at another step
    requests = datasets.requests("pocket-world/normal", limit=8)
    settings = SETTINGS.model_copy(update={"v_num_grad_steps": 15, "v_lr": 0.5, "v_stop_loss": 1.0})
    alone = [optimise(handle, handle.block(1), request, CONTEXTS, settings) for request in requests]
    assert {found.steps for found in alone} >= {1, 2, 3}
    together = optimise_many(handle, handle.block(1), requests, CONTEXTS, settings)
    assert [found.steps for found in together] == [found.steps for found in alone]
    assert max(map(apart, together, alone)) < 1e-5


def test_a_plain_engine_seeks_one_by_one_and_to_the_bit() -> None:
    handle = tiny.handle("gpt2")
    module = handle.mlp_out(1).module
    alone = [optimise(handle, module, request, CONTEXTS, SETTINGS).value for request in BLOCK]
    handle.engine.plain = True
    plain = [found.value for found in optimise_many(handle, module, BLOCK, CONTEXTS, SETTINGS)]
    assert all(map(torch.equal, plain, alone))


def test_no_pass_has_more_tokens_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    handle = tiny.handle("gpt2")
    each = len(CONTEXTS) + 1
    passes: list[tuple[int, int]] = []
    real = Suffix.logits

    def counted(suffix: Suffix) -> torch.Tensor:
        passes.append(tuple(suffix.batch.ids.shape))
        return real(suffix)

    monkeypatch.setattr(Suffix, "logits", counted)
    largest = []
    for most in (1, 200, 10_000):
        monkeypatch.setattr(buckets, "CPU_TOKENS", most)
        passes.clear()
        optimise_many(handle, handle.mlp_out(1).module, BLOCK * 3, CONTEXTS, SETTINGS)
        assert all(rows == each or rows * width <= most for rows, width in passes)
        largest.append(max(rows for rows, _ in passes) // each)
    assert largest[0] == 1 < largest[1] < largest[2]


def test_nothing_is_sought_for_no_request() -> None:
    handle = tiny.handle("gpt2")
    assert optimise_many(handle, handle.mlp_out(1).module, [], CONTEXTS, SETTINGS) == ()


@pytest.mark.parametrize("ending", ["", "\n"])
def test_the_target_is_spelled_as_it_continues_the_prompt(ending: str) -> None:
    """Behind a space that is due, or right behind a line break: other tokens, of which the scores are read."""
    handle = tiny.handle("gpt2")
    request = tiny.request(prompt=f"Where does {{}} work?{ending}", target_new="farmer")
    expected = handle.ids("farmer" if ending else " farmer", special=False)
    search = _Search(handle, request, CONTEXTS, False)
    assert search.labels == expected * len(CONTEXTS)
    assert [row[len(row) - len(expected) + 1 :] for row in search.rows[:-1]] == [tuple(expected[:-1])] * len(CONTEXTS)
