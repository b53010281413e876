"""MEND's network: it turns the gradient of an edit into a better one, token by token.

For a token of a linear module, x `[d_in]` is its input and g `[d_out]` the gradient of the loss with respect to its
output, so that the weight's gradient is the sum of g x^T over tokens. Both are normalised by running statistics,
joined, sent through residual layers of low rank, and split again into x' and g':

    y = [(x - mean_x) / (std_x + 1e-7), (g - mean_g) / (std_g + 1e-7)]
    y <- y + max(0, (U V y + b) * scale_m + shift_m)        n_hidden + 1 times; m is the matrix's place in its group
    W <- W + rate * sum over tokens of g' x'^T

"Fast Model Editing at Scale" (arXiv 2110.11309), section 3. U, b and shift begin at 0, so an untrained network is the
identity. The update is *added*, as in the published code: with a positive rate an untrained MEND climbs the loss, and
training has to turn the sign of the rate first. Normalisation is not undone.

Where we differ from the published code: statistics are updated by a whole step's tokens at once (the same up to
rounding), their count is a whole number, and a network knows from that count, which is saved, whether it has any.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from editsafety.errors import EditorError
from editsafety.model.sites import Site

EPSILON = 1e-7


class Tokens(NamedTuple):
    """What one module saw: x `[tokens, d_in]` and g `[tokens, d_out]`, float32."""

    x: Tensor
    g: Tensor


class Factors(NamedTuple):
    """A change of weight as `left @ right`: `[d_out, tokens]` and `[tokens, d_in]`."""

    left: Tensor
    right: Tensor


class Statistics(nn.Module):
    """Mean and unbiased standard deviation of every feature over all tokens ever seen (Welford's method)."""

    k: Tensor
    mean: Tensor
    s: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("k", torch.zeros((), dtype=torch.long))
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("s", torch.zeros(width))

    @torch.no_grad()
    def update(self, rows: Tensor) -> None:
        """Add `rows` `[n, width]`."""
        if not len(rows):
            return
        mean = rows.mean(0)
        apart = mean - self.mean
        old, new = int(self.k), len(rows)
        self.s += (rows - mean).square().sum(0) + apart.square() * (old * new / (old + new))
        self.mean += apart * (new / (old + new))
        self.k += new

    def forward(self, rows: Tensor) -> Tensor:
        """`rows` `[n, width]`, centred and scaled. Raises EditorError when fewer than two tokens were ever seen."""
        count = int(self.k)
        if count < 2:
            raise EditorError(f"MEND cannot normalise by the statistics of {count} tokens; it needs at least 2.")
        return (rows - self.mean) / ((self.s / (count - 1)).sqrt() + EPSILON)


class ResidualLayer(nn.Module):
    """y + max(0, (U V y + b) * scale_m + shift_m); `modes` matrices share U, V and b."""

    def __init__(self, width: int, rank: int, modes: int, generator: torch.Generator) -> None:
        super().__init__()
        rank = min(rank, width)
        self.u = nn.Parameter(torch.zeros(width, rank))
        self.v = nn.Parameter(torch.randn(rank, width, generator=generator))
        self.bias = nn.Parameter(torch.zeros(width))
        self.scale = nn.Parameter(torch.ones(modes, width))
        self.shift = nn.Parameter(torch.zeros(modes, width))

    def forward(self, y: Tensor, modes: Tensor) -> Tensor:
        """`y` `[n, width]` of the matrices `modes` `[n]`."""
        inner = y @ self.v.T @ self.u.T + self.bias
        changed: Tensor = y + (inner * self.scale[modes] + self.shift[modes]).clamp(min=0)
        return changed


class Network(nn.Module):
    """Statistics and layers of one group of matrices of equal shape."""

    def __init__(
        self, d_in: int, d_out: int, *, modes: int, rank: int, hidden: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.d_in = d_in
        width = d_in + d_out
        self.statistics = Statistics(width)
        self.layers = nn.ModuleList(ResidualLayer(width, rank, modes, generator) for _ in range(hidden + 1))

    def forward(self, rows: Tensor, modes: Tensor) -> Tokens:
        """Both x' and g', of joined rows `[n, d_in + d_out]`."""
        y = self.statistics(rows)
        for layer in self.layers:
            y = layer(y, modes)
        return Tokens(y[:, : self.d_in], y[:, self.d_in :])


@dataclass(frozen=True)
class HypernetShape:
    """What decides a network's tensors, named as in the published configurations."""

    # Of U V, at most the layer's width.
    rank: int
    # Layers but one.
    n_hidden: int
    # Whether matrices of one shape share a network.
    shared: bool
    # The rate that every matrix begins with.
    edit_lr: float


class Hypernet(nn.Module):
    """The networks of all edited matrices and their rates, in the order of `sites` (`inner_params`)."""

    def __init__(self, sites: Sequence[Site], shape: HypernetShape, seed: int) -> None:
        super().__init__()
        self.sites = tuple(sites)
        groups: dict[tuple[int, ...], list[int]] = {}
        for i, site in enumerate(self.sites):
            groups.setdefault((site.d_in, site.d_out) if shape.shared else (i,), []).append(i)
        self.groups = tuple(tuple(members) for members in groups.values())
        generator = torch.Generator().manual_seed(seed)
        made = [
            Network(
                self.sites[members[0]].d_in,
                self.sites[members[0]].d_out,
                modes=len(members),
                rank=shape.rank,
                hidden=shape.n_hidden,
                generator=generator,
            )
            for members in self.groups
        ]
        self.networks = nn.ModuleList(made)
        self.rates = nn.Parameter(torch.full((len(self.sites),), shape.edit_lr))

    def observe(self, tokens: Sequence[Tokens]) -> None:
        """Add the tokens of every site to the statistics; in training only."""
        for network, members in self._grouped():
            network.statistics.update(_joined([tokens[i] for i in members]))

    def forward(self, tokens: Sequence[Tokens], rates: Tensor | None = None) -> list[Factors]:
        """The change of every site's weight. `rates` `[sites]` replaces the learned ones."""
        rates = self.rates if rates is None else rates
        found: dict[int, Factors] = {}
        for network, members in self._grouped():
            counts = [len(tokens[i].x) for i in members]
            place = self.rates.device
            modes = torch.repeat_interleave(
                torch.arange(len(members), device=place), torch.tensor(counts, device=place)
            )
            x, g = network(_joined([tokens[i] for i in members]), modes)
            for i, own_x, own_g in zip(members, x.split(counts), g.split(counts), strict=True):
                found[i] = Factors((rates[i] * own_g).T, own_x)
        return [found[i] for i in range(len(self.sites))]

    def forget(self) -> None:
        """Statistics of nothing, as the published code has them when it first edits."""
        for network, _ in self._grouped():
            for buffer in network.statistics.buffers():
                buffer.zero_()

    def statistics(self) -> dict[str, Tensor]:
        """The running statistics alone, copied, by name."""
        return {name: buffer.clone() for name, buffer in self.named_buffers()}

    def load_statistics(self, tensors: Mapping[str, Tensor]) -> None:
        """The inverse of `statistics`."""
        for name, buffer in self.named_buffers():
            buffer.copy_(tensors[name])

    def _grouped(self) -> Iterator[tuple[Network, tuple[int, ...]]]:
        for network, members in zip(self.networks, self.groups, strict=True):
            assert isinstance(network, Network)
            yield network, members


def _joined(tokens: Sequence[Tokens]) -> Tensor:
    return torch.cat([torch.cat([t.x, t.g], 1) for t in tokens])
