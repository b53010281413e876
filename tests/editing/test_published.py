"""Published statistics: read when they can be what they say, refused by name otherwise."""

import random
import tracemalloc
import warnings
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import editsafety
from editsafety.artifacts import ArtifactStore
from editsafety.editing import published
from editsafety.editing.covariance import collect
from editsafety.editing.moments import Mom2Hparams, SecondMoments
from editsafety.edits.edit import Edit
from editsafety.edits.session import EditSession
from editsafety.errors import DataError, EditSafetyError, UsageError
from editsafety.model.handle import ModelHandle
from editsafety.model.sites import Layout, Site
from tests import tiny

SITE = Site("transformer.h.0.mlp.c_proj", Layout.IN_OUT, 4, 6)
KEYS = np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32)
SUM = KEYS.T @ KEYS


def write(folder: Path, name: str = "transformer.h.0.mlp.c_proj_float32_mom2_100000.npz", **arrays: Any) -> Path:
    path = folder / name
    np.savez(path, **{"mom2.mom2": SUM, "mom2.count": np.array(50), "sample_size": np.array(100000), **arrays})
    return path


def test_the_sum_is_divided_by_the_count(tmp_path: Path) -> None:
    found = published.read(write(tmp_path), SITE)
    expected = sum(np.outer(key, key) for key in KEYS.astype(np.float64)) / 50
    torch.testing.assert_close(found.matrix.double(), torch.from_numpy(expected), rtol=1e-5, atol=1e-6)
    assert (found.tokens, found.matrix.dtype) == (50, torch.float32)


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"mom2.mom2": SUM[:5, :5]}, r"is float32 \[5, 5\], expected floats \[6, 6\]"),
        ({"mom2.mom2": SUM.astype(int)}, "is int64"),
        ({"mom2.count": np.array(0)}, "is 0, expected a number of tokens above 0"),
        ({"mom2.count": np.array([1, 2])}, r"is \[1, 2\], expected a number"),
        ({"mom2.count": np.array("50")}, "expected a number"),
        ({"mom2.count": np.array(np.nan)}, "expected a number"),
        ({"mom2.mom2": np.where(np.eye(6) > 0, np.nan, SUM)}, "not finite"),
        ({"mom2.mom2": SUM + np.triu(SUM, 1)}, "not symmetric"),
        ({"mom2.mom2": np.zeros((600, 600))}, "takes 2880128 bytes, expected up to 4384"),
        ({"mom2.mom2": np.array([object()])}, "without pickle"),
        ({"mom2.count": np.array(50 + 0j)}, "expected a number"),
        ({"mom2.count": np.array(True)}, "expected a number"),
        ({"mom2.mom2": SUM.astype(np.float64) * 1e200}, "not finite"),  # in float32, which they are kept in
        ({"mom2.mom2": -SUM}, "negative diagonal"),
    ],
)
def test_a_file_that_cannot_be_this_sites_is_refused(tmp_path: Path, arrays: dict[str, Any], sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        published.read(write(tmp_path, **arrays), SITE)


def test_a_file_without_the_arrays_is_refused_with_what_it_has(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", other=np.zeros(3))
    with pytest.raises(DataError, match=r"no array 'mom2.mom2'; found other"):
        published.read(tmp_path / "x.npz", SITE)


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match=r"cannot be read as \.npz"):
        published.read(path, SITE)


def test_the_file_is_found_by_the_modules_name(tmp_path: Path) -> None:
    path = write(tmp_path)
    write(tmp_path, "transformer.h.1.mlp.c_proj_float32_mom2_100000.npz")
    assert published.locate(tmp_path, SITE) == path
    assert published.locate(path, SITE) == path


def test_a_file_named_after_another_module_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "transformer.h.1.mlp.c_proj_float32_mom2_100000.npz")
    with pytest.raises(DataError, match="named after another module"):
        published.locate(path, SITE)


def test_a_folder_without_the_file_or_with_two_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="found none"):
        published.locate(tmp_path, SITE)
    write(tmp_path)
    write(tmp_path, "transformer.h.0.mlp.c_proj_float32_mom2_200.npz")
    with pytest.raises(DataError, match="expected one file"):
        published.locate(tmp_path, SITE)


def test_a_file_that_unpacks_to_gigabytes_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    """Zeros pack a thousandfold: 1 GiB of them is a file of one megabyte."""
    path = tmp_path / "transformer.h.0.mlp.c_proj_float32_mom2_100000.npz"
    np.savez_compressed(path, **{"mom2.mom2": np.zeros((4000, 4000)), "mom2.count": np.array(50)})
    assert path.stat().st_size < 200_000
    tracemalloc.start()
    with pytest.raises(DataError, match="takes 128000128 bytes, expected up to 4384"):
        published.read(path, SITE)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


@pytest.mark.parametrize("twin", ["mom2.mom2", "mom2.mom2.npy"])
def test_of_two_arrays_of_one_name_the_larger_one_counts(tmp_path: Path, twin: str) -> None:
    path = write(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile says itself that a name is there twice
        with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as file:
            file.writestr(twin, b"\0" * 2**20)
    with pytest.raises(DataError, match="takes 1048576 bytes"):
        published.read(path, SITE)


def header(shape: str) -> bytes:
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


@pytest.mark.parametrize(
    "member",
    [
        *(header("(100000, 1000000000)"), header("(-1, 6)"), header("(6, 6)"), header("(6")),
        *(b"", b"\x80\x04K\x01.", b"\x93NUMPY\x09"),
    ],
)
def test_an_array_whose_own_header_lies_is_refused(tmp_path: Path, member: bytes) -> None:
    path = tmp_path / "transformer.h.0.mlp.c_proj_float32_mom2_1.npz"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("mom2.mom2.npy", member)
        file.writestr("mom2.count.npy", header("()") + b"\0\0\x80?")
    # A member without numpy's mark is taken for raw bytes by some releases of numpy, and refused for what it holds.
    with pytest.raises(DataError, match=r"cannot be read as \.npz without pickle|expected floats"):
        published.read(path, SITE)


def test_any_flipped_byte_is_a_matrix_or_a_sentence(tmp_path: Path) -> None:
    path = write(tmp_path)
    whole, rng = path.read_bytes(), random.Random(0)
    for place in rng.sample(range(len(whole)), 250):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << rng.randrange(8)]) + whole[place + 1 :])
        with suppress(DataError):
            assert published.read(path, SITE).matrix.shape == (6, 6)


def made(handle: ModelHandle, *layers: int) -> dict[int, torch.Tensor]:
    """C of some layers, from texts."""
    sites = {layer: handle.mlp_out(layer) for layer in layers}
    found = collect(handle, list(sites.values()), tiny.SENTENCES, 200)
    return {layer: found[site.module].matrix for layer, site in sites.items()}


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_moments_that_are_handed_in_are_those_an_editor_takes(family: str, tmp_path: Path) -> None:
    """Bit for bit, through the files and the store."""
    handle = tiny.handle(family)
    matrices = made(handle, 1, 0)
    files = editsafety.save_second_moments(tmp_path / "moments", handle, matrices, tokens=231)
    assert [path.name for path in files] == [f"{handle.mlp_out(n).module}_float32_mom2_231.npz" for n in (0, 1)]
    settings = Mom2Hparams(mom2_corpus=str(tmp_path / "moments"))
    moments = SecondMoments(handle, ArtifactStore(tmp_path / "store"), settings)
    moments.prepare([handle.mlp_out(0), handle.mlp_out(1)])
    for layer, matrix in matrices.items():
        found = moments.of(handle.mlp_out(layer), "rome")
        assert torch.equal(found.matrix, matrix)
        assert found.tokens == 231


def spoiled(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[ModelHandle], dict[int, torch.Tensor]]:
    return lambda handle: {0: change(made(handle, 0)[0].clone())}


def with_a_negative_direction(matrix: torch.Tensor) -> torch.Tensor:
    """Symmetric, with a diagonal that is above 0."""
    values, vectors = torch.linalg.eigh(matrix.double())
    values[0] = -0.01 * values[-1]
    return (vectors @ torch.diag(values) @ vectors.T).float()


@pytest.mark.parametrize(
    ("give", "said"),
    [
        (spoiled(lambda c: c[:-1]), r"is float32 \[63, 64\], expected floats \[64, 64\]"),
        (spoiled(lambda c: c[:32, :32]), r"is float32 \[32, 32\], expected floats \[64, 64\]"),
        (spoiled(lambda c: c.long()), "is int64"),
        (spoiled(lambda c: c.fill_diagonal_(torch.inf)), "not finite"),
        (spoiled(lambda c: c * torch.nan), "not finite|not symmetric"),
        (spoiled(lambda c: c + torch.triu(c, 1)), "is not symmetric"),
        (spoiled(lambda c: -c), "negative diagonal"),
        (spoiled(lambda c: c * 0), "is all zero"),
        (spoiled(with_a_negative_direction), "is not positive semi-definite"),
        (lambda handle: {}, "there is no second moment to write"),
    ],
)
def test_what_cannot_be_a_second_moment_is_refused_and_nothing_is_written(
    give: Callable[[ModelHandle], dict[int, torch.Tensor]], said: str, tmp_path: Path
) -> None:
    handle = tiny.handle("gpt2")
    with pytest.raises(UsageError, match=said):
        editsafety.save_second_moments(tmp_path / "moments", handle, give(handle), tokens=231)
    assert not (tmp_path / "moments").exists()


@pytest.mark.parametrize("tokens", [0, -1, 2.5, True])
def test_a_number_of_tokens_that_is_none_is_refused(tokens: Any, tmp_path: Path) -> None:
    handle = tiny.handle("gpt2")
    with pytest.raises(UsageError, match="expected a whole number above 0"):
        editsafety.save_second_moments(tmp_path, handle, made(handle, 0), tokens=tokens)


def test_a_layer_that_the_model_lacks_and_an_edited_model_are_refused(tmp_path: Path) -> None:
    handle = tiny.handle("gpt2")
    matrices = made(handle, 0)
    with pytest.raises(EditSafetyError, match="99"):
        editsafety.save_second_moments(tmp_path, handle, {99: matrices[0]}, tokens=231)
    with EditSession(handle) as session:
        session.apply(Edit("x", (), handle.identity, (tiny.low_rank(handle.mlp_out(1)),)))
        with pytest.raises(UsageError, match="carries an edit"):
            editsafety.save_second_moments(tmp_path, handle, matrices, tokens=231)


def test_the_published_code_would_take_the_files_too(tmp_path: Path) -> None:
    """Its reader wants `sample_size` to be the number in the file's name, and divides a sum by a count."""
    handle = tiny.handle("gpt2")
    matrices = made(handle, 0)
    (file,) = editsafety.save_second_moments(tmp_path, handle, matrices, tokens=231)
    assert file.stem == f"{handle.mlp_out(0).module}_float32_mom2_231"
    with np.load(file) as arrays:
        assert arrays["sample_size"] == 231
        assert np.array_equal((arrays["mom2.mom2"] / int(arrays["mom2.count"])).astype("float32"), matrices[0].numpy())


def test_moments_of_another_model_are_refused(tmp_path: Path) -> None:
    """Of the same shape: without its name in the file nobody could tell."""
    handle, other = tiny.handle("gpt2"), tiny.handle("gpt2", seed=1)
    editsafety.save_second_moments(tmp_path / "moments", handle, made(handle, 0), tokens=231)
    moments = SecondMoments(
        other, ArtifactStore(tmp_path / "store"), Mom2Hparams(mom2_corpus=str(tmp_path / "moments"))
    )
    with pytest.raises(DataError, match="made from another model"):
        moments.prepare([other.mlp_out(0)])


def test_a_rank_one_mean_is_a_second_moment(tmp_path: Path) -> None:
    """Few tokens give a singular C, which is for the editor to refuse or to damp."""
    handle = tiny.handle("gpt2")
    key = torch.randn(64, generator=torch.Generator().manual_seed(0))
    assert editsafety.save_second_moments(tmp_path, handle, {0: torch.outer(key, key)}, tokens=1)
