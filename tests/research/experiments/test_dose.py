"""The same edit at growing strength: the doses are what they say, and the table is that of the models they give."""

import math
from dataclasses import replace

import pytest
import torch

from editsafety.edits.edit import Edit, LowRank, Replace
from editsafety.edits.session import EditSession
from editsafety.errors import UsageError
from editsafety.research.experiments import dose
from editsafety.research.surrogate import Observation
from editsafety.runs.probes import NONE
from tests import tiny


def edited(handle, edit):
    with EditSession(handle) as session:
        session.apply(edit)
        return {name: handle.model.get_parameter(name).detach().clone() for name in edit.parameters}


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_a_dose_moves_the_weights_by_that_share_of_the_edit(share):
    handle = tiny.handle("gpt2")
    site, name = handle.mlp_out(1), "transformer.ln_f.weight"
    draw = torch.Generator().manual_seed(3)
    left, right = torch.randn(site.d_out, 2, generator=draw), torch.randn(2, site.d_in, generator=draw)
    whole = handle.model.get_parameter(name).detach() + torch.randn(site.d_out, generator=draw)
    edit = Edit("x", ("r",), handle.identity, (LowRank(site, left, right), Replace(name, whole)))
    before = {n: handle.model.get_parameter(n).detach().clone() for n in edit.parameters}
    full, part = edited(handle, edit), edited(handle, dose.at(edit, share, handle))
    for n in edit.parameters:
        torch.testing.assert_close(part[n] - before[n], share * (full[n] - before[n]), atol=1e-5, rtol=1e-4)


def test_an_edit_without_weights_has_no_half():
    with pytest.raises(UsageError, match="changes no weights"):
        dose.at(Edit("grace", ("r",), "f"), 0.5, tiny.handle("gpt2"))


def test_every_request_is_tried_at_every_dose_and_the_largest_is_the_edit_itself(shared):
    found = dose.EXPERIMENT(shared)
    assert found.rows[0][0] == "choosing"
    assert f"over {2 * len(dose.DOSES)} edited models" in found.sentence
    assert dose.DOSES[-1] == 1.0


def test_a_model_without_abilities_is_refused_with_a_sentence(shared):
    lean = replace(shared, settings=replace(shared.settings, probe=(NONE,)), handles=dict(shared.handles))
    with pytest.raises(UsageError, match="no abilities to measure; give some"):
        dose.EXPERIMENT(lean)


def test_the_bins_cover_every_ratio_once_the_broken_included():
    for ratio in (0.9, 1.0, 1.05, 1.25, 1.9999, 2.0, 9.0, 10.0, 99.0, 100.0, 1e9, math.inf):
        one = [Observation("m", "e", "w", ratio)]
        assert sum(len(dose._inside(one, *bin_)) for bin_ in dose.BINS) == 1
