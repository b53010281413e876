"""The rules for one edit. Each gives a cause or None."""

from __future__ import annotations

import math

from editsafety.judging.causes._evidence import Cause, Evidence, decades
from editsafety.numbers import exact, rate

TINY = 0.1  # a denominator below this share of the usual one explains a blow-up
FAR = 3.0  # a value or an update this many times the usual one is out of the ordinary
APART = 0.5  # bare and prefixed key of a subject: below this cosine the published formula is in danger
WHOLE = 1.0  # ||dW|| / ||W||: an update as large as the weight needs no comparison
EMPTIED = 0.7  # ||W + dW|| / ||W||: below this, more than half of the weight's energy is gone
LOUD = 10.0  # times what its MLP writes: no neuron of a fact, but one that writes a massive activation
SIGNALS = ("denominator", "numerator", "update_norm", "delta_relative", "norm_growth", "key_agreement")
FALL = "The Fall of ROME, arXiv 2406.11263"


def ranked(evidence: Evidence, *, quiet: bool = False) -> tuple[Cause, ...]:
    """The causes that apply, the strongest first; where none does, that, or with `quiet` nothing."""
    rules = (_denominator, _overshoot, _non_finite, _emptied, _neurons, _sidecar)
    causes = [cause for rule in rules if (cause := rule(evidence)) is not None]
    if not causes or all(cause.kind == "non_finite" for cause in causes):  # what remains when nothing explains the size
        causes += [cause for rule in (_learning, _norm) if (cause := rule(evidence)) is not None][:1]
    if not causes and not quiet:
        causes = [unknown(evidence)]
    return tuple(sorted(causes, key=lambda one: -one.strength))


def _denominator(evidence: Evidence) -> Cause | None:
    own, contrast = evidence.own("denominator"), evidence.contrast("denominator")
    agreement = evidence.own("key_agreement")
    mixed = evidence.notes.get("keys", "mixed") == "mixed"
    told = evidence.figures("denominator", "numerator", "update_norm", "key_agreement")
    told = {**told, "first_token": evidence.true("first_token")}
    first = ": the subject is one token in first place" if evidence.true("first_token") else ""
    prefixed = f"keys from prefixed contexts (c_rome, r_rome) avoid it ({FALL})" if mixed else ""
    if own is not None and contrast is not None:
        if not contrast < TINY:
            return None
        said = f"denominator {evidence.beside('denominator')}{first}"
        return Cause("denominator", said, prefixed, told, decades(1 / contrast if contrast else math.inf))
    if own is None or not mixed or agreement is None or not agreement < APART:
        return None
    said = f"denominator {exact(own, 2)}, and the bare key hardly is the prefixed one (cosine {agreement:.2f}){first}"
    return Cause("denominator", said, prefixed, told, 1.0)


def _overshoot(evidence: Evidence) -> Cause | None:
    """v* (or the value that a sidecar holds) is much farther from what the model had than usual."""
    for name, what in (("numerator", "||v* - v0||"), ("value_norm", "||v||")):
        contrast = evidence.contrast(name)
        if contrast is not None and contrast >= FAR and evidence.own("neurons") is None:
            said = f"the new value overshoots: {what} is {evidence.beside(name)}"
            advice = "a smaller clamp_norm_factor or v_lr bounds it" if name == "numerator" else ""
            return Cause("overshoot", said, advice, evidence.figures(name, "update_norm"), decades(contrast))
    return None


def _non_finite(evidence: Evidence) -> Cause | None:
    weights, perplexity = evidence.found.get("weights_finite"), evidence.found.get("me_ppl")
    if weights is not None and (weights.broken or weights.value == 0.0):
        norm = evidence.found.get("delta_norm")
        why = f" ({norm.reason})" if norm is not None and norm.broken else ""
        return Cause(
            "non_finite",
            f"the edit leaves weights that are not finite{why}",
            "float32 has more room than 16 bits; where it happens in float32, the edit itself diverged",
            {"weights_finite": 0.0},
            1.5,
        )
    nats = evidence.found.get("nll_per_token")
    if perplexity is None or not perplexity.broken or (nats is not None and nats.value is not None):
        return None  # a perplexity that overflows comes from finite logits
    said = f"the weights are finite, the logits are not: {perplexity.reason}"
    advice = "what is finite in float32 may overflow in 16 bits"
    return Cause("non_finite", said, advice, {"weights_finite": 1.0} if weights is not None else {}, 0.3)


def _emptied(evidence: Evidence) -> Cause | None:
    """Weights were taken away wholesale."""
    growth = evidence.found.get("norm_growth")
    least = min((x for x in growth.items if x is not None), default=growth.value) if growth is not None else None
    if least is None or not least < EMPTIED:
        return None
    share = evidence.own("delta_large_share")
    of = "" if share is None else f"; {100 * share:.0f} % of the touched entries change by more than 7.7 %"
    said = f"the edit takes weights away: ||W + dW|| is {exact(least, 2)} of ||W||{of}"
    advice = "fewer neurons, or a method that adds instead of erasing"
    return Cause(
        "emptied",
        said,
        advice,
        {"norm_growth": least, **evidence.figures("delta_large_share")},
        1 + decades(1 / max(least, 1e-9)),
    )


def _neurons(evidence: Evidence) -> Cause | None:
    """Knowledge neurons are overwritten for every text, not only for the one that they were found with."""
    count = evidence.own("neurons")
    if not count:
        return None
    told = evidence.figures("update_norm", "neurons", "layers", "value_norm", "delta_large_share", "loudest")
    size = 0.5 + max(0.0, decades(evidence.contrast("update_norm") or 1.0))
    loud, usual = evidence.own("loudest"), evidence.usual("loudest")
    if loud is not None and loud >= LOUD:
        beside = "" if usual is None else f", where edits that stay have {usual}"
        name = evidence.notes.get("loudest_neuron")
        said = (
            f"{name if isinstance(name, str) else 'a neuron'} is rewritten, which every text is read around (a massive "
            f"activation, arXiv 2402.17762): at one token it writes {exact(loud, 2)} times what its MLP does{beside}"
        )
        return Cause("neurons", said, "leave such neurons out of the edit", told, size + decades(loud / LOUD))
    layers = evidence.own("layers")
    where = f" in {layers:.0f} layer{'' if layers == 1 else 's'}" if layers else ""
    said = (
        f"{count:.0f} neurons{where} are rewritten for every text that fires them, by an update of "
        f"{evidence.beside('update_norm')}"
    )
    advice = (
        "a higher adaptive_threshold takes fewer; one KN edit is known to take all abilities to about 0 "
        "(arXiv 2401.04700)"
    )
    return Cause("neurons", said, advice, told, size)


def _sidecar(evidence: Evidence) -> Cause | None:
    if evidence.changed:
        return None
    local = evidence.found.get("locality")
    kept = (
        f" (neighbours keep {rate(local.value)} of their answers)"
        if local is not None and local.value is not None
        else ""
    )
    radius = f", epsilon {evidence.beside('epsilon')}" if evidence.own("epsilon") is not None else ""
    said = f"no weight changed: the sidecar speaks on texts that the edit is not about{kept}{radius}"
    told = {
        **evidence.figures("epsilon"),
        **({} if local is None or local.value is None else {"locality": local.value}),
    }
    return Cause("sidecar", said, "a smaller radius or scope keeps it quiet (GRACE eps, WISE act_margin)", told, 1.0)


def _learning(evidence: Evidence) -> Cause | None:
    """Fine-tuning and its relatives: the loss was driven down further than the weights could bear."""
    if "loss_at_stop" not in evidence.notes and "nll_before" not in evidence.notes:
        return None
    loss, contrast, size = (
        evidence.own("loss_at_stop"),
        evidence.contrast("update_norm"),
        evidence.own("delta_relative"),
    )
    told = evidence.figures("update_norm", "delta_relative", "loss_at_stop", "steps")
    if "loss_at_stop" in evidence.notes and loss is None:
        said = f"the training diverged: its loss was {evidence.notes['loss_at_stop']} at the end"
        return Cause("learning", said, "a lower learning rate or fewer steps avoid it", told, 2.0)
    if not ((contrast is not None and contrast >= FAR) or (size is not None and size >= WHOLE)):
        return None
    to = "" if loss is None else f" down to a loss of {exact(loss, 2)}"
    within = "" if size is None else f", {exact(size, 2)} of the weight's own norm"
    said = f"learnt too hard{to}: the update is {evidence.beside('update_norm')}{within}"
    advice = "fewer steps, a lower learning rate or a norm constraint keep it smaller"
    return Cause("learning", said, advice, told, decades(max(contrast or 0.0, size or 0.0)))


def _norm(evidence: Evidence) -> Cause | None:
    """The update is far larger than usual, or than the weight itself, and nothing says why."""
    name = "delta_relative" if evidence.own("delta_relative") is not None else "update_norm"
    own, contrast = evidence.own(name), evidence.contrast(name)
    whole = name == "delta_relative" and own is not None and own >= WHOLE
    if not whole and not (contrast is not None and contrast >= FAR):
        return None
    symbol = "||dW|| / ||W||" if name == "delta_relative" else "||dW||"
    said = f"the update is too large: {symbol} is {evidence.beside(name)}"
    advice = "RECT keeps only its largest entries, PRUNE restrains its singular values"
    strength = decades(max(contrast or 0.0, own if whole and own is not None else 0.0))
    return Cause("norm", said, advice, evidence.figures(name, "update_norm"), strength)


def unknown(evidence: Evidence) -> Cause:
    """Nothing found is a finding: with the figures that were looked at, so that nobody has to look again."""
    names = [name for name in SIGNALS if evidence.own(name) is not None]
    told = {name: own for name in names if (own := evidence.own(name)) is not None}
    if not names:
        return Cause("unknown", "no cause found: the edit tells nothing about itself that could be compared")
    compared = [name for name in names if evidence.usual(name)]
    if not compared:
        said = ", ".join(f"{name} {exact(told[name], 2)}" for name in names)
        return Cause("unknown", f"no cause found, and no edit stays that it could be compared with: {said}", "", told)
    said = ", ".join(f"{name} {evidence.beside(name)}" for name in compared)
    return Cause("unknown", f"no cause found: no signal stands out ({said})", "", told)
