"""Sidecars of a saved edit: judged like weights, whatever they do."""

import pytest
import torch

from editsafety.edits.edit import Edit
from editsafety.errors import EditError, UsageError
from editsafety.judging.verdict import Verdict
from editsafety.received.receiving import saved_edit
from tests import tiny
from tests.received.given import REQUESTS, Louder, judged, with_sidecar


class Fails(Louder):
    def after(self, module, args, kwargs, output):
        raise ValueError("no such codebook")


class Writes(Louder):
    def after(self, module, args, kwargs, output):
        with torch.no_grad():
            module.weight += 1
        return output


class Swaps(Louder):
    def after(self, module, args, kwargs, output):
        module.weight.data = module.weight.data * 1.01
        return output


def test_a_sidecar_is_judged_though_no_weight_changes(policy):
    handle = tiny.handle("gpt2")
    found = judged(handle, with_sidecar(handle, Louder()), policy)
    assert found.group.verdict is Verdict.COLLAPSE
    assert found.changes == ()


@pytest.mark.parametrize(("car", "said"), [(Fails(), "no such codebook"), (Writes(), "ln_f.weight differs")])
def test_a_sidecar_that_misbehaves_is_an_error_and_no_crash(car, said, policy):
    handle = tiny.handle("gpt2")
    found = judged(handle, with_sidecar(handle, car), policy, REQUESTS)
    assert found.group.verdict is Verdict.ERROR
    assert said in found.reasons[0].sentence
    assert found.group.verdict.exit_code == 13


def test_a_sidecar_that_changes_a_weight_it_did_not_declare_is_an_error(policy):
    handle = tiny.handle("gpt2")
    found = judged(handle, with_sidecar(handle, Swaps()), policy)
    assert "changed what it did not declare: transformer.ln_f.weight" in found.reasons[0].sentence
    assert found.records[0].step.leftovers
    assert handle.fingerprint() == handle.identity


def test_sidecars_are_rebuilt_by_the_editor_that_the_file_or_the_user_names(tmp_path):
    handle = tiny.handle("gpt2")
    edit = Edit("somebody", (), handle.identity, sidecars=(Louder(),))
    edit.save(tmp_path / "car.safetensors")
    with pytest.raises(EditError, match="needs the sidecar 'louder'"):
        saved_edit(tmp_path / "car.safetensors")
    (tmp_path / "mine.py").write_text(MINE)
    found = saved_edit(tmp_path / "car.safetensors", f"{tmp_path / 'mine.py'}:Mine")
    assert [car.kind for car in found.sidecars] == ["louder"]
    with pytest.raises(UsageError, match="no editor named 'mien'"):
        saved_edit(tmp_path / "car.safetensors", "mien")


MINE = """
from editsafety import Edit, Editor
from tests.received.given import Louder

class Mine(Editor):
    sidecars = {"louder": Louder}

    def edit(self, requests, carry=None):
        return Edit(self.name, (), self.handle.identity)
"""
