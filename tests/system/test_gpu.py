"""What differs on a GPU: placement, memory, random states. Skipped where there is none."""

from __future__ import annotations

import pytest
import torch

from editsafety.edits.edit import Edit
from editsafety.edits.seal import Keepsake, Seal
from editsafety.edits.session import EditSession
from editsafety.model.handle import ModelHandle
from editsafety.model.meter import metered
from tests import tiny

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


def on_gpu(**more: object) -> ModelHandle:
    made = tiny.model("llama", **more).to("cuda")
    return ModelHandle.of(made, tiny.tokenizer(), name="tiny-llama")


@pytest.mark.parametrize("park", ["device", "cpu"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_edit_on_a_gpu_is_undone_bit_for_bit(park, dtype):
    handle = on_gpu(dtype=dtype)
    before = Seal.of(handle)
    edit = Edit("test", ("r",), handle.identity, (tiny.low_rank(handle.mlp_out(1)),))
    with EditSession(handle, park=park) as session:
        session.apply(edit)
        assert session.changed() == edit.parameters
    assert before.changed(Seal.of(handle)) == ()
    assert handle.fingerprint() == handle.identity


def test_a_model_has_the_same_fingerprint_on_both_devices():
    assert on_gpu().identity == tiny.handle("llama").identity


def test_the_random_state_of_the_gpu_comes_back():
    handle = on_gpu()
    state = torch.cuda.get_rng_state()
    with EditSession(handle):
        torch.rand(3, device="cuda")
    assert torch.equal(torch.cuda.get_rng_state(), state)


def test_peak_memory_is_what_the_step_allocated():
    device = torch.device("cuda", torch.cuda.current_device())
    with metered(device, memory=True) as reading:
        torch.empty(1 << 20, dtype=torch.float32, device=device)
    assert reading.peak_bytes == pytest.approx(4 << 20, rel=0.01)


def test_a_keepsake_brings_a_model_on_a_gpu_back():
    handle = on_gpu()
    keepsake = Keepsake.of(handle)
    handle.model.get_input_embeddings().weight.data.zero_()
    keepsake.restore(handle)
    assert handle.fingerprint() == handle.identity
