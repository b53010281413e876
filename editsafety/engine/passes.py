"""Passes: batches that are run on one edited model after another, each entered at the first layer that is edited.

The hidden states that enter the lowest edited block are those of the unedited model, whatever the edit, so they are
kept from one edited model to the next: the second time that a batch comes (the first may have been the only one), for
as long as there is room. What comes out is, bit for bit, what the whole pass gives; that is tried when states are kept,
and where it does not hold, the whole pass is run, as it is where anything runs beside the model (a sidecar, a hook).

An undeclared write below the lowest declared one would not show in what is measured so. It shows when the session ends,
which compares every byte, and then nothing is believed that was measured in it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

from editsafety.engine.continuing import made_once
from editsafety.engine.layers import Entrance, LowerLayers, enter, record, stands_alone
from editsafety.engine.unpadded import Unpadded
from editsafety.model import scoring
from editsafety.model.handle import Batch, ModelHandle
from editsafety.model.logits import only_at
from editsafety.model.scoring import Look, log_likelihoods

# Bytes that are kept of one model. Fifty texts of 30 tokens take 13 MB on pocket-neo and 60 MB on llama-2-7b in
# float16; ten times that is a share of any machine that holds the model itself, and more is rarely read often enough.
MOST = 512 << 20
_SHOWN = "batches that were run for their logits"


@dataclass(frozen=True, slots=True)
class _OfState:
    """Something was found out about the model as a session has made it."""

    key: Hashable


@dataclass(frozen=True, slots=True)
class _Came:
    """A batch has been run before."""

    batch: str


@dataclass(frozen=True, slots=True)
class _Entered:
    """Where the states of a batch are kept; None in their place where the batch cannot be entered."""

    batch: str
    entrance: Entrance


@dataclass(frozen=True, slots=True, eq=False)
class _States:
    """What is kept of a batch: what its lower layers give, and where it holds a token that another one follows."""

    lower: LowerLayers
    rows: Tensor
    places: Tensor
    # How padding is left out; None where it is not.
    unpadded: Unpadded | None = None


Value = TypeVar("Value")


def keep(handle: ModelHandle, key: Hashable, make: Callable[[], Value]) -> Value:
    """What `make` gives, from the second time on as it was given first; inside of a session, and of one model only."""
    engine = handle.engine
    if engine.plain or engine.touched is None:
        return make()
    if key not in engine.kept:
        engine.kept[key] = make()
    value: Value = engine.kept[key]
    return value


def keep_of_state(handle: ModelHandle, key: Hashable, make: Callable[[], Value]) -> Value:
    """What `make` finds out about the model as it is, once as long as the session around it does not change it."""
    engine = handle.engine
    if engine.plain or engine.touched is None:
        return make()
    changes, value = engine.kept.get(_OfState(key), (None, None))
    if changes != engine.changes:
        changes, value = engine.kept[_OfState(key)] = engine.changes, make()
    found: Value = value
    return found


def batch_nll(handle: ModelHandle, batch: Batch) -> Tensor:
    """`scoring.batch_nll`, entered at the first edited layer; where a row has ended, there may be anything.

    A batch that was run already for its logits, by a model that has not changed since, is not run again.
    """
    known = _shown(handle)
    found = known.get(digest(batch)) if known else None
    return _run(handle, batch, None) if found is None else found


def show_batch(handle: ModelHandle, batch: Batch, look: Look) -> Tensor:
    """What `batch_nll` gives, and its logits are shown to `look`: one pass serves whoever asks for either."""
    nll = _shown(handle)[digest(batch)] = _run(handle, batch, look)
    return nll


def digest(batch: Batch) -> str:
    """sha256 of the tokens of a batch."""
    rows = torch.stack([batch.ids, batch.mask]).cpu().contiguous()
    return hashlib.sha256(f"{tuple(rows.shape)}".encode() + rows.numpy().tobytes()).hexdigest()


def _shown(handle: ModelHandle) -> dict[str, Tensor]:
    """What batches came to that were run for their logits, since the model changed."""
    known: dict[str, Tensor] = made_once(handle, _SHOWN, dict)
    return known


@torch.no_grad()
def _run(handle: ModelHandle, batch: Batch, look: Look | None) -> Tensor:
    engine = handle.engine
    if engine.plain or engine.touched is None or not stands_alone(handle):
        return scoring.batch_nll(handle, batch, look)
    came = _Came(digest(batch))
    entrance = Entrance.below(handle, engine.touched)
    if entrance is None or came not in engine.kept:
        engine.kept[came] = True
        return scoring.batch_nll(handle, batch, look)
    place = _Entered(came.batch, entrance)
    if place not in engine.kept:
        return _keep(handle, batch, place, look)
    states: _States | None = engine.kept[place]
    return scoring.batch_nll(handle, batch, look) if states is None else _enter(handle, batch, states, look)


def _keep(handle: ModelHandle, batch: Batch, place: _Entered, look: Look | None) -> Tensor:
    """Run the whole pass and keep what enters the edited layers, if there is room for it and it proves to be enough."""
    entrance = next((one for one in _choices(place.entrance) if _make_room(handle, batch, one)), None)
    if entrance is None:
        return scoring.batch_nll(handle, batch, look)
    with record(handle, entrance) as recording:
        whole = scoring.batch_nll(handle, batch, look)
    handle.engine.kept[place] = None
    if recording.lower is not None and recording.lower.whole:
        states = _States(recording.lower, *scoring.followed(batch))
        rows, places = states.rows.cpu(), states.places.cpu()
        for how in dict.fromkeys((Unpadded.of(batch), None)):
            states = replace(states, unpadded=how)
            again = _pass(handle, batch, states)
            if recording.lower.whole and same_bits(again[rows, places], whole[rows, places]):
                handle.engine.kept[place] = states
                break
    return whole


def _enter(handle: ModelHandle, batch: Batch, states: _States, look: Look | None = None) -> Tensor:
    """The rest of the pass, without padding if everything is finite: what breaks may break where the padding is."""
    shown: list[tuple[int, Callable[[Tensor], Tensor]]] = []
    nll = _pass(handle, batch, states, lambda *what: shown.append(what))
    if states.unpadded is not None and not nll.isfinite().all():
        shown.clear()
        nll = _pass(handle, batch, replace(states, unpadded=None), lambda *what: shown.append(what))
    if look is not None:
        for what in shown:
            look(*what)
    return nll


def _pass(handle: ModelHandle, batch: Batch, states: _States, look: Look | None = None) -> Tensor:
    """One pass; logits are taken where another token follows, and not behind the end of a row."""
    how = nullcontext() if states.unpadded is None else states.unpadded.passing(handle, states.lower)
    with enter(handle, states.lower), how, only_at(handle, states.rows, states.places):
        read = handle.logits(batch)[0]
    if look is not None:
        look(len(read), lambda chosen: read[chosen])
    nll = torch.zeros(batch.ids.shape[0], batch.ids.shape[1] - 1)
    following = batch.ids[:, 1:][states.rows, states.places]
    nll[states.rows.cpu(), states.places.cpu()] = -log_likelihoods(read, following).float()
    return nll


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors of one type hold the same bits (by `==`, NaN would not be equal to itself)."""
    alike = one.shape == other.shape and one.dtype == other.dtype
    return alike and torch.equal(one.contiguous().view(torch.uint8), other.contiguous().view(torch.uint8))


def _choices(entrance: Entrance) -> tuple[Entrance, ...]:
    """Inside of a block takes more memory than in front of it."""
    front = (Entrance(entrance.layer),) if entrance.layer else ()
    return (entrance, *front) if entrance.inside else front


def _make_room(handle: ModelHandle, batch: Batch, entrance: Entrance) -> bool:
    """Whether what is kept of a batch finds room, if need be in place of what was kept for edits of other layers."""
    kept = {place: one.lower for place, one in handle.engine.kept.items() if isinstance(one, _States)}
    needed, free = _size(handle, batch, entrance), MOST - sum(lower.size for lower in kept.values())
    others = {place: lower for place, lower in kept.items() if lower.entrance.layer != entrance.layer}
    if needed > free + sum(lower.size for lower in others.values()):
        return False
    for place, lower in others.items():
        if needed > free:
            free += lower.size
            del handle.engine.kept[place]
    return True


def _size(handle: ModelHandle, batch: Batch, entrance: Entrance) -> int:
    """Bytes that are kept of a batch."""
    site = handle.mlp_out(min(entrance.layer, handle.layers - 1))
    width = site.d_out * (entrance.layer > 0) + (site.d_out + site.d_in) * entrance.inside
    return batch.ids.numel() * width * handle.weight(site).element_size()
