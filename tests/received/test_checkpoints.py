"""An edit written into a checkpoint: what it says, and what is refused."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from editsafety import received
from editsafety.edits.edit import Edit
from editsafety.edits.seal import Seal
from editsafety.errors import EditError, UsageError
from tests import tiny
from tests.received.given import TEXTS, Louder, nudge, with_sidecar


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_checkpoint_with_the_edit_says_what_the_edited_model_says(family, tmp_path):
    handle = tiny.handle(family)
    edit = nudge(handle, size=0.05)
    received.write_checkpoint(handle, edit, tmp_path / "new" / "written")
    batch = handle.batch([handle.ids(TEXTS[0])])
    with torch.no_grad():
        plain = AutoModelForCausalLM.from_pretrained(tmp_path / "new" / "written")(batch.ids).logits
        assert not torch.allclose(plain, handle.logits(batch), atol=1e-3)
        handle.model.get_parameter(handle.mlp_out(1).parameter).copy_(
            edit.deltas[0].on(handle.model.get_parameter(handle.mlp_out(1).parameter))
        )
        assert torch.allclose(plain, handle.logits(batch), atol=1e-5)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["written"]


def test_what_no_checkpoint_can_hold_or_overwrite_is_refused(tmp_path):
    handle = tiny.handle("gpt2")
    with pytest.raises(EditError, match="acts by louder, code that runs beside the model"):
        received.write_checkpoint(handle, with_sidecar(handle, Louder()).edit, tmp_path / "out")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    for place in (tmp_path / "out", tmp_path / "out" / "mine.txt"):
        with pytest.raises(UsageError, match="is not an empty folder"):
            received.write_checkpoint(handle, nudge(handle), place)
    assert (tmp_path / "out" / "mine.txt").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    received.write_checkpoint(handle, nudge(handle), tmp_path / "empty")
    assert (tmp_path / "empty" / "config.json").is_file()


def test_nothing_is_left_of_a_checkpoint_that_could_not_be_written(tmp_path, monkeypatch):
    handle = tiny.handle("gpt2")
    seal = Seal.of(handle)

    def full(place):
        place.mkdir()
        (place / "half").write_text("a model")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(handle.model, "save_pretrained", full)
    with pytest.raises(UsageError, match="No space left on device"):
        received.write_checkpoint(handle, nudge(handle), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    assert seal.changed(Seal.of(handle)) == ()
    with pytest.raises(EditError, match="fingerprint"):
        received.write_checkpoint(handle, Edit("x", (), "0" * 64), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
