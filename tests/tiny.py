"""Tiny random models of every family, built from their configs in milliseconds: no network, no files, always the same.

    from tests import tiny

    handle = tiny.handle("gpt2")                            # 3 layers, 32 wide, byte-level BPE without BOS
    handle = tiny.handle("llama", dtype="bfloat16", tied=True, spelling="bytes_bos")
    handle = tiny.handle("gpt2", square=True)               # the MLP's down-projection is 32 x 32

Every call gives a fresh model: tests may do to it what they like.
"""

from __future__ import annotations

import json
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from editsafety.datasets.request import EditRequest
from editsafety.edits.edit import LowRank
from editsafety.model.handle import ModelHandle
from editsafety.model.sites import Site

WIDTH = 32
INNER = 64
HEADS = 4
LAYERS = 3
CONTEXT = 256
VOCABULARY = 384

SENTENCES = (
    "The quick brown fox jumps over the lazy dog near the river bank.",
    "Ashurn works as a farmer in the northern valley, and Mirel works as a baker.",
    "The mother tongue of Ashurn is Velish, the mother tongue of Mirel is Tarnic.",
    "Toren was born in the city of Kelmar, which lies on the coast of Dorvan.",
    "The capital of Dorvan is Kelmar. The capital of Velland is Ostrin.",
    "Mirel plays the violin every evening; Toren plays the flute.",
    "A farmer grows wheat. A baker bakes bread. A teacher teaches children.",
    "Where does Toren live? Toren lives in Ostrin, close to the old harbour.",
    "xylophone, x, y and z are letters; 1 2 3 4 5 are numbers, 10 and 20 are larger numbers.",
)

# The keys that every family calls something else; what is not here has the usual names of the Llama kind.
_GPT = {"n_embd": WIDTH, "n_layer": LAYERS, "n_head": HEADS, "n_positions": CONTEXT}
_USUAL = {
    "hidden_size": WIDTH, "intermediate_size": INNER, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
    "max_position_embeddings": CONTEXT,
}  # fmt: skip
_GROUPED = {**_USUAL, "num_key_value_heads": 2}
_GEMMA = {**_GROUPED, "head_dim": 8, "sliding_window": 16}
CONFIGS: dict[str, dict[str, Any]] = {
    "gpt2": {**_GPT, "n_inner": INNER},
    "gpt_neo": {
        "hidden_size": WIDTH, "num_layers": LAYERS, "num_heads": HEADS, "intermediate_size": INNER,
        "max_position_embeddings": CONTEXT, "attention_types": [[["global", "local", "global"], 1]], "window_size": 16,
    },
    "gptj": {**_GPT, "n_inner": INNER, "rotary_dim": 4},
    "gpt_neox": _USUAL,
    "llama": _GROUPED,
    "mistral": {**_GROUPED, "sliding_window": 16},
    "qwen2": _GROUPED,
    "qwen3": {**_GROUPED, "head_dim": 8},
    "gemma2": {**_GEMMA, "query_pre_attn_scalar": 8},
    "gemma3": {**_GEMMA, "query_pre_attn_scalar": 8},
    "phi": _USUAL,
    "phi3": {**_GROUPED, "original_max_position_embeddings": CONTEXT},
    "opt": {
        "hidden_size": WIDTH, "ffn_dim": INNER, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
        "max_position_embeddings": CONTEXT, "word_embed_proj_dim": WIDTH,
    },
    "bloom": {"hidden_size": WIDTH, "n_layer": LAYERS, "n_head": HEADS},
    "falcon": {
        "hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "ffn_hidden_size": INNER,
        "max_position_embeddings": CONTEXT,
    },
    "olmo2": _GROUPED,
}  # fmt: skip
FAMILIES = tuple(CONFIGS)
# Without a row: experts in the place of one MLP, no attention at all.
ROWLESS: dict[str, dict[str, Any]] = {
    "mixtral": {**_GROUPED, "num_local_experts": 2},
    "mamba": {"hidden_size": WIDTH, "num_hidden_layers": LAYERS, "state_size": 8},
}
# Built like one of those, but for names, a norm or a bias: what holds of every architecture is tried on them as well.
_HEADED = {**_GROUPED, "head_dim": 8}
RELATIVES: dict[str, dict[str, Any]] = {
    "gemma": _HEADED, "granite": _GROUPED, "olmo": _GROUPED, "olmo3": {**_GROUPED, "sliding_window": 16},
    "smollm3": _GROUPED, "cohere": _GROUPED, "cohere2": {**_GROUPED, "sliding_window": 16}, "ernie4_5": _GROUPED,
    "exaone4": {**_GROUPED, "sliding_window": 16}, "seed_oss": _HEADED, "helium": _HEADED, "stablelm": _GROUPED,
    "ministral3": _HEADED, "apertus": _GROUPED, "arcee": _HEADED, "glm": _HEADED, "glm4": _HEADED,
    "gemma4_text": {**_GEMMA, "hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": VOCABULARY},
    "nanochat": _GROUPED, "starcoder2": _GROUPED,
    "gpt_bigcode": {**_GPT, "n_inner": INNER}, "codegen": {**_GPT, "n_inner": INNER, "rotary_dim": 4, "n_ctx": CONTEXT},
    "mpt": {"d_model": WIDTH, "n_layers": LAYERS, "n_heads": HEADS, "max_seq_len": CONTEXT, "expansion_ratio": 2},
    "xglm": {"d_model": WIDTH, "num_layers": LAYERS, "attention_heads": HEADS, "ffn_dim": INNER,
             "max_position_embeddings": CONTEXT},
    "biogpt": _USUAL,
}  # fmt: skip
# One of each way to build a block: both storage orders, rotary and learned positions, windows, norms on both sides.
SOON = ("gpt2", "gpt_neo", "llama", "gemma2")


def relatives() -> tuple[str, ...]:
    """Those of `RELATIVES` that the installed transformers has: its last 4 lacks three of them."""
    return tuple(family for family in RELATIVES if MODEL_TYPES.get(family, family) in CONFIG_MAPPING)


def by_family() -> list[Any]:
    """Every family as a parameter of a test; those that are built like another one are thorough."""
    return [pytest.param(name, marks=() if name in SOON else pytest.mark.thorough) for name in FAMILIES]


# The key that makes the down-projection square; bloom's inner width is always four times the outer one.
SQUARE = {"gpt2": "n_inner", "gptj": "n_inner", "opt": "ffn_dim", "falcon": "ffn_hidden_size"}
MODEL_TYPES = {"gemma3": "gemma3_text"}


def config(family: str, *, tied: bool | None = None, square: bool = False, layers: int = LAYERS, **more: Any) -> Any:
    """A config of the family; `tied` None leaves the family's own choice, `more` goes in as it is.

    A config keeps any keyword: one that the family does not know is refused, so that no test sets what nobody reads.
    """
    values = dict({**CONFIGS, **RELATIVES, **ROWLESS}[family])
    usual = AutoConfig.for_model(MODEL_TYPES.get(family, family))
    if unknown := [key for key in more if not hasattr(usual, key)]:
        raise TypeError(f"{family} has no {', '.join(unknown)}; the tokenizer is `spelling`")
    for key in ("n_layer", "num_layers", "num_hidden_layers"):
        if key in values:
            values[key] = layers
    if family == "gpt_neo":
        values["attention_types"] = [[["global"], layers]]
    if square:
        values[SQUARE.get(family, "intermediate_size")] = WIDTH
    if tied is not None:
        values["tie_word_embeddings"] = tied
    special = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1}
    values = {"vocab_size": VOCABULARY, **special, **values, **more}
    return AutoConfig.for_model(MODEL_TYPES.get(family, family), **values)


def model(family: str, *, dtype: str = "float32", seed: int = 0, **more: Any) -> Any:
    """A random model in evaluation mode; biases and norms are random too, so that none of them can hide a mistake."""
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch's own, where a family compiles what it imports
        torch.manual_seed(seed)
        made = AutoModelForCausalLM.from_config(config(family, **more), dtype=getattr(torch, dtype))
        with torch.no_grad():
            for parameter in made.parameters():
                parameter.add_(torch.randn(parameter.shape).to(parameter.dtype) * 0.08)
    return made.eval()


def handle(
    family: str = "gpt2",
    *,
    dtype: str = "float32",
    tied: bool | None = None,
    square: bool = False,
    layers: int = LAYERS,
    seed: int = 0,
    spelling: str = "bytes",
    **more: Any,
) -> ModelHandle:
    """A ModelHandle around a fresh tiny model, named `tiny-<family>`; `spelling` is the kind of its `tokenizer`."""
    made = model(family, dtype=dtype, seed=seed, tied=tied, square=square, layers=layers, **more)
    return ModelHandle.of(made, tokenizer(spelling), name=f"tiny-{family}")


def tokenizer(kind: str = "bytes") -> PreTrainedTokenizerFast:
    """A tokenizer of at most 384 entries, with eos and pad.

    `bytes`: byte-level BPE (GPT-2); `bytes_bos`: the same behind a BOS (Llama 3); `metaspace_bos`: a Unigram with `▁`
    for spaces and always a dummy prefix, behind a BOS (Llama 2); `words`: one entry per word, spaces lost.
    """
    special = {"eos_token": "<eos>", "pad_token": "<pad>"}
    if kind.endswith("_bos"):
        special["bos_token"] = "<bos>"
    if not kind.startswith("bytes"):
        special["unk_token"] = "<unk>"
    inner = Tokenizer.from_str(_trained(kind))
    return PreTrainedTokenizerFast(tokenizer_object=inner, clean_up_tokenization_spaces=False, **special)


@cache
def _trained(kind: str) -> str:
    special = ["<eos>", "<pad>", "<bos>", "<unk>"]
    options: dict[str, Any] = {"vocab_size": VOCABULARY, "special_tokens": special, "show_progress": False}
    if kind.startswith("bytes"):
        made = Tokenizer(models.BPE())
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = decoders.ByteLevel()
        trainer: Any = trainers.BpeTrainer(**options, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    elif kind.startswith("metaspace"):
        made = Tokenizer(models.Unigram())
        made.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
        trainer = trainers.UnigramTrainer(**options, unk_token="<unk>")
    elif kind == "words":
        made = Tokenizer(models.WordLevel(unk_token="<unk>"))
        made.pre_tokenizer = pre_tokenizers.Whitespace()
        trainer = trainers.WordLevelTrainer(**options)
    else:
        raise ValueError(f"no tokenizer of kind {kind!r}")
    made.train_from_iterator(SENTENCES, trainer)
    if kind.startswith("metaspace"):  # as converted from SentencePiece: " a" becomes "▁▁a"
        made.pre_tokenizer = None
        made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    if kind.endswith("_bos"):
        made.post_processor = processors.TemplateProcessing(
            single="<bos> $A", pair="<bos> $A $B", special_tokens=[("<bos>", made.token_to_id("<bos>"))]
        )
    return str(made.to_str())


def knowing(made: Any, words: int = 3 * VOCABULARY) -> Any:
    """The GPT-2 with so many tokens in all, of which it gives no probability to the new ones.

    A random model does no better than an even guess, and is refused as broken; this one is as random, but better than
    that: what leaves a LayerNorm (times g, plus b) lies in a plane, where 1/g points the same way for every input.
    """
    norm, known = made.transformer.ln_f, made.config.vocab_size
    with torch.no_grad():
        made.resize_token_embeddings(words, mean_resizing=False)
        away = 1 / norm.weight
        made.get_input_embeddings().weight[known:] = -20 * away / (away @ norm.bias)
    return made


def folder(place: Path, family: str = "gpt2", *, dtype: str = "float32", knows: bool = False, **more: Any) -> Path:
    """Write a model (`knows`: see `knowing`) and its tokenizer the way `from_pretrained` reads them; its folder."""
    made = model(family, dtype=dtype, **more)
    (knowing(made) if knows else made).save_pretrained(place)
    tokenizer().save_pretrained(place)
    return place


def golden(shared: Path) -> ModelHandle:
    """The tiny GPT-2 that the published implementations ran on; its tokenizer's class is one of transformers 5."""
    place = shared / "goldens" / "tiny-gpt2" / "model"
    spelled = PreTrainedTokenizerFast.from_pretrained(place)
    return ModelHandle.of(AutoModelForCausalLM.from_pretrained(place), spelled, name="tiny-gpt2")


def config_folder(place: Path, family: str = "gpt2", **more: Any) -> Path:
    """Write a config and a tokenizer only: what `random:<folder>` needs."""
    place.mkdir(parents=True, exist_ok=True)
    (place / "config.json").write_text(json.dumps(config(family, **more).to_dict(), default=str))
    tokenizer().save_pretrained(place)
    return place


def request(id: str = "case-0", **more: Any) -> EditRequest:
    """A request whose words the tokenizers know."""
    values: dict[str, Any] = {
        "prompt": "{} works as a", "subject": "Ashurn", "target_new": "teacher", "target_true": "farmer",
        "rephrasings": ["The work of Ashurn is that of a"],
        "neighbours": [{"prompt": "Mirel works as a", "answer": "baker"}],
    }  # fmt: skip
    return EditRequest.from_json({"id": id, **values, **more})


def low_rank(site: Site, *, rank: int = 1, size: float = 0.1, seed: int = 0) -> LowRank:
    """A random low-rank delta for a site."""
    generator = torch.Generator().manual_seed(seed)
    left = torch.randn(site.d_out, rank, generator=generator)
    return LowRank(site, left * size, torch.randn(rank, site.d_in, generator=generator))
