"""GPUs that are not there, are hidden, or are slices of one: in processes of their own, as torch asks only once."""

from __future__ import annotations

import pytest
import torch

from tests.system.commands import ended, given, report, start

without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="what happens where there is no GPU")
HIDDEN = ("", "7", "MIG-11111111-2222-3333-4444-555555555555")


@pytest.mark.thorough
@without_gpu
@pytest.mark.parametrize("visible", HIDDEN)
def test_whatever_is_said_to_be_visible_a_run_takes_what_there_is(paths, tmp_path, visible):
    words = ["run", *(word for word in given(paths, "Nudge", out="out", controls=0) if word != "--device=cpu")]
    done = ended(start(*words, "--device", "auto", cwd=tmp_path, CUDA_VISIBLE_DEVICES=visible))
    assert report(tmp_path / "out")["verdict"] != "ERROR", done.out + done.err
    assert done.code == 11  # Nudge writes no fact


@without_gpu
@pytest.mark.parametrize("device", ["cuda", "cuda:99", "mps", "gpu"])
def test_a_device_that_is_not_here_is_a_sentence_with_what_to_give(paths, command, device):
    words = [word for word in given(paths, "Nudge", out="out", controls=0) if word != "--device=cpu"]
    done = command("run", *words, f"--device={device}")
    assert done.code in (4, 13)
    assert "PASS" not in done.out
    assert "cpu" in done.out + done.err
    assert "Traceback" not in done.out + done.err
