"""Edited models as they are handed over, and their judging."""

import torch

from editsafety import received
from editsafety.edits.edit import Edit
from editsafety.received.receiving import Handed, receive
from tests import tiny
from tests.sidecars import EmptySidecar

TEXTS = tiny.SENTENCES
REQUESTS = (tiny.request(), tiny.request("case-1", subject="Toren"))


def nudge(handle, *, size=1e-3, rank=1):
    return Edit("nudge", ("case-0",), handle.identity, (tiny.low_rank(handle.mlp_out(1), size=size, rank=rank),))


def folder(tmp_path, change=None, family="gpt2", name="edited", **more):
    """A copy of the tiny model, with something done to it."""
    model = tiny.model(family, **more)
    if change is not None:
        with torch.no_grad():
            change(model)
    model.save_pretrained(tmp_path / name)
    tiny.tokenizer().save_pretrained(tmp_path / name)
    return str(tmp_path / name)


def judged(handle, place, policy, requests=()):
    given = place if isinstance(place, Handed) else receive(handle, str(place), TEXTS)
    return received.examine(received.unedited(handle, TEXTS, policy), given, requests, policy)


def by_name(handle, found):
    return {one.name: one for one in found}


class Louder(EmptySidecar):
    """Multiplies the last norm's output."""

    kind = "louder"

    def after(self, module, args, kwargs, output):
        return output * 100


def with_sidecar(handle, car):
    return Handed("car", "edit", Edit("somebody", (), handle.identity, sidecars=(car,)), 1)
