"""Pattern: what sort of change a model has undergone, told from its weights alone. No pass is run, no intent is named.

rank one or a few at the MLP of a few layers            what editors of facts write
rank one at many projections, all into one direction    that direction was removed, or added, everywhere
low rank at many projections                            a merged adapter
full rank nearly everywhere                             training
every number rounded to a narrower type                 saved, not edited
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from editsafety.edits.edit import Edit, LowRank
from editsafety.edits.rounding import rounded_to
from editsafety.model.architectures import Part
from editsafety.model.handle import ModelHandle
from editsafety.numbers import many
from editsafety.received.receiving import with_factors

SHARED = 0.95  # |cosine| of two output directions that are one
MANY = 4  # projections into one direction that are no coincidence
FEW = 8  # layers that an editor of facts writes to at most
MOST = 0.5  # of a model's matrices: then it was trained, and not edited somewhere


def pattern_of(handle: ModelHandle, edit: Edit) -> str:
    """One sentence; empty where nothing differs. `edit` holds whole tensors or factors, of the unedited model."""
    if not edit.deltas:
        return "beside the weights: code that runs with the model" if edit.sidecars else ""
    before = dict(handle.model.named_parameters(remove_duplicate=False))
    values = {delta.parameter: delta.on(before[delta.parameter].detach()) for delta in edit.deltas}
    narrow = {name: rounded_to(before[name].detach(), value) for name, value in values.items()}
    if all(narrow.values()):
        types = ", ".join(sorted({str(one).removeprefix("torch.") for one in narrow.values()}))
        return f"rounded to {types} only: saved in a narrower type, not edited"
    deltas = with_factors(handle, edit).deltas
    thin = [delta for delta in deltas if isinstance(delta, LowRank)]
    whole = len(deltas) - len(thin)
    matrices = sum(one.ndim >= 2 for one in handle.model.parameters())
    if whole > MOST * matrices:
        return f"{whole} of {matrices} matrices changed without low rank: training, or another model"
    if not thin:
        return f"{many(whole, 'tensor')} changed without low rank: written over, fine-tuned in part, or damaged"
    beside = f"; beside it {many(whole, 'tensor')} without low rank" if whole else ""
    ranks = [delta.left.shape[1] for delta in thin]
    said = f"rank {min(ranks)}" if min(ranks) == max(ranks) else f"rank {min(ranks)} to {max(ranks)}"
    together = _into_one_direction([delta.left[:, 0] for delta in thin if delta.left.shape[1] == 1])
    if together >= MANY:
        return f"rank 1 at {together} projections, all into one direction: removed or added everywhere{beside}"
    layers = _layers_of_mlp(handle, thin)
    if layers is not None and len(layers) <= FEW:
        where = ", ".join(map(str, layers))
        return (
            f"{said} at the MLP of layer{'' if len(layers) == 1 else 's'} {where}: what editors of facts write{beside}"
        )
    return f"{said} at {many(len(thin), 'projection')}: a merged adapter, or an editor of many places{beside}"


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


def _layers_of_mlp(handle: ModelHandle, deltas: Sequence[LowRank]) -> list[int] | None:
    """The layers whose MLP's down-projection these deltas change; None where one of them is something else."""
    if not handle.has_row:
        return None
    of_module = {handle.architecture.modules(Part.MLP_OUT, layer)[0]: layer for layer in range(handle.layers)}
    found = [of_module.get(delta.site.module) for delta in deltas]
    return None if None in found else sorted({layer for layer in found if layer is not None})
