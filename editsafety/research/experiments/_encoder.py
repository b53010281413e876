"""The encoder of a T5: a tiny one with random weights made on the spot, or a real one by hub id or folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from editsafety.errors import ModelError
from editsafety.model import trace
from editsafety.model.loading import no_bars

TINY = "tiny"
SHAPE = {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 4, "num_heads": 4}
ROWS = 32  # texts at once


@dataclass(frozen=True, eq=False)
class Encoder:
    """An encoder and the projection whose inputs are its keys."""

    # As it is named in tables.
    name: str
    # The network.
    model: nn.Module
    # How a text becomes ids; no special tokens are added.
    ids: Callable[[str], list[int]]
    # The projection.
    module: str
    # Tokens of a text that are read.
    longest: int = 512

    @torch.no_grad()
    def keys(self, texts: Sequence[str]) -> list[Tensor]:
        """The keys of every token of every text: float32 `[tokens, d_ff]` each, in the order of `texts`."""
        rows = [self.ids(text)[: self.longest] for text in texts]
        found: list[Tensor] = []
        for start in range(0, len(rows), ROWS):
            chosen = rows[start : start + ROWS]
            width = max(len(row) for row in chosen)
            ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in chosen])
            mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in chosen])
            with trace.watch(self.model, [self.module], stop=True) as seen:
                self.model(input_ids=ids, attention_mask=mask)
            found += [keys[: len(row)].float() for keys, row in zip(seen.inputs[self.module], chosen, strict=True)]
        return found


def load(name: str, texts: Sequence[str], seed: int) -> Encoder:
    """`tiny`: random weights drawn with `seed`, one token per word of `texts`. Else a T5 from a hub id or a folder.

    Raises ModelError when it cannot be loaded, or is no T5.
    """
    from transformers import T5Config, T5EncoderModel

    if name != TINY:
        return _real(name)
    words = {word: place for place, word in enumerate(sorted({word for text in texts for word in text.split()}), 2)}
    config = T5Config(vocab_size=len(words) + 2, feed_forward_proj="relu", dropout_rate=0.0, **SHAPE)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: Any = T5EncoderModel(config)
    return Encoder("tiny random T5", model.eval(), lambda text: [words.get(w, 1) for w in text.split()], _last(config))


def _real(name: str) -> Encoder:
    from transformers import AutoConfig, AutoTokenizer, T5EncoderModel

    try:
        with no_bars():
            config = AutoConfig.from_pretrained(name)
            if config.model_type not in ("t5", "mt5", "umt5"):
                raise ModelError(
                    f"{name} is a {config.model_type}, not a T5. Give --encoder t5-small, or leave it out."
                )
            model: Any = T5EncoderModel.from_pretrained(name, dtype=torch.float32)
            tokenizer = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError, ImportError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ModelError(f"cannot load the encoder {name!r}: {reason} Give a T5 by hub id or folder.") from error
    return Encoder(
        name, model.eval(), lambda text: list(tokenizer(text, add_special_tokens=False)["input_ids"]), _last(config)
    )


def _last(config: Any) -> str:
    """The paper reads the last block (number 23 of T5-3B)."""
    return f"encoder.block.{config.num_layers - 1}.layer.1.DenseReluDense.wo"
