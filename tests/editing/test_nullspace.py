"""P against a plain singular value decomposition, and where it is kept."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from editsafety.artifacts import ArtifactStore
from editsafety.editing.covariance import Covariance
from editsafety.editing.moments import CorpusHparams, SecondMoments
from editsafety.editing.nullspace import NullSpaces, Precision, split
from editsafety.errors import EditorError, NotPreparedError
from editsafety.model.handle import ModelHandle
from tests import tiny

SIZE = 24


@pytest.fixture
def covariance() -> Covariance:
    """Eigenvalues 0.001, 0.002, 0.004 ... in random directions."""
    axes = torch.linalg.qr(torch.randn(SIZE, SIZE, generator=torch.Generator().manual_seed(0)).double())[0]
    values = 0.001 * 2.0 ** torch.arange(SIZE).double()
    return Covariance("mlp", ((axes * values) @ axes.T).float(), 100)


def by_svd(matrix: Tensor, threshold: float) -> Tensor:
    """P as published, in float64."""
    vectors, values, _ = torch.linalg.svd(matrix.double())
    kept = vectors[:, values < threshold]
    return kept @ kept.T


@pytest.mark.parametrize("dimensions", [1, 5, 12, 13, 23, 24])
def test_p_is_the_projection_that_a_singular_value_decomposition_gives(dimensions: int, covariance: Covariance) -> None:
    threshold = 0.0015 * 2.0 ** (dimensions - 1)
    space = split(covariance, threshold)
    found = space.project(torch.eye(SIZE))
    assert space.dimensions == dimensions
    torch.testing.assert_close(found.double(), by_svd(covariance.matrix, threshold), rtol=0, atol=1e-5)
    torch.testing.assert_close(found, found.T, rtol=0, atol=1e-6)
    torch.testing.assert_close(found @ found, found, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dimensions", [1, 12, 13, 23])
def test_the_smaller_half_of_the_directions_is_kept(dimensions: int, covariance: Covariance) -> None:
    space = split(covariance, 0.0015 * 2.0 ** (dimensions - 1))
    assert space.basis.shape == (SIZE, min(dimensions, SIZE - dimensions))


def test_a_threshold_below_every_eigenvalue_is_refused_with_the_scale(covariance: Covariance) -> None:
    with pytest.raises(
        EditorError,
        match=r"input of mlp has no eigenvalue below nullspace_threshold = 0\.0005 \(smallest 0\.00\d+, .*Raise",
    ):
        split(covariance, 0.0005)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(tiny.SENTENCES), encoding="utf-8")
    return path


def spaces(
    handle: ModelHandle, folder: Path, corpus: str, threshold: float = 0.01, precision: Precision = "float64"
) -> NullSpaces:
    store = ArtifactStore(folder / "store")
    moments = SecondMoments(handle, store, CorpusHparams(mom2_corpus=corpus))
    return NullSpaces(handle, store, moments, threshold, "alphaedit", precision)


def test_preparing_makes_what_is_missing_and_another_process_finds_it(tmp_path: Path, corpus: Path) -> None:
    handle = tiny.handle("gpt2")
    sites = [handle.mlp_out(0), handle.mlp_out(1)]
    found = spaces(handle, tmp_path, str(corpus))
    assert "second moment" in str(found.missing(sites))
    found.moments.prepare(sites)
    wanted = f"the null space of the second moment of the input of {sites[0].module}, {sites[1].module}"
    assert found.missing(sites) == wanted
    found.prepare(sites)
    assert found.missing(sites) is None
    again = spaces(tiny.handle("gpt2"), tmp_path, str(corpus))
    assert again.missing(sites) is None
    for site in sites:
        expected = by_svd(found.moments.of(site, "alphaedit").matrix, 0.01)
        torch.testing.assert_close(again.of(site).project(torch.eye(site.d_in)), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_the_projection_is_made_in_the_precision_that_is_asked_for_and_kept_apart(
    tmp_path: Path, corpus: Path, precision: Precision
) -> None:
    handle = tiny.handle("gpt2")
    site, other = handle.mlp_out(0), {"float32": "float64", "float64": "float32"}[precision]
    found = spaces(handle, tmp_path, str(corpus), precision=precision)
    found.prepare([site])
    moment = found.moments.of(site, "alphaedit")
    assert torch.equal(found.of(site).basis.float(), split(moment, 0.01, handle.device, precision).basis)
    assert not torch.equal(found.of(site).basis.float(), split(moment, 0.01, handle.device, other).basis)
    assert spaces(handle, tmp_path, str(corpus), precision=other).missing([site]) is not None


def test_another_threshold_is_another_projection(tmp_path: Path, corpus: Path) -> None:
    handle = tiny.handle("gpt2")
    sites = [handle.mlp_out(0)]
    spaces(handle, tmp_path, str(corpus)).prepare(sites)
    assert spaces(handle, tmp_path, str(corpus), threshold=0.02).missing(sites) is not None


@pytest.mark.parametrize("by", ["itself", "another"])
def test_a_second_moment_that_is_made_anew_leaves_no_stale_projection(by: str, tmp_path: Path, corpus: Path) -> None:
    handle = tiny.handle("gpt2")
    site = handle.mlp_out(0)
    mine, other = spaces(handle, tmp_path, ""), spaces(handle, tmp_path, "")
    mine.prepare([site], corpus=corpus)
    before = mine.of(site).project(torch.eye(site.d_in))
    corpus.write_text("\n".join(reversed(tiny.SENTENCES[:-1])), encoding="utf-8")
    if by == "itself":
        mine.prepare([site], corpus=corpus)
        now = mine
    else:
        other.moments.prepare([site], corpus=corpus)
        now = spaces(handle, tmp_path, "")
        assert now.missing([site]) is not None
        now.prepare([site])
    after = now.of(site).project(torch.eye(site.d_in))
    torch.testing.assert_close(after, by_svd(now.moments.of(site, "x").matrix, 0.01), rtol=0, atol=1e-5)
    assert not torch.allclose(before, after, atol=1e-3)


def test_asking_before_preparing_names_the_command(tmp_path: Path, corpus: Path) -> None:
    handle = tiny.handle("gpt2")
    found = spaces(handle, tmp_path, str(corpus))
    with pytest.raises(NotPreparedError, match=r"second moment .*prepare --model tiny-gpt2 --editor alphaedit"):
        found.of(handle.mlp_out(0))
    found.moments.prepare([handle.mlp_out(0)])
    with pytest.raises(NotPreparedError, match=r"null space .*prepare --model tiny-gpt2 --editor alphaedit"):
        found.of(handle.mlp_out(0))
