"""Second moments that others have published: the `.npz` files of ROME and its relatives.

`<module>_float32_mom2_<articles>.npz` holds `mom2.mom2`, the *sum* over tokens of k k^T, and `mom2.count`, the number
of tokens; readers must divide. Nothing in the file says for which model it was made: one for another model of the same
shape cannot be told apart here, so choose the folder with care. Pickled content is refused.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import torch

from editsafety.editing.covariance import Covariance
from editsafety.errors import DataError
from editsafety.model.sites import Site

SUM, COUNT = "mom2.mom2", "mom2.count"
ASYMMETRY = 1e-3  # of the largest entry; float32 sums of 100,000 articles stay below 1e-5


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


def read(path: Path, site: Site) -> Covariance:
    """C of a site from a published file.

    Raises DataError: not an `.npz`, arrays missing, too large or pickled, a shape that is not the site's, no tokens,
    entries that are not finite, or a matrix that is not symmetric.
    """
    limit = site.d_in * site.d_in * 8 + 4096  # float64 and an array header; a larger member is not this matrix
    try:
        with zipfile.ZipFile(path) as file:
            sizes = {info.filename.removesuffix(".npy"): info.file_size for info in file.infolist()}
        for name in (SUM, COUNT):
            if name not in sizes:
                raise DataError(f"{path}: has no array {name!r}; found {', '.join(sorted(sizes)) or 'none'}.")
            if sizes[name] > limit:
                raise DataError(
                    f"{path}: {name!r} takes {sizes[name]} bytes, expected up to {limit} for {site.module}."
                )
        with np.load(path, allow_pickle=False) as arrays:
            total, count = np.asarray(arrays[SUM]), np.asarray(arrays[COUNT])
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: cannot be read as .npz without pickle ({error}). Fetch it again.") from error
    if total.shape != (site.d_in, site.d_in) or not np.issubdtype(total.dtype, np.floating):
        expected = f"floats [{site.d_in}, {site.d_in}]"
        raise DataError(f"{path}: {SUM!r} is {total.dtype} {list(total.shape)}, expected {expected} for {site.module}.")
    if count.size != 1 or not np.issubdtype(count.dtype, np.number) or not 0 < float(count.item()) < 2**53:
        raise DataError(f"{path}: {COUNT!r} is {count.tolist()!r:.40}, expected a number of tokens above 0.")
    if not np.isfinite(total).all():
        raise DataError(f"{path}: {SUM!r} holds entries that are not finite. Fetch it again.")
    if np.abs(total - total.T).max() > ASYMMETRY * np.abs(total).max():
        raise DataError(f"{path}: {SUM!r} is not symmetric, so it is no second moment. Fetch it again.")
    tokens = int(count.item())
    return Covariance(site.module, torch.from_numpy((total / tokens).astype(np.float32)), tokens)
