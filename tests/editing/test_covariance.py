"""C, the second moment of keys, against a plain loop over texts."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from editsafety.artifacts import ArtifactStore
from editsafety.editing import covariance
from editsafety.editing.covariance import Covariance, Inverse, collect
from editsafety.edits.edit import Edit, LowRank
from editsafety.edits.session import EditSession
from editsafety.errors import DataError, EditError, EditorError
from editsafety.model import trace
from editsafety.model.handle import ModelHandle
from editsafety.model.sites import Layout
from tests import tiny


def by_loop(handle: ModelHandle, module: str, texts: tuple[str, ...]) -> tuple[torch.Tensor, int]:
    """One unpadded text at a time, one token at a time, float64."""
    total, count = torch.zeros(1, dtype=torch.float64), 0
    for text in texts:
        with torch.no_grad(), trace.watch(handle.model, [module]) as seen:
            handle.logits(handle.batch([handle.ids(text)]))
        for key in seen.inputs[module].reshape(-1, seen.inputs[module].shape[-1]).double():
            total = total + torch.outer(key, key)
            count += 1
    return total / count, count


@pytest.mark.parametrize("family", ["gpt2", "gpt_neo", "llama", "opt"])
def test_c_is_the_mean_of_outer_products_over_every_real_token(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(covariance, "BATCH_TOKENS", 100)  # several batches with padding in them
    handle = tiny.handle(family)
    sites = [handle.mlp_out(0), handle.mlp_out(2)]
    found = collect(handle, sites, tiny.SENTENCES, 10**6)
    for site in sites:
        expected, count = by_loop(handle, site.module, tiny.SENTENCES)
        assert found[site.module].tokens == count
        torch.testing.assert_close(found[site.module].matrix.double(), expected, rtol=1e-4, atol=1e-5)


def test_only_as_many_texts_are_read_as_the_tokens_need() -> None:
    handle = tiny.handle("gpt2")
    lengths = [len(handle.ids(text)) for text in tiny.SENTENCES]
    found = collect(handle, [handle.mlp_out(0)], tiny.SENTENCES, sum(lengths[:5]))
    assert found[handle.mlp_out(0).module].tokens == sum(lengths[:5])


def test_a_text_longer_than_the_context_is_cut() -> None:
    handle = tiny.handle("gpt2")
    found = collect(handle, [handle.mlp_out(0)], ["word " * 2000], 10**6)
    assert found[handle.mlp_out(0).module].tokens == tiny.CONTEXT


def test_too_few_tokens_are_refused_with_both_numbers() -> None:
    handle = tiny.handle("gpt2")
    with pytest.raises(
        DataError, match=r"1 texts hold \d+ tokens .* 64 numbers needs at least as many and should have 640"
    ):
        collect(handle, [handle.mlp_out(0)], tiny.SENTENCES[:1], 10**6)


def test_the_inverse_solves() -> None:
    generator = torch.Generator().manual_seed(0)
    keys = torch.randn(200, 24, generator=generator)
    matrix, key = keys.T @ keys / 200, torch.randn(24, generator=generator)
    found = Inverse(Covariance("m", matrix, 200))(key)
    torch.testing.assert_close(found.double(), torch.linalg.inv(matrix.double()) @ key.double(), rtol=1e-5, atol=1e-6)
    assert found.dtype == key.dtype


def test_damping_adds_a_share_of_the_mean_diagonal() -> None:
    key = torch.tensor([1.0, 1.0])
    found = Inverse(Covariance("m", torch.diag(torch.tensor([1.0, 3.0])), 9), damping=0.5)(key)
    torch.testing.assert_close(found, torch.tensor([1 / 2, 1 / 4]))


@pytest.mark.parametrize("matrix", [torch.ones(3, 3), torch.full((3, 3), float("nan")), -torch.eye(3)])
def test_a_matrix_without_inverse_is_refused_with_advice(matrix: torch.Tensor) -> None:
    with pytest.raises(
        EditorError, match=r"input of mlp.c_proj, from 5 tokens, is singular .*mom2_tokens.*mom2_damping"
    ):
        Inverse(Covariance("mlp.c_proj", matrix, 5))


def test_what_is_kept_is_found_by_model_module_corpus_and_tokens_only(tmp_path: Path) -> None:
    handle, store = tiny.handle("gpt2"), ArtifactStore(tmp_path)
    site = handle.mlp_out(0)
    made = collect(handle, [site], tiny.SENTENCES, 10**6)[site.module]
    covariance.keep(handle, store, made, "corpus", 640)
    found = covariance.load(handle, store, site, "corpus", 640)
    assert found is not None
    assert torch.equal(found.matrix, made.matrix)
    assert (found.tokens, found.module) == (made.tokens, site.module)
    assert covariance.load(handle, store, handle.mlp_out(1), "corpus", 640) is None
    assert covariance.load(handle, store, site, "another", 640) is None
    assert covariance.load(handle, store, site, "corpus", 641) is None
    assert covariance.load(tiny.handle("gpt2", seed=1), store, site, "corpus", 640) is None


def test_a_ridge_is_added_as_it_is_and_columns_are_solved_together() -> None:
    inverse = Inverse(Covariance("m", torch.diag(torch.tensor([1.0, 3.0])), 9), ridge=1.0)
    torch.testing.assert_close(inverse(torch.tensor([1.0, 1.0])), torch.tensor([1 / 2, 1 / 4]))
    found = inverse.columns(torch.tensor([[2.0, 0.0, 1.0], [0.0, 4.0, 1.0]]))
    torch.testing.assert_close(found, torch.tensor([[1.0, 0.0, 0.5], [0.0, 1.0, 0.25]], dtype=torch.float64))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"matrix": torch.eye(3)}, r"is float32 \[3, 3\], expected floats \[64, 64\]"),
        ({"matrix": torch.eye(64).int()}, r"is int32 \[64, 64\], expected floats"),
        ({"matrix": None}, "is missing, expected floats"),
        ({"matrix": torch.triu(torch.ones(64, 64))}, "is not symmetric"),
        ({"matrix": -torch.eye(64)}, "has a negative diagonal"),
        ({"tokens": None}, "does not say from how many tokens"),
        ({"tokens": torch.tensor(0)}, "does not say from how many tokens"),
        ({"tokens": torch.tensor([1, 2])}, "does not say from how many tokens"),
    ],
)
def test_what_is_stored_but_cannot_be_a_second_moment_is_refused(
    tmp_path: Path, change: dict[str, torch.Tensor | None], message: str
) -> None:
    handle, store = tiny.handle("gpt2"), ArtifactStore(tmp_path)
    site = handle.mlp_out(0)
    stored = {"matrix": torch.eye(site.d_in), "tokens": torch.tensor(640), **change}
    sizes = {name: tensor for name, tensor in stored.items() if tensor is not None}
    store.put(covariance.key(handle, site.module, "corpus", 640), sizes)
    with pytest.raises(EditorError, match=f"second moment of {site.module} {message}"):
        covariance.load(handle, store, site, "corpus", 640)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_the_side_of_a_square_weight_follows_from_the_type_of_its_module(family: str) -> None:
    """Its shape cannot tell: Conv1D keeps `[d_in, d_out]`, Linear `[d_out, d_in]`. The other one is refused."""
    handle = tiny.handle(family)
    site = next(
        handle.site(name)
        for name, module in handle.model.named_modules()
        if getattr(getattr(module, "weight", None), "ndim", 0) == 2
        and module.weight.shape[0] == module.weight.shape[1]
        and type(module).__name__ in ("Conv1D", "Linear")
    )
    assert site.d_in == site.d_out
    key = torch.randn(site.d_in, generator=torch.Generator().manual_seed(0))
    module = handle.model.get_submodule(site.module)
    bias = 0 if getattr(module, "bias", None) is None else module.bias.detach()
    with torch.no_grad():
        torch.testing.assert_close(module(key[None])[0] - bias, handle.weight(site) @ key, rtol=1e-4, atol=1e-5)
    turned = replace(site, layout=Layout.IN_OUT if site.layout is Layout.OUT_IN else Layout.OUT_IN)
    ones = torch.ones(site.d_out, 1)
    edit = Edit("mine", ("r",), handle.identity, (LowRank(turned, ones, ones.T),))
    with EditSession(handle) as session, pytest.raises(EditError, match="this edit was made for"):
        session.apply(edit)
