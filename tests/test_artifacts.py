"""ArtifactStore: found again by what made it, never by a name; what is not whole is never used."""

from __future__ import annotations

import errno
import math
import os
import warnings
from pathlib import Path

import pytest
import torch

from editsafety import tensor_files
from editsafety.artifacts import ArtifactKey, ArtifactStore, default_root
from editsafety.errors import EditorError, StoreError
from tests import tiny

TENSORS = {"moment": torch.eye(4)}


def key(fingerprint: str = "f1", kind: str = "covariance", **settings: object) -> ArtifactKey:
    return ArtifactKey(kind, fingerprint, {"layer": 5, "tokens": 1000, **settings})


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "cache")


def test_what_was_put_is_found_again_by_an_equal_key(store: ArtifactStore) -> None:
    path = store.put(key(), TENSORS, {"seconds": 3.5})
    found = store.get(key())
    assert found is not None
    assert torch.equal(found["moment"], TENSORS["moment"])
    assert path.name.startswith("covariance-")
    assert path.parent == store.root


def test_the_order_of_settings_does_not_matter_and_tuples_are_lists(store: ArtifactStore) -> None:
    store.put(ArtifactKey("k", "f", {"a": (1, 2), "b": 3}), TENSORS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert store.get(ArtifactKey("k", "f", {"b": 3, "a": [1, 2]})) is not None
        assert store.get(ArtifactKey("k", "f", {"b": 3, "a": (1, 2)})) is not None


@pytest.mark.parametrize(
    "other", [key("f2"), key(kind="null_space"), key(layer=6), key(extra=True), ArtifactKey("covariance", "f1")]
)
def test_another_model_kind_or_setting_is_never_served(store: ArtifactStore, other: ArtifactKey) -> None:
    store.put(key(), TENSORS)
    assert store.get(other) is None


def test_an_edited_model_never_finds_the_artifacts_of_the_original(store: ArtifactStore) -> None:
    handle = tiny.handle("gpt2")
    store.put(key(handle.fingerprint()), TENSORS)
    handle.model.transformer.wpe.weight.data[0, 0] += 1e-5
    assert store.get(key(handle.fingerprint())) is None


@pytest.mark.parametrize(
    "ruin", [lambda body: body[:-1], lambda body: b"", lambda body: body[:-3] + b"\x01" + body[-2:]]
)
def test_a_corrupt_file_is_reported_ignored_and_can_be_made_again(store: ArtifactStore, ruin: object) -> None:
    path = store.put(key(), TENSORS)
    path.write_bytes(ruin(path.read_bytes()))  # type: ignore[operator]
    with pytest.warns(UserWarning, match=r"covariance-.*It is ignored and will be made again"):
        assert store.get(key()) is None
    store.put(key(), TENSORS)
    assert store.get(key()) is not None


def test_a_file_under_another_artifacts_name_is_reported_and_ignored(store: ArtifactStore) -> None:
    store.put(key("f2"), TENSORS).rename(store.root / key("f1").file_name)
    with pytest.warns(UserWarning, match="holds another artifact than its name says"):
        assert store.get(key("f1")) is None


def test_shipped_folders_are_read_after_the_own_one_and_never_written(tmp_path: Path) -> None:
    shipped = ArtifactStore(tmp_path / "shipped")
    shipped.put(key(), {"moment": torch.zeros(1)})
    before = sorted((path.name, path.read_bytes()) for path in shipped.root.iterdir())
    store = ArtifactStore(tmp_path / "cache", (shipped.root, tmp_path / "missing"))
    found = store.get(key())
    assert found is not None
    assert torch.equal(found["moment"], torch.zeros(1))
    store.put(key(), TENSORS)
    store.put(key("f2"), TENSORS)
    again = store.get(key())
    assert again is not None
    assert torch.equal(again["moment"], TENSORS["moment"])
    assert sorted((path.name, path.read_bytes()) for path in shipped.root.iterdir()) == before


def test_a_corrupt_own_file_falls_back_to_the_shipped_one(tmp_path: Path) -> None:
    ArtifactStore(tmp_path / "shipped").put(key(), TENSORS)
    store = ArtifactStore(tmp_path / "cache", (tmp_path / "shipped",))
    store.put(key(), TENSORS).write_bytes(b"broken")
    with pytest.warns(UserWarning, match="ignored"):
        assert store.get(key()) is not None


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_cache_that_cannot_be_written_says_so(store: ArtifactStore) -> None:
    store.root.mkdir()
    store.root.chmod(0o500)
    with pytest.raises(PermissionError):
        store.put(key(), TENSORS)


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDITSAFETY_CACHE", "/somewhere/else")
    assert default_root() == Path("/somewhere/else")
    monkeypatch.delenv("EDITSAFETY_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert default_root() == Path("/xdg/editsafety")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_root() == Path.home() / ".cache" / "editsafety"


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_entries_that_are_not_finite_are_never_handed_back(
    store: ArtifactStore, bad: float, dtype: torch.dtype
) -> None:
    """By whom they were kept: an older version, another program; the checksum holds."""
    moment = torch.eye(4, dtype=dtype)
    moment[2, 3] = bad
    tensor_files.save(store.root / key().file_name, {"moment": moment}, {**key().about, "notes": {}})
    with pytest.warns(UserWarning, match=r"tensor 'moment' holds entries that are not finite.*made again"):
        assert store.get(key()) is None


def test_entries_that_are_not_finite_are_not_kept_and_what_was_there_stays(store: ArtifactStore) -> None:
    store.put(key(), TENSORS)
    with pytest.raises(EditorError, match="the covariance that was made is not kept: tensor 'moment' holds entries"):
        store.put(key(), {"moment": torch.full((4, 4), math.nan), "count": torch.tensor(3)})
    found = store.get(key())
    assert found is not None
    assert torch.equal(found["moment"], TENSORS["moment"])


def test_a_full_disk_is_a_sentence_and_what_was_there_stays(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put(key(), TENSORS)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match=r"cannot be written \(No space left on device\)\. Make room"):
        store.put(key(), {"moment": torch.ones(2)})
    monkeypatch.undo()
    assert [path.name for path in store.root.iterdir()] == [key().file_name]
    assert store.get(key()) is not None


def test_what_was_made_behind_another_tokenizer_is_not_found(tmp_path: Path) -> None:
    """The same weights read other tokens then: their moments are others. What is shipped is found by either."""
    plain, begins = (ArtifactStore(tmp_path / "cache", tokenizer=name) for name in ("plain", "with a BOS"))
    plain.put(key(), TENSORS)
    assert plain.get(key()) is not None
    assert begins.get(key()) is None
    begins.discard(key())
    assert plain.get(key()) is not None
    shipped = ArtifactStore(tmp_path / "shipped")
    shipped.put(key(layer=6), TENSORS)
    for name in ("plain", "with a BOS"):
        assert ArtifactStore(tmp_path / "cache", (shipped.root,), tokenizer=name).get(key(layer=6)) is not None
