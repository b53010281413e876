"""The pocket models as data: one row says everything that decides the weights."""

from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

Layout = Literal["gpt_neo", "qwen3"]
Spelling = Literal["bytes", "words"]


@dataclass(frozen=True)
class PocketSpec:
    """A pocket model: its layout and how it is trained.

    `sink_norm` is the norm of the frozen embedding of position 0, the analogue of the attention sink with its massive
    activation in large models; 0 trains that position like any other. `spelling` is the kind of tokenizer (see
    `tokenizer`). `key_heads` are the heads of keys and values. `windows` are the shapes of the training batches,
    (rows, tokens), taken in turn. `continues` names the shipped model that this one is trained further from (its
    weights and its tokenizer), and `errands` is the share of documents that are errands (see there).
    """

    name: str
    layout: Layout
    spelling: Spelling
    vocabulary: int
    width: int
    inner: int
    heads: int
    key_heads: int
    local_layers: int
    global_layers: int
    window: int
    positions: int
    sink_norm: float
    documents: int
    steps: int
    windows: tuple[tuple[int, int], ...]
    learning_rate: float
    warmup: int
    weight_decay: float
    betas: tuple[float, float]
    world_seed: int
    continues: str = ""
    errands: float = 0.0


POCKET_NEO = PocketSpec(
    name="pocket-neo",
    layout="gpt_neo",
    spelling="bytes",
    vocabulary=2500,
    width=192,
    inner=640,
    heads=6,
    key_heads=6,
    local_layers=3,
    global_layers=3,
    window=2,
    positions=256,
    sink_norm=100.0,
    documents=75_000,
    steps=6_000,
    windows=((32, 64), (32, 64), (32, 64), (32, 64), (32, 64), (16, 128), (16, 128), (8, 256)),
    learning_rate=2e-3,
    warmup=100,
    weight_decay=0.1,
    betas=(0.9, 0.95),
    world_seed=20,
)

POCKET_QWEN = PocketSpec(
    name="pocket-qwen",
    layout="qwen3",
    spelling="words",
    vocabulary=2700,
    width=192,
    inner=512,
    heads=6,
    key_heads=2,
    local_layers=3,
    global_layers=3,
    window=2,
    positions=256,
    sink_norm=0.0,
    documents=75_000,
    steps=4_500,
    windows=((32, 64), (32, 64), (32, 64), (32, 64), (32, 64), (16, 128), (16, 128), (8, 256)),
    learning_rate=2e-3,
    warmup=100,
    weight_decay=0.1,
    betas=(0.9, 0.95),
    world_seed=20,
)

POCKET_GUARDED = replace(
    POCKET_NEO,
    name="pocket-guarded",
    documents=20_000,
    steps=600,
    windows=((16, 64), (16, 64), (16, 64), (16, 64), (16, 64), (8, 128), (8, 128), (4, 256)),
    learning_rate=5e-4,
    warmup=50,
    continues="pocket-neo",
    errands=0.5,
)

SPECS: MappingProxyType[str, PocketSpec] = MappingProxyType(
    {spec.name: spec for spec in (POCKET_NEO, POCKET_QWEN, POCKET_GUARDED)}
)
