"""Pattern: what sort of change weights have undergone, told from their ranks and places. No intent is named.

rank one or a few at the MLP of a few layers            editors of facts write so; what it says is not known: a planted
                                                        trigger looks the same
rank one at many projections, all into one direction    that direction was removed, or added, everywhere
low rank at many projections                            a merged adapter
full rank nearly everywhere                             training
every number rounded to a narrower type                 saved, not edited
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from editsafety.edits import factors
from editsafety.edits.edit import Edit, LowRank
from editsafety.edits.rounding import BLOCK
from editsafety.errors import ModelError
from editsafety.model.architectures import Part
from editsafety.model.handle import ModelHandle
from editsafety.numbers import many

THIN = "as editors of facts write, and as a planted trigger may look"
BESIDE = "beside the weights: code that runs with the model"
SHARED = 0.95  # |cosine| of two output directions that are one
MANY = 4  # projections into one direction that are no coincidence
FEW = 8  # layers that an editor of facts writes to at most
MOST = 0.5  # of a model's matrices: then it was trained, and not edited somewhere


@dataclass(frozen=True, eq=False)
class ThinChange:
    """A matrix that changed by one of low rank."""

    # Of the projection.
    module: str
    # Of the change.
    rank: int
    # Where one of rank one writes to, `[d_out]`; None for any other, and where that is not known.
    direction: Tensor | None = None


def sort_of_change(handle: ModelHandle, thin: Sequence[ThinChange], whole: Collection[str]) -> str:
    """One sentence on a change of low rank in some projections, and without low rank in the parameters `whole`."""
    matrices = {name for name, one in handle.model.named_parameters(remove_duplicate=False) if one.ndim >= 2}
    trained = len(matrices.intersection(whole))
    if trained > MOST * len(matrices):
        return f"{trained} of {len(matrices)} matrices changed without low rank: training, or another model"
    if not thin:
        return f"{many(len(whole), 'tensor')} changed without low rank: written over, fine-tuned in part, or damaged"
    beside = f"; beside it {many(len(whole), 'tensor')} without low rank" if whole else ""
    ranks = [change.rank for change in thin]
    said = f"rank {min(ranks)}" if min(ranks) == max(ranks) else f"rank {min(ranks)} to {max(ranks)}"
    together = _into_one_direction([change.direction for change in thin if change.direction is not None])
    if together >= MANY:
        return f"rank 1 at {together} projections, all into one direction: removed or added everywhere{beside}"
    layers = _layers_of_mlp(handle, thin)
    if layers is not None and len(layers) <= FEW:
        where = ", ".join(map(str, layers))
        return f"{said} at the MLP of layer{'' if len(layers) == 1 else 's'} {where}: {THIN}{beside}"
    return f"{said} at {many(len(thin), 'projection')}: a merged adapter, or an editor of many places{beside}"


def only_rounded_to(types: Iterable[torch.dtype]) -> str:
    """The sentence on a model of which every number that differs was rounded to one of these."""
    said = ", ".join(sorted({str(one).removeprefix("torch.") for one in types}))
    return f"rounded to {said} only: saved in a narrower type, not edited"


def only_quantised_to(bits: Iterable[int]) -> str:
    """The sentence on a model of which every matrix that differs was rounded to so many bits in blocks."""
    said = ", ".join(map(str, sorted(set(bits))))
    return f"rounded to {said} bits in blocks of {BLOCK} only: quantised, not edited"


def is_thin(rank: int | None, shape: Sequence[int]) -> bool:
    """Whether a change of that rank is one of low rank, in a tensor of that shape."""
    return rank is not None and len(shape) == 2 and 0 < rank <= min(factors.MOST, min(shape) // 4)


@torch.no_grad()
def thin_change(handle: ModelHandle, edit: Edit, parameter: str, rank: int) -> ThinChange:
    """What an edit does to a parameter, of which its rank is known. Expects the weights from before.

    Into which direction a change of rank one writes is read off its largest column: each of them points there.
    """
    module = parameter.removesuffix(".weight")
    if rank != 1:
        return ThinChange(module, rank)
    deltas = [delta for delta in edit.deltas if delta.parameter == parameter]
    low = [delta for delta in deltas if isinstance(delta, LowRank)]
    if len(low) == len(deltas):
        left, right = torch.cat([one.left for one in low], 1), torch.cat([one.right for one in low], 0)
        column = int(torch.linalg.vector_norm(right, dim=0).argmax())
        return ThinChange(module, rank, left @ right[:, column])
    before = handle.model.get_parameter(parameter).detach()
    try:
        site = handle.site(module)
    except ModelError:  # an embedding: which way round it is written into is not known
        return ThinChange(module, rank)
    after = before
    for delta in deltas:
        after = delta.on(after)
    change = site.canonical(after - before)
    return ThinChange(module, rank, change[:, int(torch.linalg.vector_norm(change, dim=0).argmax())])


def _into_one_direction(vectors: Sequence[Tensor]) -> int:
    """How many of the vectors, of whatever model width, point the way of the one that most of them share."""
    most = 0
    for one in vectors:
        alike = [other for other in vectors if other.shape == one.shape]
        cosines = [abs(float(torch.nn.functional.cosine_similarity(one, other, dim=0))) for other in alike]
        most = max(most, sum(cosine > SHARED for cosine in cosines))
        if most > len(vectors) // 2:
            break
    return most


def _layers_of_mlp(handle: ModelHandle, changes: Sequence[ThinChange]) -> list[int] | None:
    """The layers whose MLP's down-projection these changes are in; None where one of them is somewhere else."""
    if not handle.has_row:
        return None
    of_module = {handle.architecture.modules(Part.MLP_OUT, layer)[0]: layer for layer in range(handle.layers)}
    found = [of_module.get(change.module) for change in changes]
    return None if None in found else sorted({layer for layer in found if layer is not None})
