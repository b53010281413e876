"""Models that are in memory, or come out of a user's function, are crash-tested like any other."""

from __future__ import annotations

import pytest

from editsafety import crash_test
from editsafety.errors import ModelError
from editsafety.judging.verdict import Verdict
from editsafety.model import room
from editsafety.model.handle import ModelHandle
from tests import tiny
from tests.system import world

FUNCTION = """
from tests import tiny

def made():
    return tiny.model("gpt2"), tiny.tokenizer()

def half_made():
    return tiny.model("gpt2")
"""


def test_a_model_in_memory_is_judged_and_left_as_it_was(paths):
    model, tokenizer = tiny.knowing(tiny.model("gpt2")), tiny.tokenizer()
    before = ModelHandle.of(model, tokenizer, name="mine").fingerprint()
    editors = [world.spelled(paths, "Nudge"), world.spelled(paths, "Explodes")]
    data = {"hard": paths["hard"], "normal": paths["normal"], "texts_from": paths["texts"]}
    report = crash_test(model, tokenizer, editors, name="mine", controls=0, **data)
    assert {group.editor: group.verdict for group in report.groups} == {
        "Nudge": Verdict.INEFFECTIVE,
        "Explodes": Verdict.COLLAPSE,
    }
    assert ModelHandle.of(model, tokenizer, name="mine").fingerprint() == before


def test_a_users_function_may_make_the_model(tmp_path):
    (tmp_path / "models.py").write_text(FUNCTION)
    handle = ModelHandle.load(f"{tmp_path / 'models.py'}:made")
    assert (handle.name, handle.architecture.model_type, handle.reloadable) == ("made", "gpt2", True)
    with pytest.raises(ModelError, match=r"expected a tuple \(model, tokenizer\)"):
        ModelHandle.load(f"{tmp_path / 'models.py'}:half_made")


def test_a_model_too_large_to_copy_is_brought_back_from_its_source(tmp_path, monkeypatch):
    from editsafety.edits.seal import Keepsake

    handle = ModelHandle.load(str(tiny.folder(tmp_path / "m")))
    size = sum(tensor.numel() * tensor.element_size() for tensor in handle.tensors().values())
    for free, most, copied in ((2 * size, size, True), (2 * size - 1, size, False), (None, size, True)):
        monkeypatch.setattr(room, "free_memory", lambda free=free: free)
        keepsake = Keepsake.of(handle, most_bytes=most)
        assert all((kept is not None) is copied for _, kept in keepsake.values.values())
    keepsake = Keepsake.of(handle, most_bytes=0)
    assert all(kept is None for _, kept in keepsake.values.values())
    handle.model.get_input_embeddings().weight.data.zero_()
    keepsake.restore(handle)
    assert handle.fingerprint() == handle.identity
