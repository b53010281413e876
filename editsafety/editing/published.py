"""Second moments that others have published: the `.npz` files of ROME and its relatives.

`<module>_float32_mom2_<articles>.npz` holds `mom2.mom2`, the *sum* over tokens of k k^T, and `mom2.count`, the number
of tokens; readers must divide. Nothing in a published file says for which model it was made: one for another model of
the same shape cannot be told apart here, so choose the folder with care. Files that are written here do say it. Pickled
content is refused.
"""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from editsafety.editing.covariance import ASYMMETRY, Covariance, why_not
from editsafety.errors import DataError, UsageError
from editsafety.model.handle import ModelHandle
from editsafety.model.sites import Site

SUM, COUNT = "mom2.mom2", "mom2.count"
MODEL = "editsafety.model"  # the fingerprint of the model, in files that are written here
SAMPLE = "sample_size"  # the published readers take no file without it: the number at the end of its name
# What zipfile, zlib and numpy raise on bytes that are not theirs: an unknown compression, a password, an array that
# says it is larger than memory, a header that is no Python literal.
_DAMAGED = (
    EOFError, LookupError, MemoryError, NotImplementedError, OSError, OverflowError, RuntimeError, SyntaxError,
    TypeError, ValueError, tokenize.TokenError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


def locate(place: Path, site: Site) -> Path:
    """The file for a site: `place` itself, or the one in the folder `place` that is named after the module.

    Raises DataError when there is none, more than one, or the file is named after another module.
    """
    if place.is_file():
        if not place.name.startswith(f"{site.module}_"):
            raise DataError(f"{place}: named after another module, expected {site.module}_float32_mom2_<articles>.npz.")
        return place
    found = sorted(place.glob(f"{site.module}_*mom2*.npz"))
    if len(found) != 1:
        have = ", ".join(path.name for path in found) or "none"
        raise DataError(f"{place}: expected one file {site.module}_*mom2*.npz, found {have}.")
    return found[0]


def save_second_moments(
    folder: Path, handle: ModelHandle, matrices: Mapping[int, Tensor], *, tokens: int
) -> tuple[Path, ...]:
    """Write second moments of your own, C by layer, for editors to take; returns the files, the lowest layer first::

        files = editsafety.save_second_moments(Path("moments"), handle, {13: c13, 14: c14}, tokens=100_000)

    C is the mean over so many tokens of k k^T, `[d_in, d_in]`, k the input of the MLP's down-projection in the unedited
    model `handle`. Editors take it with the hyperparameter `mom2_corpus: moments`, or after `editsafety prepare
    --corpus moments`. The files are of the published layout, and say which model they are of. The published code takes
    them, too, from `<STATS_DIR>/<model>/wikipedia_stats`, with `mom2_n_samples` set to the number of tokens.

    Raises UsageError for a C that cannot be one (shape, type, entries that are not finite, not symmetric, not positive
    semi-definite), no number of tokens, a layer that the model lacks, or a model that carries an edit.
    """
    if handle.fingerprint() != handle.identity:
        raise UsageError(f"{handle.name} carries an edit; second moments are of the unedited model.")
    sites = {layer: handle.mlp_out(layer) for layer in sorted(matrices)}
    if not sites:
        raise UsageError("there is no second moment to write: give one matrix per layer.")
    for layer, site in sites.items():
        if wrong := why_not(matrices[layer], tokens, site):
            raise UsageError(f"the second moment of layer {layer} of {handle.name} {wrong}.")
    folder.mkdir(parents=True, exist_ok=True)
    files, count = [], np.asarray(tokens)
    for layer, site in sites.items():
        files.append(folder / f"{site.module}_float32_mom2_{tokens}.npz")
        total: np.ndarray[Any, np.dtype[np.float64]] = matrices[layer].detach().cpu().double().numpy() * tokens
        np.savez(files[-1], **{SUM: total, COUNT: count, SAMPLE: count, MODEL: np.asarray(handle.identity)})
    return tuple(files)


def read(path: Path, site: Site, model: str = "") -> Covariance:
    """C of a site from a published file; `model` is the fingerprint that it must not contradict.

    Raises DataError: not an `.npz`, arrays missing, too large or pickled, made from another model, a shape that is not
    the site's, no tokens, entries that are not finite, or a matrix that is not symmetric.
    """
    limit = site.d_in * site.d_in * 8 + 4096  # float64 and an array header; a larger member is not this matrix
    try:
        with zipfile.ZipFile(path) as file:
            sizes: dict[str, int] = {}
            for info in file.infolist():
                name = info.filename.removesuffix(".npy")
                sizes[name] = max(info.file_size, sizes.get(name, 0))
        for name in (SUM, COUNT, MODEL):
            if name not in sizes and name != MODEL:
                raise DataError(f"{path}: has no array {name!r}; found {', '.join(sorted(sizes)) or 'none'}.")
            if sizes.get(name, 0) > limit:
                raise DataError(
                    f"{path}: {name!r} takes {sizes[name]} bytes, expected up to {limit} for {site.module}."
                )
        with np.load(path, allow_pickle=False) as arrays:
            total, count = np.asarray(arrays[SUM]), np.asarray(arrays[COUNT])
            made_from = str(arrays[MODEL]) if MODEL in arrays else model
    except _DAMAGED as error:
        raise DataError(f"{path}: cannot be read as .npz without pickle ({error}). Fetch it again.") from error
    if made_from != model:
        raise DataError(f"{path}: made from another model ({made_from:.12}, this one is {model:.12}). Make it anew.")
    if total.shape != (site.d_in, site.d_in) or not np.issubdtype(total.dtype, np.floating):
        expected = f"floats [{site.d_in}, {site.d_in}]"
        raise DataError(f"{path}: {SUM!r} is {total.dtype} {list(total.shape)}, expected {expected} for {site.module}.")
    real = np.issubdtype(count.dtype, np.integer) or np.issubdtype(count.dtype, np.floating)
    if count.size != 1 or not real or not 0 < float(count.item()) < 2**53:
        raise DataError(f"{path}: {COUNT!r} is {count.tolist()!r:.40}, expected a number of tokens above 0.")
    with np.errstate(over="ignore"):
        mean = (total / int(count.item())).astype(np.float32)
    if not np.isfinite(total).all() or not np.isfinite(mean).all():
        raise DataError(f"{path}: {SUM!r} holds entries that are not finite. Fetch it again.")
    if np.abs(total - total.T).max() > ASYMMETRY * np.abs(total).max():
        raise DataError(f"{path}: {SUM!r} is not symmetric, so it is no second moment. Fetch it again.")
    if (total.diagonal() < 0).any():
        raise DataError(f"{path}: {SUM!r} has a negative diagonal, which no sum of squares has. Fetch it again.")
    return Covariance(site.module, torch.from_numpy(mean), int(count.item()))
