"""Room: what a model takes and what there is, counted before anything is loaded; and the dtype that follows from it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from editsafety.errors import UsageError
from editsafety.model import room
from editsafety.model.handle import ModelHandle
from editsafety.model.loading import ModelSpec
from tests import tiny

CPU = torch.device("cpu")


def test_a_model_is_counted_from_its_files_without_being_loaded(tmp_path: Path) -> None:
    folder = tiny.folder(tmp_path / "model")
    expected = sum(parameter.numel() for parameter in tiny.handle("gpt2").model.parameters())
    assert room.parameters(ModelSpec(str(folder))) == expected
    assert room.parameters(ModelSpec("random:gpt2")) == 124_439_808  # as published
    assert room.parameters(ModelSpec("nobody/has-this-model")) is None
    assert room.parameters(ModelSpec("::no name::")) is None
    (folder / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(UsageError, match=r"model\.safetensors: is no file of weights"):
        room.parameters(ModelSpec(str(folder)))


def test_weights_a_copy_and_as_much_for_gradients_are_counted_and_no_copy_of_large_models() -> None:
    assert room.needed_memory(1000, "float32") == 3 * 4000
    assert room.needed_memory(1000, "bfloat16") == 3 * 2000
    assert room.needed_memory(2 << 30, "float32") == 2 * (8 << 30)


@pytest.mark.parametrize(
    ("there", "dtype"),
    # gpt2 has 124,439,808 numbers: 1.49e9 bytes in float32 with its copy and gradients, of at most 0.9 of the memory
    [(1_660_000_000, "float32"), (1_658_000_000, "bfloat16"), (None, "float32")],
)
def test_auto_is_float32_where_it_fits_and_bfloat16_where_it_does_not(
    there: int | None, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "whole_memory", lambda _: there)
    asked = ModelSpec("random:gpt2", dtype="auto")
    taken = room.settled(asked, [CPU])
    assert taken.dtype == dtype
    said = room.announcement(asked, taken, [CPU])
    if dtype == "float32":
        assert said is None
    else:
        assert said == (
            "gpt2: as bfloat16, since float32 takes about 1.4 GiB and cpu has 1.5 GiB; --dtype float32 insists"
        )
    assert room.settled(ModelSpec("random:gpt2", dtype="float32"), [CPU]).dtype == "float32"  # said, so done


def test_a_model_is_loaded_in_what_auto_came_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = ModelSpec(str(tiny.folder(tmp_path / "model")), "cpu", "auto")
    wide = ModelHandle.load(spec)
    assert (wide.spec.dtype, wide.model.dtype) == ("float32", torch.float32)
    monkeypatch.setattr(room, "whole_memory", lambda _: 1)
    narrow = ModelHandle.load(spec)
    assert (narrow.spec.dtype, narrow.model.dtype) == ("bfloat16", torch.bfloat16)


def test_a_file_that_cannot_be_counted_is_left_to_the_loading(tmp_path: Path) -> None:
    folder = tiny.folder(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    assert room.settled(ModelSpec(str(folder), dtype="auto"), [CPU]).dtype == "float32"


def test_what_is_kept_goes_to_the_cpu_where_a_gpu_would_get_short(monkeypatch: pytest.MonkeyPatch) -> None:
    # llama-3-8b in float16 with the factors of five layers (and one that is being made) on 24 and on 80 GB
    card, weights, factors = torch.device("cuda"), 16_060_000_000, 6 * 14_336**2 * 8
    monkeypatch.setattr(room, "whole_memory", lambda _: 24 << 30)
    assert room.place_for(card, weights, factors) == CPU
    monkeypatch.setattr(room, "whole_memory", lambda _: 80 << 30)
    assert room.place_for(card, weights, factors) == card
    assert room.place_for(CPU, weights, factors) == CPU
