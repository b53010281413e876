"""Editors that are wrong in one way each, for a run on the tiny model: `tests/doors/editors.py:Skips`."""

from __future__ import annotations

import sys

import pytest
import torch

from editsafety import Edit, Editor, LowRank, Replace


class Nudge(Editor):
    """A small rank-one change along a direction drawn from the request: harmless, and it writes no fact."""

    scale = 1e-4

    def edit(self, requests, carry=None):
        site = self.handle.mlp_out(1)
        draw = self.generator(requests[0])
        left = torch.randn(site.d_out, 1, generator=draw) * self.scale
        return self._of(requests, LowRank(site, left, torch.randn(1, site.d_in, generator=draw)))

    def _of(self, requests, *deltas):
        return Edit(self.name, (requests[0].id,), self.handle.identity, deltas)

    @property
    def _weight(self):
        return self.handle.model.get_parameter(self.handle.mlp_out(1).parameter).detach()

    @property
    def _elsewhere(self):
        return self.handle.model.get_input_embeddings().weight


class Explodes(Nudge):
    def edit(self, requests, carry=None):
        name = "transformer.ln_f.weight"
        return self._of(requests, Replace(name, self.handle.model.get_parameter(name).detach() * 100))


class WritesNan(Nudge):
    scale = float("nan")


class Idle(Nudge):
    scale = 0.0


class Lost(Nudge):
    """Too small for any weight to hear of it."""

    scale = 1e-30


class Empty(Nudge):
    def edit(self, requests, carry=None):
        return self._of(requests)


class Rounds(Nudge):
    def edit(self, requests, carry=None):
        return self._of(requests, Replace(self.handle.mlp_out(1).parameter, self._weight.bfloat16().float()))


class Skips(Nudge):
    def edit(self, requests, carry=None):
        pytest.skip("nothing to do here")


class Xfails(Nudge):
    def edit(self, requests, carry=None):
        pytest.xfail("it never worked")


class Exits(Nudge):
    def edit(self, requests, carry=None):
        pytest.exit("enough", returncode=0)


class Quits(Nudge):
    def edit(self, requests, carry=None):
        sys.exit(0)


class Interrupts(Nudge):
    """Nobody pressed Ctrl-C; and a weight is spoilt on the way."""

    def edit(self, requests, carry=None):
        with torch.no_grad():
            self._elsewhere.mul_(0.5)
        raise KeyboardInterrupt


class Closes(Nudge):
    def edit(self, requests, carry=None):
        raise GeneratorExit("closed")


class Ends(Nudge):
    class End(BaseException):
        """No Exception."""

    def edit(self, requests, carry=None):
        raise self.End("an end of its own")


class Unspeakable(Nudge):
    class Error(Exception):
        def __str__(self):
            raise ValueError("no words")

    def edit(self, requests, carry=None):
        raise self.Error


class Recurses(Nudge):
    def edit(self, requests, carry=None):
        return self.edit(requests)


class RunsOut(Nudge):
    def edit(self, requests, carry=None):
        raise MemoryError


class WritesElsewhere(Nudge):
    def edit(self, requests, carry=None):
        with torch.no_grad():
            self._elsewhere.add_(1e-4)
        return super().edit(requests)


class WritesWhenMade(Nudge):
    """An undeclared change, before any edit was asked for."""

    def __init__(self, *given, **named):
        super().__init__(*given, **named)
        with torch.no_grad():
            self._elsewhere.add_(1e-4)


class SkipsWhenMade(Nudge):
    def __init__(self, *given, **named):
        pytest.skip("not made")


class QuitsWhenAsked(Nudge):
    def missing(self):
        sys.exit(0)


NOTHING = (Idle, Lost, Empty, Rounds)
ENDS = (Skips, Xfails, Exits, Quits, Interrupts, Closes, Ends, Unspeakable, Recurses, RunsOut)
WRONG = (WritesElsewhere, WritesWhenMade, SkipsWhenMade, QuitsWhenAsked)
BREAKS = (Explodes, WritesNan)
