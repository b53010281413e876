"""MEND's network, its statistics, and what it is given: tokens of a real gradient."""

from typing import Any

import pytest
import torch
from torch import Tensor

from editsafety.editing import gradients
from editsafety.editors.mend.network import Factors, Hypernet, HypernetShape, Statistics, Tokens
from editsafety.editors.mend.token_gradients import TokenReading, TokenRow, changed, collect
from editsafety.edits.edit import Edit, LowRank
from editsafety.edits.session import EditSession
from editsafety.errors import EditorError
from editsafety.model.architectures import Part
from editsafety.model.handle import ModelHandle
from editsafety.model.sites import Layout, Site
from tests import tiny

FAMILIES = ["gpt2", "gpt_neo", "llama", "opt", "bloom", "falcon"]
WIDE, TALL = Site("a", Layout.OUT_IN, 3, 5), Site("b", Layout.OUT_IN, 5, 3)
ROWS = ("Mirel works as a baker", "Toren lives in Ostrin, close to the")


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def tokens_of(site: Site, count: int, seed: int) -> Tokens:
    return Tokens(drawn(count, site.d_in, seed=seed), drawn(count, site.d_out, seed=seed + 100) * 1e-3)


def scrambled(sites: list[Site], **shape: Any) -> Hypernet:
    """A network none of whose tensors has its first value."""
    net = Hypernet(sites, HypernetShape(**{"rank": 2, "n_hidden": 1, "shared": True, "edit_lr": 0.1, **shape}), 0)
    with torch.no_grad():
        for i, parameter in enumerate(net.parameters()):
            parameter.add_(drawn(*parameter.shape, seed=i) * 0.3)
    return net


def sites_of(handle: ModelHandle, *layers: int) -> list[Site]:
    return [site for layer in layers for part in (Part.MLP_IN, Part.MLP_OUT) for site in handle.sites(part, layer)]


def reading_of(handle: ModelHandle) -> TokenReading:
    """Two edits of one row each, of different lengths; the last two tokens of each are asked for."""
    rows = [handle.ids(text) for text in ROWS]
    return TokenReading.of(
        handle,
        [TokenRow(i, tuple(ids[:-1]), (len(ids) - 3, len(ids) - 2), tuple(ids[-2:])) for i, ids in enumerate(rows)],
    )


def test_statistics_of_parts_are_those_of_the_whole() -> None:
    rows = drawn(23, 4) * 3 + 5
    found = Statistics(4)
    for part in rows.split((1, 9, 0, 13)):
        found.update(part)
    assert int(found.k) == 23
    torch.testing.assert_close(found.mean, rows.mean(0))
    torch.testing.assert_close(found(rows), (rows - rows.mean(0)) / (rows.std(0) + 1e-7))


def test_fewer_than_two_tokens_have_no_spread() -> None:
    found = Statistics(4)
    found.update(drawn(1, 4))
    with pytest.raises(EditorError, match="statistics of 1 tokens"):
        found(drawn(3, 4))


def test_an_untrained_network_only_normalises() -> None:
    net = Hypernet([WIDE], HypernetShape(rank=4, n_hidden=1, shared=True, edit_lr=0.25), 0)
    tokens = tokens_of(WIDE, 9, 0)
    net.observe([tokens])
    (found,) = net([tokens])
    torch.testing.assert_close(found.right, (tokens.x - tokens.x.mean(0)) / (tokens.x.std(0) + 1e-7))
    torch.testing.assert_close(found.left, 0.25 * ((tokens.g - tokens.g.mean(0)) / (tokens.g.std(0) + 1e-7)).T)


def by_hand(net: Hypernet, group: int, mode: int, tokens: Tokens, seen: list[Tokens], rate: float) -> Tensor:
    """Section 3 of the paper, one token and one number at a time."""
    every = torch.cat([torch.cat([t.x, t.g], 1) for t in seen])
    mean, spread = every.mean(0), every.std(0) + 1e-7
    layers = [{n: p.detach() for n, p in layer.named_parameters()} for layer in net.networks[group].layers]
    change = torch.zeros(tokens.g.shape[1], tokens.x.shape[1])
    for x, g in zip(tokens.x, tokens.g, strict=True):
        y = [float((v - m) / s) for v, m, s in zip(torch.cat([x, g]), mean, spread, strict=True)]
        for layer in layers:
            narrow = [sum(float(v) * n for v, n in zip(row, y, strict=True)) for row in layer["v"]]
            wide = [sum(float(u) * n for u, n in zip(row, narrow, strict=True)) for row in layer["u"]]
            y = [
                own + max(0.0, (w + float(b)) * float(scale) + float(shift))
                for own, w, b, scale, shift in zip(
                    y, wide, layer["bias"], layer["scale"][mode], layer["shift"][mode], strict=True
                )
            ]
        for i in range(change.shape[0]):
            for j in range(change.shape[1]):
                change[i, j] += rate * y[len(x) + i] * y[j]
    return change


@pytest.mark.parametrize("shared", [True, False])
def test_the_update_is_that_of_the_formulas(shared: bool) -> None:
    """Three matrices, two of one shape and not next to each other."""
    sites = [WIDE, TALL, WIDE]
    net = scrambled(sites, shared=shared)
    tokens = [tokens_of(site, 3 + i, i) for i, site in enumerate(sites)]
    net.observe(tokens)
    places = [(0, 0), (1, 0), (0, 1)] if shared else [(0, 0), (1, 0), (2, 0)]
    for i, (found, (group, mode)) in enumerate(zip(net(tokens), places, strict=True)):
        seen = [tokens[0], tokens[2]] if shared and i != 1 else [tokens[i]]
        expected = by_hand(net, group, mode, tokens[i], seen, float(net.rates[i].detach()))
        torch.testing.assert_close((found.left @ found.right).detach(), expected, rtol=1e-4, atol=1e-4)


def test_the_rank_is_at_most_the_width() -> None:
    net = Hypernet([WIDE], HypernetShape(rank=1920, n_hidden=0, shared=True, edit_lr=1.0), 0)
    assert [tuple(layer.v.shape) for layer in net.networks[0].layers] == [(8, 8)]


@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_add_up_to_the_weights_gradient(family: str) -> None:
    """sum of g x^T against autograd on the weight itself, one unpadded row at a time."""
    handle = tiny.handle(family)
    sites = sites_of(handle, 1, 2)
    reading = reading_of(handle)
    found = collect(handle, sites, reading, reading.nll)
    for i, site in enumerate(sites):
        weight = handle.model.get_parameter(site.parameter)
        for edit, text in enumerate(ROWS):
            ids = handle.ids(text)
            with gradients.only(handle.model, [weight]):
                scores = handle.logits(handle.batch([ids[:-1]]))[0, -2:].log_softmax(-1)
                loss = -(scores[0, ids[-2]] + scores[1, ids[-1]]) / 2
                (slope,) = torch.autograd.grad(loss, [weight])
            own = found.owners[i] == edit
            x, g = found.tokens[i]
            torch.testing.assert_close(g[own].T @ x[own], site.canonical(slope), rtol=1e-3, atol=1e-6)
            assert float(found.losses[edit]) == pytest.approx(float(loss.detach()), rel=1e-4)


def test_padding_and_what_nothing_depends_on_are_left_out() -> None:
    handle = tiny.handle("gpt2")
    sites = sites_of(handle, 0, handle.layers - 1)
    reading = reading_of(handle)
    counts = [len(tokens.x) for tokens in collect(handle, sites, reading, reading.nll).tokens]
    everything = sum(len(handle.ids(text)) - 1 for text in ROWS)
    assert counts == [everything, everything, 4, 4]  # in the last layer only what is read has a gradient


@pytest.mark.parametrize("family", FAMILIES)
def test_every_row_runs_with_the_change_of_its_own_edit(family: str) -> None:
    """Against a session that writes the same change into the weights, edit by edit."""
    handle = tiny.handle(family)
    sites = sites_of(handle, 0, 1)
    reading = reading_of(handle)
    owners = [torch.tensor([0, 1, 1]) for _ in sites]
    factors = [
        Factors(drawn(site.d_out, 3, seed=i) * 0.2, drawn(3, site.d_in, seed=50 + i)) for i, site in enumerate(sites)
    ]
    with torch.no_grad(), changed(handle, sites, factors, owners, reading.edits):
        found = reading.scores(handle)
    for edit in (0, 1):
        own = owners[0] == edit
        deltas = tuple(LowRank(s, f.left[:, own], f.right[own]) for s, f in zip(sites, factors, strict=True))
        with EditSession(handle) as session, torch.no_grad():
            session.apply(Edit("by hand", (), handle.identity, deltas=deltas))
            expected = reading.scores(handle)
        here = reading.rows == edit
        torch.testing.assert_close(found[here], expected[here], rtol=1e-3, atol=1e-4)
        assert not torch.allclose(found[~here], expected[~here], atol=1e-2)


def test_no_hook_is_left_behind_by_an_error() -> None:
    handle = tiny.handle("gpt2")
    sites = sites_of(handle, 0)
    empty = [Factors(drawn(site.d_out, 0), drawn(0, site.d_in)) for site in sites]
    owners = [torch.zeros(0, dtype=torch.long) for _ in sites]
    with pytest.raises(ZeroDivisionError), changed(handle, sites, empty, owners, torch.zeros(1, dtype=torch.long)):
        raise ZeroDivisionError
    assert not any(module._forward_hooks for module in handle.model.modules())


def test_divergence_and_nll_are_means_of_their_own_rows() -> None:
    handle = tiny.handle("gpt2")
    ids = tuple(handle.ids("Mirel works as a baker, Ashurn works as a farmer"))
    rows = [TokenRow(0, ids, (1, 2, 3), ids[2:5]), TokenRow(0, ids, (4,), (ids[5],)), TokenRow(1, ids, (2,), (ids[3],))]
    reading = TokenReading.of(handle, rows)
    with torch.no_grad():
        scores = reading.scores(handle)
    before = (drawn(*scores.shape) * 2).log_softmax(-1)
    apart = [float((b.exp() * (b - s)).sum()) for b, s in zip(before, scores, strict=True)]
    assert reading.divergence(before, scores).tolist() == pytest.approx(
        [sum(apart[:3]) / 3, apart[3], apart[4]], rel=1e-4
    )
    read = [-float(scores[i, label]) for i, label in enumerate([*ids[2:5], ids[5], ids[3]])]
    assert reading.nll(scores).tolist() == pytest.approx([sum(read[:4]) / 4, read[4]], rel=1e-4)
