"""C, the uncentred second moment of a projection's inputs: C = sum over tokens of k k^T, divided by their number.

ROME, section 3.1; every real token of every text counts once, padding never. The published statistics are taken over
100,000 Wikipedia articles; far fewer tokens do for the editors (10 per input dimension by default), and how many were
used is kept with the result. Made from the unedited model, stored under its fingerprint, the module and the corpus.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from editsafety.artifacts import ArtifactKey, ArtifactStore
from editsafety.editing.keys import by_token
from editsafety.errors import DataError, EditorError
from editsafety.model import trace
from editsafety.model.handle import ModelHandle
from editsafety.model.sites import Site
from editsafety.progress import Progress

TOKENS_PER_DIMENSION = 10
BATCH_TOKENS = 4096
ROUNDING = 1e-5  # of the mean diagonal: what may be missing to a positive semi-definite matrix
ASYMMETRY = 1e-3  # of the largest entry; float32 sums of 100,000 articles stay below 1e-5


@dataclass(frozen=True, eq=False)
class Covariance:
    """C of one module's input."""

    # The module.
    module: str
    # `[d_in, d_in]` float32.
    matrix: Tensor
    # How many tokens it is the mean of.
    tokens: int


def wide(
    covariance: Covariance, damping: float = 0.0, ridge: float = 0.0, device: torch.device | None = None
) -> Tensor:
    """C in float64, with `damping` times its mean diagonal and `ridge` added to its diagonal."""
    # Apple's GPUs have no float64.
    place = "cpu" if device is None or device.type == "mps" else device
    matrix = covariance.matrix.to(device=place, dtype=torch.float64)
    if damping:
        matrix = matrix + torch.diag(damping * matrix.diagonal().mean().expand(len(matrix)))
    if ridge:
        matrix = matrix + ridge * torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)
    return matrix


class Inverse:
    """k -> C^-1 k by a Cholesky factor in float64, made once.

    `damping` adds that share of the mean diagonal to the diagonal: 0 is the published method, whose inverse is float32
    and differs from this one by rounding (3e-5 of a delta on the tiny model of our goldens, condition number 14,000).
    `ridge` adds that number itself. Raises EditorError when C has no inverse.
    """

    def __init__(
        self, covariance: Covariance, damping: float = 0.0, device: torch.device | None = None, ridge: float = 0.0
    ) -> None:
        matrix = wide(covariance, damping, ridge, device)
        factor, failed = torch.linalg.cholesky_ex(matrix)
        if int(failed) or not torch.isfinite(factor).all():
            raise EditorError(
                f"the second moment of the input of {covariance.module}, from {covariance.tokens} tokens, is singular "
                f"({len(matrix)} dimensions). Prepare it from more (mom2_tokens), or set mom2_damping, e.g. 1e-6."
            )
        self._factor = factor

    def __call__(self, key: Tensor) -> Tensor:
        """C^-1 `key`, `[d_in]`, in the dtype and on the device of `key`."""
        return self.columns(key[:, None])[:, 0].to(key)

    def columns(self, keys: Tensor) -> Tensor:
        """C^-1 `keys`, `[d_in, n]`, in float64, where the factor is."""
        return torch.cholesky_solve(self.widened(keys), self._factor)

    def widened(self, keys: Tensor) -> Tensor:
        """`keys` in float64, where the factor is."""
        return keys.to(self._factor)


def collect(
    handle: ModelHandle,
    sites: Sequence[Site],
    texts: Sequence[str],
    tokens: int,
    progress: Progress | None = None,
) -> dict[str, Covariance]:
    """C of every site's input from the first texts that hold `tokens` tokens together, by module name.

    Texts longer than the model's context are cut. Raises DataError as `collect_rows` does.
    """
    return collect_rows(handle, sites, _first(handle, texts, tokens), progress)


@torch.no_grad()
def collect_rows(
    handle: ModelHandle, sites: Sequence[Site], rows: Sequence[Sequence[int]], progress: Progress | None = None
) -> dict[str, Covariance]:
    """C of every site's input from texts as ids, by module name. Sums are float32.

    Raises DataError when the texts hold fewer tokens than a site has dimensions (C would be singular whatever they
    say).
    """
    count = sum(len(row) for row in rows)
    needed = max(site.d_in for site in sites)
    if count < needed:
        raise DataError(
            f"{len(rows)} texts hold {count} tokens of {handle.name}; the second moment of {needed} numbers needs at "
            f"least as many and should have {TOKENS_PER_DIMENSION * needed}. Give more texts or raise mom2_tokens."
        )
    modules = [site.module for site in sites]
    sums: dict[str, Tensor] = {}
    batches, read = list(_batches(rows)), 0
    with (progress or Progress.quiet()).task(f"second moments of {handle.name}", len(batches)) as task:
        for chosen in batches:
            batch = handle.batch(chosen)
            with trace.watch(handle.model, modules, stop=True) as seen:
                handle.run(batch.ids, batch.mask)
            for module in modules:
                keys = by_token(seen.inputs[module], *batch.ids.shape)
                real = keys[batch.mask.bool().to(keys.device)].float()
                sums[module] = sums[module] + real.T @ real if module in sums else real.T @ real
            read += sum(len(row) for row in chosen)
            task.step(f"{read} of {count} tokens")
    return {module: Covariance(module, total / count, count) for module, total in sums.items()}


def key(handle: ModelHandle, module: str, corpus: str, tokens: int) -> ArtifactKey:
    """Where C of a module is kept; `corpus` names the texts (a sha256, or the name and seed of a generator)."""
    return ArtifactKey("covariance", handle.identity, {"module": module, "corpus": corpus, "tokens": tokens})


def load(handle: ModelHandle, artifacts: ArtifactStore, site: Site, corpus: str, tokens: int) -> Covariance | None:
    """C from the store, or None when it has not been prepared.

    Raises EditorError when it cannot be the second moment of the site: another shape, not symmetric, a negative
    diagonal, no number of tokens.
    """
    stored = artifacts.get(key(handle, site.module, corpus, tokens))
    if stored is None:
        return None
    matrix, count = stored.get("matrix"), stored.get("tokens")
    wrong = _wrong(matrix, count, site.d_in)
    if wrong or matrix is None or count is None:
        raise EditorError(
            f"the stored second moment of {site.module} {wrong}. Delete it from the artifact folder and prepare again."
        )
    return Covariance(site.module, matrix, int(count))


def why_not(matrix: Tensor, tokens: int, site: Site) -> str:
    """Why a matrix cannot be C of a site, the mean over so many tokens, in words; empty when it can."""
    if isinstance(tokens, bool) or not isinstance(tokens, int) or tokens < 1:
        return f"is said to be of {tokens!r:.20} tokens, expected a whole number above 0"
    if wrong := _wrong(matrix, torch.tensor(tokens), site.d_in):
        return wrong
    whole = matrix.detach().cpu().double()
    if not bool(torch.isfinite(whole).all()):
        return "holds entries that are not finite"
    scale = float(whole.diagonal().mean())
    if not scale > 0:
        return "is all zero"
    # A factor exists where no direction has a negative square; rounding of float32 is allowed for.
    if int(torch.linalg.cholesky_ex(whole + ROUNDING * scale * torch.eye(site.d_in, dtype=whole.dtype)).info):
        return "is not positive semi-definite, as a mean of squares is"
    return ""


def _wrong(matrix: Tensor | None, count: Tensor | None, size: int) -> str:
    """Why these cannot be C and its number of tokens, in words; empty when they can."""
    if matrix is None or tuple(matrix.shape) != (size, size) or not matrix.is_floating_point():
        found = "missing" if matrix is None else f"{str(matrix.dtype).removeprefix('torch.')} {list(matrix.shape)}"
        return f"is {found}, expected floats [{size}, {size}]"
    if count is None or count.numel() != 1 or count.is_complex() or not 0 < float(count) < 2**53:
        return "does not say from how many tokens it is"
    if bool((matrix.diagonal() < 0).any()):
        return "has a negative diagonal, which no mean of squares has"
    if float((matrix - matrix.T).abs().max()) > ASYMMETRY * float(matrix.abs().max()):
        return "is not symmetric"
    return ""


def keep(
    handle: ModelHandle, artifacts: ArtifactStore, covariance: Covariance, corpus: str, tokens: int, texts: str = ""
) -> None:
    """Put C into the store, with a note on the texts that it was made from."""
    tensors = {"matrix": covariance.matrix, "tokens": torch.tensor(covariance.tokens)}
    notes = {"texts": texts or corpus, "tokens": covariance.tokens}
    artifacts.put(key(handle, covariance.module, corpus, tokens), tensors, notes)


def discard(handle: ModelHandle, artifacts: ArtifactStore, module: str, corpus: str, tokens: int) -> None:
    """Take C of a module out of the store, where it is there."""
    artifacts.discard(key(handle, module, corpus, tokens))


def _first(handle: ModelHandle, texts: Sequence[str], tokens: int) -> list[list[int]]:
    rows: list[list[int]] = []
    count = 0
    for text in texts:
        if count >= tokens:
            break
        ids = handle.ids(text)[: handle.context]
        if ids:
            rows.append(ids)
            count += len(ids)
    return rows


def _batches(rows: Sequence[Sequence[int]]) -> Iterator[list[Sequence[int]]]:
    """Rows of similar length together, at most BATCH_TOKENS a batch, padding included."""
    rows = sorted(rows, key=len)
    start = 0
    for end in range(1, len(rows) + 1):
        if end == len(rows) or len(rows[end]) * (end + 1 - start) > BATCH_TOKENS:
            yield rows[start:end]
            start = end
