"""Behaviour: what a model makes of a fixed sentence, forwards and backwards, bit for bit.

Places where something can be left behind are known by name only as far as somebody thought of them. A model that
answers as before, and whose gradient is the same, is what it was, whatever was done.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from editsafety.edits.checksum import checksum
from editsafety.model.handle import ModelHandle

SENTENCE = "Naïve 東京 x1: does it still split\tthis?\n  <s> "
LENGTH = 8  # tokens of it that are run
# What two models that compute the same may be apart, as a share of the largest logit; equal weights give equal bits.
CLOSE = {"float32": 1e-4, "bfloat16": 5e-2, "float16": 5e-3}
SLACK = 8.0  # times the difference between two runs; only where runs of one model differ (some kernels of GPUs)

Outcome = Tensor | str  # what came of it, or the error in words


@dataclass(frozen=True, eq=False)
class Behaviour:
    """Logits `[tokens, vocab]` of the first tokens of a sentence, and the gradient of one parameter half way.

    `noise` is by how much each of them differs when it is computed again: 0 on a CPU.
    """

    logits: Outcome
    gradient: Outcome
    noise: tuple[float, float] = (0.0, 0.0)

    @classmethod
    def of(cls, handle: ModelHandle) -> Behaviour:
        """Run the model on the sentence. No weight, gradient or setting is touched.

        An error is a behaviour, too.
        """
        first = cls(*_run(handle))
        if handle.device.type == "cpu":
            return first
        again = cls(*_run(handle))
        noise = _distance(first.logits, again.logits), _distance(first.gradient, again.gradient)
        return cls(first.logits, first.gradient, noise)

    def differences(self, now: Behaviour) -> tuple[str, ...]:
        """In what another behaviour differs from this one: a sentence for each of logits and gradient, or nothing."""
        pairs = (
            ("logits", self.logits, now.logits, self.noise[0]),
            ("gradients", self.gradient, now.gradient, self.noise[1]),
        )
        return tuple(
            f"the unedited model does not behave as before: on a fixed sentence its {what} {said}"
            for what, was, is_, noise in pairs
            if (said := _difference(was, is_, noise))
        )


def _run(handle: ModelHandle) -> tuple[Outcome, Outcome]:
    """The model is called as it is; no method of the handle is, since they can be replaced as well."""
    with torch.inference_mode(False), torch.enable_grad():
        parameter, every = _probed(handle), list(handle.model.parameters())
        trained = [one.requires_grad for one in every]
        try:
            # Of this one alone, so that nothing is kept for a gradient in front of it: the same bits in less time.
            for one in every:
                one.requires_grad_(one is parameter)
            logits = _outcome(lambda: _forward(handle.model, handle.tokenizer))
            if isinstance(logits, str):
                return logits, logits
            if parameter is None:
                return logits.detach(), "not taken"
            # Every logit has a share in it, none the same.
            return logits.detach(), _outcome(lambda: torch.autograd.grad(logits.logsumexp(-1).sum(), parameter)[0])
        finally:
            for one, before in zip(every, trained, strict=True):
                one.requires_grad_(before)


def answers_of(model: Any, tokenizer: Any) -> Outcome:
    """Logits on the sentence, of any model. It is run as it answers, whatever mode it is in, and left in that mode."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        with torch.no_grad():
            return _outcome(lambda: _forward(model, tokenizer).cpu())
    finally:
        for module, training in modes:
            module.training = training


def apart(one: Tensor, other: Tensor) -> float:
    """How far logits are apart, as a share of the largest of `other`; infinite for those of other shapes."""
    if one.shape != other.shape:
        return float("inf")
    same = (one == other) | (one.isnan() & other.isnan())
    finite = other[other.isfinite()].abs()
    largest = float(finite.max()) if finite.numel() else 1.0
    gap = (one - other).abs().masked_fill(same, 0.0)
    return float(gap.masked_fill(gap.isnan(), float("inf")).max()) / (largest or 1.0)


def _forward(model: Any, tokenizer: Any) -> Tensor:
    words = int(model.config.get_text_config().vocab_size)
    ids = [i % words for i in list(tokenizer(SENTENCE)["input_ids"])[:LENGTH]] or [0]
    row = torch.tensor([ids], device=model.get_input_embeddings().weight.device)
    output = model(input_ids=row, attention_mask=torch.ones_like(row), use_cache=False)
    return torch.as_tensor(output.logits)[0].float()


def _outcome(step: Callable[[], Tensor]) -> Outcome:
    try:
        return step()
    except Exception as error:  # a model of somebody else's may refuse the sentence; it has to go on refusing it
        return f"{type(error).__name__}: {str(error)[:200]}"


def _probed(handle: ModelHandle) -> nn.Parameter | None:
    """A small parameter half way: its gradient comes through all later blocks, at half the price of the first one's."""
    named = [(n, p) for n, p in handle.model.named_parameters() if p.is_floating_point()]
    if handle.has_row:
        prefix = f"{handle.architecture.block_of(handle.layers // 2)}."
        named = [(n, p) for n, p in named if n.startswith(prefix)]
    else:
        named = named[len(named) // 2 :]  # in the order of the model: roughly its second half
    return min((p for _, p in named), key=lambda one: one.numel(), default=None)


def _distance(one: Outcome, other: Outcome) -> float:
    if isinstance(one, str) or isinstance(other, str) or one.shape != other.shape:
        return 0.0
    return float((one.double() - other.double()).abs().nan_to_num(0.0).max()) if one.numel() else 0.0


def _difference(was: Outcome, now: Outcome, noise: float) -> str:
    if isinstance(was, str) or isinstance(now, str):
        if isinstance(was, str) and isinstance(now, str):
            return "" if was == now else f"end otherwise ({now}, where it was {was})"
        return f"cannot be computed any more ({now})" if isinstance(now, str) else f"come, where there was {was}"
    if was.shape != now.shape or was.device != now.device:
        return f"are {list(now.shape)} on {now.device}, where they were {list(was.shape)} on {was.device}"
    if checksum(was) == checksum(now):
        return ""
    apart = (was.double() - now.double()).abs()
    if not torch.isfinite(apart).all() and (torch.isfinite(was) != torch.isfinite(now)).any():
        return "are not finite where they were, or the other way round"
    largest = float(apart.nan_to_num(0.0).max())
    if noise and largest <= SLACK * noise:
        return ""
    place = int((apart.reshape(len(apart), -1).amax(1) > 0).nonzero()[0]) if largest else 0
    where = "token" if was.ndim > 1 else "place"
    return f"differ by up to {largest:.3g}, first at {where} {place + 1} of {len(was)}"
