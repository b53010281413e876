"""Vault: what comes out is what went in, or the file is refused by name; a failed write leaves the old file."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from editsafety import tensor_files
from editsafety.errors import EditSafetyError

TENSORS = {
    "weight": torch.randn(5, 7),
    "half": torch.randn(3, 4).to(torch.bfloat16),
    "quarter": torch.randn(6).to(torch.float16),
    "count": torch.arange(9),
    "flag": torch.tensor([True, False]),
    "one": torch.tensor(3.5),
    "none": torch.zeros(0, 4),
}
ABOUT = {"what": "a test", "numbers": [1, 2.5], "text": "Zürich 東京"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    place = tmp_path / "kept.safetensors"
    tensor_files.save(place, TENSORS, ABOUT)
    return place


def assert_whole(path: Path) -> None:
    tensors, about = tensor_files.load(path)
    assert about == ABOUT
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype
        assert torch.equal(tensors[name], tensor)


def test_tensors_of_every_dtype_and_text_of_every_script_come_back(path: Path) -> None:
    assert_whole(path)


def test_bits_come_back_not_only_values(tmp_path: Path) -> None:
    tensor = torch.tensor([float("nan"), -0.0, float("inf"), 1e-45])
    tensor_files.save(tmp_path / "a", {"t": tensor}, {})
    assert torch.equal(tensor_files.load(tmp_path / "a")[0]["t"].view(torch.int32), tensor.view(torch.int32))


def test_tensors_that_share_memory_and_transposed_ones_can_be_saved(tmp_path: Path) -> None:
    base = torch.randn(4, 4)
    shared = {"whole": base, "again": base, "row": base[1], "turned": base.T, "column": base[:, 2]}
    tensor_files.save(tmp_path / "a", shared, {})
    tensors, _ = tensor_files.load(tmp_path / "a")
    assert all(torch.equal(tensors[name], tensor) for name, tensor in shared.items())


def test_trained_parameters_can_be_saved(tmp_path: Path) -> None:
    parameter = torch.nn.Parameter(torch.ones(2))
    tensor_files.save(tmp_path / "a", {"p": parameter}, {})
    assert not tensor_files.load(tmp_path / "a")[0]["p"].requires_grad


def test_an_empty_vault_is_a_vault(tmp_path: Path) -> None:
    tensor_files.save(tmp_path / "a", {}, {"what": "nothing"})
    assert tensor_files.load(tmp_path / "a") == ({}, {"what": "nothing"})


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        tensor_files.save(tmp_path / name, TENSORS, ABOUT)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_flipped_bit_anywhere_is_refused_by_name(path: Path) -> None:
    """Every byte of the first kilobyte and of the data, a sample of the rest; a random bit of each."""
    whole, rng = path.read_bytes(), random.Random(0)
    places = {*range(64), *range(len(whole) - 400, len(whole)), *rng.sample(range(len(whole)), 500)}
    for place in sorted(places):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << rng.randrange(8)]) + whole[place + 1 :])
        with pytest.raises(EditSafetyError, match=r"kept.safetensors"):
            tensor_files.load(path)
    path.write_bytes(whole)
    assert_whole(path)


def test_a_truncated_file_is_refused_by_name(path: Path) -> None:
    whole = path.read_bytes()
    for size in (0, 1, 7, 8, 9, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(EditSafetyError, match=r"kept.safetensors: not a whole safetensors file"):
            tensor_files.load(path)


def test_a_file_with_something_behind_it_is_refused(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"more")
    with pytest.raises(EditSafetyError, match="not a whole safetensors file"):
        tensor_files.load(path)


def test_other_files_are_refused_by_name(tmp_path: Path) -> None:
    place = tmp_path / "x"
    save_file({"a": torch.zeros(2)}, place)
    with pytest.raises(EditSafetyError, match="not one that editsafety wrote"):
        tensor_files.load(place)
    for body in (b"", b"hello", b"\x00" * 100, b"\xff" * 100, json.dumps({"a": 1}).encode(), b"<html>quota</html>"):
        place.write_bytes(body)
        with pytest.raises(EditSafetyError, match="not a whole safetensors file"):
            tensor_files.load(place)
    with pytest.raises(EditSafetyError, match="there is no such file"):
        tensor_files.load(tmp_path / "missing")
    with pytest.raises(EditSafetyError, match="is a folder; expected"):
        tensor_files.load(tmp_path)


class Bomb:
    def __reduce__(self) -> Any:
        return (os.system, ("touch code-was-run",))


def test_a_pickle_is_refused_and_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    buffer = io.BytesIO()
    torch.save({"a": torch.zeros(1)}, buffer)
    for body in (pickle.dumps(Bomb()), buffer.getvalue()):
        (tmp_path / "x").write_bytes(body)
        with pytest.raises(EditSafetyError, match="not a whole safetensors file"):
            tensor_files.load(tmp_path / "x")
    assert list(tmp_path.iterdir()) == [tmp_path / "x"]


def test_a_header_that_promises_gigabytes_is_refused(tmp_path: Path) -> None:
    for size in (2**63, 2**40, 200_000_000):
        (tmp_path / "x").write_bytes(size.to_bytes(8, "little") + b"{}")
        with pytest.raises(EditSafetyError, match="not a whole safetensors file"):
            tensor_files.load(tmp_path / "x")


def test_another_format_number_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensor_files, "FORMAT", 99)
    tensor_files.save(tmp_path / "x", TENSORS, ABOUT)
    monkeypatch.undo()
    with pytest.raises(EditSafetyError, match="format 99; this version of editsafety reads format 1"):
        tensor_files.load(tmp_path / "x")


def test_nan_in_the_description_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        tensor_files.save(tmp_path / "x", {}, {"loss": float("nan")})
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------------------------------------------- failing writes


def failing_at(call: int, real: Callable[..., Any]) -> Callable[..., Any]:
    """`real`, but the n-th call finds the disk full."""
    count = 0

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        nonlocal count
        count += 1
        if count == call:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*args, **kwargs)

    return wrapper


@pytest.mark.parametrize("name", ["write", "fsync", "chmod", "replace", "fdopen"])
@pytest.mark.parametrize("call", [1, 2, 3])
def test_a_disk_that_is_full_at_the_nth_call_leaves_the_old_file_and_no_debris(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, call: int
) -> None:
    """Three files are saved, each the second time; the n-th write fails: what was saved is new, the rest is old."""
    places = [tmp_path / f"{i}.safetensors" for i in range(3)]
    for place in places:
        tensor_files.save(place, TENSORS, {"version": 1})
    if name == "write":
        real = os.fdopen

        def fdopen(*args: Any, **kwargs: Any) -> Any:
            return FullFile(real(*args, **kwargs), write)

        write = failing_at(call, lambda file, data: file.write(data))
        monkeypatch.setattr(os, "fdopen", fdopen)
    else:
        monkeypatch.setattr(os, name, failing_at(call, getattr(os, name)))
    done = 0
    with pytest.raises(OSError, match="No space left"):  # noqa: PT012
        for place in places:
            tensor_files.save(place, TENSORS, {"version": 2})
            done += 1
    monkeypatch.undo()
    assert done == call - 1
    assert [tensor_files.load(place)[1]["version"] for place in places] == [2] * done + [1] * (3 - done)
    assert sorted(tmp_path.iterdir()) == places


class FullFile:
    """A file whose disk fills up half way through a write."""

    def __init__(self, file: Any, write: Callable[..., Any]) -> None:
        self._file, self._write = file, write

    def __enter__(self) -> FullFile:
        return self

    def __exit__(self, *_: Any) -> None:
        self._file.close()

    def write(self, data: bytes) -> None:
        self._file.write(data[: len(data) // 2])
        self._file.flush()
        self._write(self._file, data[len(data) // 2 :])

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def test_ctrl_c_while_writing_leaves_the_old_file_and_no_debris(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tensor_files.save(path, {}, {})
    monkeypatch.undo()
    assert_whole(path)
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_that_is_not_there_is_made(tmp_path: Path) -> None:
    place = tmp_path / "a b" / "ü" / "x.safetensors"
    tensor_files.save(place, TENSORS, ABOUT)
    assert_whole(place)


def test_a_digest_depends_on_dtype_shape_and_every_bit_and_on_nothing_else() -> None:
    tensor = torch.arange(12.0)
    assert tensor_files.digest(tensor) == tensor_files.digest(tensor.clone())
    assert tensor_files.digest(tensor.reshape(3, 4).T) == tensor_files.digest(tensor.reshape(3, 4).T.contiguous())
    others = [tensor.reshape(3, 4), tensor.reshape(4, 3), tensor.view(torch.int32), tensor.double(), -tensor]
    assert len({tensor_files.digest(tensor), *map(tensor_files.digest, others)}) == 6


def test_the_digest_is_plain_sha256_over_head_and_bytes() -> None:
    """Expected: computed here by hand, so that a file stays readable for other programs."""
    import hashlib

    tensor = torch.tensor([[1.0, 2.0]])
    assert tensor_files.digest(tensor) == hashlib.sha256(b"float32[1, 2]" + tensor.numpy().tobytes()).hexdigest()


@pytest.mark.parametrize("fate", ["overwritten", "cut short", "deleted"])
def test_what_was_loaded_owns_its_memory_whatever_becomes_of_the_file(path: Path, fate: str) -> None:
    """In place, as an editor or `cp` does: a mapped file would change under the tensors, or take the process along."""
    loaded, _ = tensor_files.load(path)
    before = {name: tensor.clone() for name, tensor in loaded.items()}
    size = path.stat().st_size
    with path.open("r+b") as file:
        if fate == "overwritten":
            file.write(b"\xab" * size)
        elif fate == "cut short":
            file.truncate(10)
        else:
            path.unlink()
    assert {name: tensor_files.digest(tensor) for name, tensor in loaded.items()} == {
        name: tensor_files.digest(tensor) for name, tensor in before.items()
    }


def sign(path: Path, text: str, tensors: dict[str, torch.Tensor]) -> None:
    """A file with this text for its header of ours, and a sha256 that fits it."""
    save_file(tensors, path, {"editsafety": text, "editsafety_sha256": hashlib.sha256(text.encode()).hexdigest()})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "its header cannot be read"),
        ("{", "its header cannot be read"),
        ('{"format": 1, "about": {"a": NaN}, "sha256": {}}', "its header cannot be read .NaN is no number."),
        ("[]", "format None; this version"),
        ("3", "format None; this version"),
        ('{"about": {}, "sha256": {}}', "format None; this version"),
        ('{"format": "1", "about": {}, "sha256": {}}', "format '1'; this version"),
        ('{"format": 1, "sha256": {}}', "about in its header is None, expected an object"),
        ('{"format": 1, "about": "replace", "sha256": {}}', "about in its header is 'replace', expected an object"),
        ('{"format": 1, "about": [[]], "sha256": {}}', "about in its header is .*, expected an object"),
        ('{"format": 1, "about": {}}', "sha256 in its header is None, expected an object"),
        ('{"format": 1, "about": {}, "sha256": ["a"]}', "sha256 in its header is .*, expected an object"),
        ('{"format": 1, "about": {}, "sha256": {}}', "holds tensors ..a.., its header promises"),
        ('{"format": 1, "about": {}, "sha256": {"a": 3}}', "tensor 'a' was altered"),
    ],
)
def test_a_header_that_is_signed_and_lies_is_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    sign(tmp_path / "x.safetensors", text, {"a": torch.zeros(2)})
    with pytest.raises(EditSafetyError, match=message) as refused:
        tensor_files.load(tmp_path / "x.safetensors")
    assert str(refused.value).startswith(f"{tmp_path / 'x.safetensors'}: ")


@pytest.mark.parametrize("header", [b"[1]", b"[" * 60_000, b'{"__metadata__": 3}', b'{"__metadata__": [1]}', b"\xff"])
def test_a_header_that_is_no_object_is_refused(tmp_path: Path, header: bytes) -> None:
    (tmp_path / "x").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(EditSafetyError, match="not a whole safetensors file"):
        tensor_files.load(tmp_path / "x")
