"""Damaged tensor files, signed anew: every checksum holds, and the content lies."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy
from safetensors.torch import load as tensors_of
from safetensors.torch import save as to_bytes
from torch import Tensor

from editsafety import tensor_files
from tests.fuzz import mutations

Body = dict[str, Any]  # of our header: format, about, sha256

OTHER = ("nan", "inf", "flat", "turned", "empty", "scalar", "longer", "type", "zeros", "huge")


def opened(data: bytes) -> tuple[dict[str, Tensor], Body]:
    """The tensors of a whole file, and our header."""
    size = int.from_bytes(data[:8], "little")
    return tensors_of(data), json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["editsafety"])


def sealed(tensors: Mapping[str, Tensor], body: Any) -> bytes:
    """A file with such a header, whose checksum is right."""
    text = json.dumps(body)
    check = hashlib.sha256(text.encode()).hexdigest()
    return to_bytes(dict(tensors), {"editsafety": text, "editsafety_sha256": check})


def lying(whole: bytes, tensors: Mapping[str, Tensor] | None = None, **about: Any) -> bytes:
    """The file with other tensors or with other things said about it; every checksum is right."""
    kept, body = opened(whole)
    kept = dict(kept if tensors is None else tensors)
    prints = {name: tensor_files.digest(tensor) for name, tensor in kept.items()}
    return sealed(kept, {**body, "about": {**body["about"], **about}, "sha256": prints})


@st.composite
def other_tensor(draw: DrawFn, tensor: Tensor) -> Tensor:
    """A tensor of another shape or type, or with values that are no numbers."""
    how = draw(st.sampled_from(OTHER))
    flat = tensor.detach().clone().reshape(-1)
    if how in ("nan", "inf", "huge"):
        wide = tensor.detach().clone() if tensor.dtype.is_floating_point else tensor.float()
        if wide.numel():
            wide.view(-1)[draw(st.integers(0, wide.numel() - 1))] = {"nan": torch.nan, "inf": torch.inf}.get(how, 3e38)
        return wide
    if how == "type":
        types = [torch.float16, torch.bfloat16, torch.float64, torch.int8, torch.int64, torch.bool, torch.uint8]
        return tensor.to(draw(st.sampled_from(types)))
    made = {
        "flat": flat,
        "turned": tensor.T.contiguous() if tensor.dim() == 2 else flat[None],
        "empty": tensor.new_zeros([0, *tensor.shape[1:]]),
        "scalar": tensor.new_zeros([]),
        "longer": torch.cat([flat, flat[:1]]),
        "zeros": torch.zeros_like(tensor),
    }
    return made[how]


@st.composite
def resigned(draw: DrawFn, whole: bytes) -> bytes:
    """A file in which tensors or what is said about them are others; its checksums are right but now and then."""
    tensors, body = opened(whole)
    names = sorted(tensors)
    for _ in range(draw(st.integers(0, 2)) if names else 0):
        name = draw(st.sampled_from(names))
        how = draw(st.sampled_from(["other", "other", "missing", "renamed", "exchanged"]))
        if how == "other" and name in tensors:
            tensors[name] = draw(other_tensor(tensors[name]))
        elif how == "missing":
            tensors.pop(name, None)
        elif how == "renamed" and name in tensors:
            tensors[draw(st.sampled_from(["x", "0.value", "0.left", "sidecar0.x", "carry.x"]))] = tensors.pop(name)
        elif how == "exchanged":
            other = draw(st.sampled_from(names))
            if name in tensors and other in tensors:
                tensors[name], tensors[other] = tensors[other].clone(), tensors[name].clone()
    body["sha256"] = {name: tensor_files.digest(tensor) for name, tensor in tensors.items()}
    if draw(st.booleans()):
        body["about"] = draw(mutations.changed(_just(body["about"])))
    if draw(st.integers(0, 9)) == 0:
        body = draw(mutations.changed(_just(body)))
    return sealed(tensors, body)


@st.composite
def with_another_header(draw: DrawFn, whole: bytes) -> bytes:
    """A file whose safetensors header lies: sizes, offsets, types, names."""
    size = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + size])
    text = mutations.written(draw(mutations.changed(_just(header))))
    length = draw(st.sampled_from([len(text), len(text), len(text) + 1, 0, 2**40, 2**63]))
    return length.to_bytes(8, "little") + text + whole[8 + size :]


def _just(document: Any) -> SearchStrategy[Any]:
    return st.just(mutations.Whole(json.dumps(document).encode())).map(json.loads)


def files(whole: bytes) -> SearchStrategy[bytes]:
    """Everything that can be wrong with a tensor file."""
    return st.one_of(resigned(whole), resigned(whole), with_another_header(whole), mutations.damaged(st.just(whole)))
