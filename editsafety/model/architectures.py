"""Where each model family keeps its weights: one row of data per family, no code per family.

Checked against models built from config under transformers 5; which way round a weight is stored is *not* said here
but read off the module's class (see `sites`). The value that an MLP writes is taken at the output of its
down-projection: bloom adds the residual inside its MLP module and opt has no MLP module at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

from editsafety.errors import ModelError

# The names that configs use for a number of experts.
EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")


class Part(Enum):
    """A projection inside a decoder block."""

    MLP_IN = "mlp_in"
    MLP_OUT = "mlp_out"
    ATTENTION_IN = "attention_in"
    ATTENTION_OUT = "attention_out"


@dataclass(frozen=True, slots=True)
class Architecture:
    """One family: `{}` in a name stands for the layer."""

    # As transformers configs name it.
    model_type: str
    # A decoder block.
    block: str
    # The projections into the MLP, below the block.
    mlp_in: tuple[str, ...]
    # The one out of it.
    mlp_out: str
    # The one out of attention.
    attention_out: str
    # Those into it: queries, keys and values, or one matrix for all three.
    attention_in: tuple[str, ...]

    @property
    def is_gated(self) -> bool:
        """Whether one half of the MLP's input multiplies the other."""
        return any("gate" in name for name in self.mlp_in)

    def block_of(self, layer: int) -> str:
        """Module name of a decoder block."""
        return self.block.format(layer)

    def projections(self, part: Part) -> tuple[str, ...]:
        """Names of a part's projections below a block."""
        return {
            Part.MLP_IN: self.mlp_in,
            Part.MLP_OUT: (self.mlp_out,),
            Part.ATTENTION_IN: self.attention_in,
            Part.ATTENTION_OUT: (self.attention_out,),
        }[part]

    def modules(self, part: Part, layer: int) -> tuple[str, ...]:
        """Module names of a part of one block."""
        return tuple(f"{self.block_of(layer)}.{name}" for name in self.projections(part))

    @classmethod
    def of(cls, config: Any, not_found: str = "") -> Architecture:
        """The row of a transformers config; `not_found` says why a family without one is not told by looking.

        Raises ModelError for a family without a row, a mixture of experts, and a quantised checkpoint.
        """
        text = config.get_text_config() if hasattr(config, "get_text_config") else config
        kind = getattr(config, "model_type", None)
        experts = next((name for name in EXPERTS if getattr(text, name, None)), None)
        if experts:
            raise ModelError(
                f"{kind} is a mixture of experts ({experts} = {getattr(text, experts)}), and editors of one projection "
                "per layer do not say which expert they mean. Use a dense model, or a method that finds its weights "
                "itself (--editor path.py:function)."
            )
        refuse_quantised(config)
        for row in ROWS:
            if row.model_type == kind:
                return row
        raise ModelError(
            f"no architecture row for model_type {kind!r}{_why(not_found)}. "
            f"Known: {', '.join(sorted(r.model_type for r in ROWS))}. "
            "Add one row to editsafety/model/architectures.py: block, MLP projections, attention output; or take a "
            "method that finds its weights itself (--editor path.py:function)."
        )


def _why(not_found: str) -> str:
    return f", and its parts cannot be told from the model: {not_found}" if not_found else ""


def has_row(config: Any) -> bool:
    """Whether a family is in the table."""
    return any(row.model_type == getattr(config, "model_type", None) for row in ROWS)


def refuse_quantised(config: Any) -> None:
    """Raise ModelError for a checkpoint whose weights are packed: nothing can be added to them."""
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    if any(getattr(part, "quantization_config", None) is not None for part in (config, text)):
        raise ModelError(
            f"this {getattr(config, 'model_type', None)} checkpoint is quantised: a delta cannot be added to packed "
            "weights. Load the unquantised checkpoint (--dtype bfloat16 halves the memory of float32)."
        )


QKV = ("q_proj", "k_proj", "v_proj")
SEPARATE = tuple(f"self_attn.{name}" for name in QKV)


def _gpt(kind: str, mlp_in: str, mlp_out: str, attention: str, into: tuple[str, ...]) -> Architecture:
    return Architecture(kind, "transformer.h.{}", (mlp_in,), mlp_out, attention, into)


def _llama(
    kind: str,
    mlp_in: tuple[str, ...] = ("mlp.gate_proj", "mlp.up_proj"),
    trunk: str = "model",
    into: tuple[str, ...] = SEPARATE,
) -> Architecture:
    return Architecture(kind, f"{trunk}.layers.{{}}", mlp_in, "mlp.down_proj", "self_attn.o_proj", into)


_WIDE = ("mlp.dense_h_to_4h", "mlp.dense_4h_to_h")
ROWS: tuple[Architecture, ...] = (
    _gpt("gpt2", "mlp.c_fc", "mlp.c_proj", "attn.c_proj", ("attn.c_attn",)),
    _gpt(
        *("gpt_neo", "mlp.c_fc", "mlp.c_proj", "attn.attention.out_proj"),
        tuple(f"attn.attention.{name}" for name in QKV),
    ),
    _gpt("gptj", "mlp.fc_in", "mlp.fc_out", "attn.out_proj", tuple(f"attn.{name}" for name in QKV)),
    _gpt("codegen", "mlp.fc_in", "mlp.fc_out", "attn.out_proj", ("attn.qkv_proj",)),
    _gpt("gpt_bigcode", "mlp.c_fc", "mlp.c_proj", "attn.c_proj", ("attn.c_attn",)),  # linear layers, unlike gpt2
    _gpt("bloom", *_WIDE, "self_attention.dense", ("self_attention.query_key_value",)),
    _gpt("falcon", *_WIDE, "self_attention.dense", ("self_attention.query_key_value",)),
    Architecture(
        *("gpt_neox", "gpt_neox.layers.{}", ("mlp.dense_h_to_4h",), "mlp.dense_4h_to_h"),
        *("attention.dense", ("attention.query_key_value",)),
    ),
    *(_llama(kind) for kind in ("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text", "olmo2")),
    *(_llama(kind) for kind in ("gemma", "gemma4_text", "granite", "helium", "ministral3", "olmo", "olmo3", "smollm3")),
    *(_llama(kind) for kind in ("cohere", "cohere2", "ernie4_5", "exaone4", "seed_oss", "stablelm")),
    *(_llama(kind, ("mlp.up_proj",)) for kind in ("apertus", "arcee")),  # no gate
    *(_llama(kind, ("mlp.gate_up_proj",)) for kind in ("glm", "glm4")),
    _llama("gemma3", trunk="model.language_model"),  # text and images; `gemma3_text` is the text model alone
    _llama("phi3", ("mlp.gate_up_proj",), into=("self_attn.qkv_proj",)),
    Architecture("phi", "model.layers.{}", ("mlp.fc1",), "mlp.fc2", "self_attn.dense", SEPARATE),
    Architecture("nanochat", "model.layers.{}", ("mlp.fc1",), "mlp.fc2", "self_attn.o_proj", SEPARATE),
    Architecture("starcoder2", "model.layers.{}", ("mlp.c_fc",), "mlp.c_proj", "self_attn.o_proj", SEPARATE),
    Architecture("xglm", "model.layers.{}", ("fc1",), "fc2", "self_attn.out_proj", SEPARATE),
    Architecture("biogpt", "biogpt.layers.{}", ("fc1",), "fc2", "self_attn.out_proj", SEPARATE),
    Architecture("mpt", "transformer.blocks.{}", ("ffn.up_proj",), "ffn.down_proj", "attn.out_proj", ("attn.Wqkv",)),
    Architecture("opt", "model.decoder.layers.{}", ("fc1",), "fc2", "self_attn.out_proj", SEPARATE),
)
