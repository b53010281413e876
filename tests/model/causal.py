"""Every causal language model that transformers knows, by what can be done with it here; and tiny ones of each kind.

The names are those of transformers' own list (`MODEL_FOR_CAUSAL_LM_MAPPING_NAMES`).
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

# A row of `editsafety/model/architectures.py`.
ROW = (
    "apertus", "arcee", "biogpt", "bloom", "codegen", "cohere", "cohere2", "ernie4_5", "exaone4", "falcon", "gemma",
    "gemma2", "gemma3", "gemma3_text", "gemma4_text", "glm", "glm4", "gpt-sw3", "gpt2", "gpt_bigcode", "gpt_neo",
    "gpt_neox", "gptj", "granite", "helium", "llama", "ministral3", "mistral", "mpt", "nanochat", "olmo", "olmo2",
    "olmo3", "opt", "phi", "phi3", "qwen2", "qwen3", "seed_oss", "smollm3", "stablelm", "starcoder2", "xglm",
)  # fmt: skip
# The parts of a block are found in the model, and prove themselves on it.
FOUND = (
    "apertus1p5_text", "bitnet", "cwm", "diffllama", "emu3", "exaone", "fuyu", "gpt_neox_japanese",
    "granite_swa", "hunyuan_v1_dense", "internlm3", "iquestcoder", "jais2", "megatron-bert", "ministral",
    "modernbert-decoder", "nemotron", "persimmon", "roberta-prelayernorm", "vaultgemma", "xlm-roberta-xl", "youtu",
)  # fmt: skip
EXPERTS = "mixture of experts"
OTHERWISE = "add something else"
UNLIKE = "not all alike"
NOT_ONE = "should give"
# Measured, checked, and edited by whatever finds its weights itself; the reason why the parts of a block are not told.
BLACK_BOX: dict[str, tuple[str, ...]] = {
    EXPERTS: (
        "afmoe", "aria_text", "axk1", "axk2", "bailing_hybrid", "beam", "cohere2_moe", "deepseek_v2", "deepseek_v3",
        "deepseek_v32", "deepseek_v4", "doge", "dots3_note", "dots3_note_text", "ernie4_5_moe", "exaone_moe",
        "flex_olmo", "flint", "glm4_moe", "glm4_moe_lite", "glm_moe_dsa", "gpt_oss", "granitemoe", "granitemoe_swa",
        "granitemoehybrid", "granitemoeshared", "hunyuan_v1_moe", "hy_v3", "hy_v4", "inkling2_loop_text",
        "inkling2_text", "inkling_text", "jamba", "jetmoe", "kimi_linear", "kolibri1", "laguna", "lara_mini",
        "lfm2_moe", "llama4", "llama4_text", "longcat_flash", "mellum", "mimo_v2_flash", "minimax", "minimax_m2",
        "minimax_m3_vl_text", "mixtral", "nemotron_h", "olmoe", "phimoe", "qwen2_moe", "qwen3_5_moe",
        "qwen3_5_moe_text", "qwen3_moe", "qwen3_next", "qwen4_exp", "qwen4_exp_text", "sarvam_mla", "sarvam_moe",
        "solar_open", "zaya",
    ),
    OTHERWISE: (
        "bert", "bert-generation", "big_bird", "camembert", "data2vec-text", "electra", "ernie", "hyperclovax",
        "minicpm3", "openai-gpt", "reformer", "rembert", "roberta", "roc_bert", "roformer", "xlm-roberta",
    ),
    UNLIKE: (
        "gemma4_unified", "gemma4_unified_text", "lfm2", "lfm3", "mllama", "olmo_hybrid", "qwen3_5", "qwen3_5_text",
        "recurrent_gemma",
    ),
    NOT_ONE: (
        "bamba", "bart", "bigbird_pegasus", "blenderbot", "blenderbot-small", "ctrl", "dory", "falcon_h1",
        "falcon_mamba", "mamba", "mamba2", "marian", "mbart", "moshi", "mvp", "pegasus", "plbart", "prophetnet",
        "rwkv", "trocr", "whisper", "xlm", "xlnet", "xlstm", "xmod",
    ),
    "no list of": ("hrm_text",),
    "not run once each": ("git", "got_ocr2"),
    "other tokens": ("cpmant",),
}  # fmt: skip
# Not run on token ids alone.
REFUSED = {
    "gemma4_assistant": "a drafter: it continues the hidden states of another model",
    "gemma4_unified_assistant": "a drafter: it continues the hidden states of another model",
    "musicgen": "it continues codes of sound, several at once",
    "musicgen_melody": "it continues codes of sound, several at once",
}
# Nobody has run one here: transformers makes none from its usual config, or none that is small.
UNTRIED = (
    "blt", "cohere_compass_text", "dbrx", "dots1", "gemma3n", "gemma3n_text", "gemma4",
    "moss_transcribe_diarize", "phi4_multimodal", "zamba", "zamba2",
)  # fmt: skip
# transformers 4 makes none that is small.
SINCE_5 = ("emu3", "mllama")
# Names that transformers 4 had and 5 took off its list.
GONE = ("code_llama", "mega", "open-llama", "qdqbert", "speech_to_text_2", "transfo-xl", "xlm-prophetnet")
STANDINGS: dict[str, tuple[str, ...]] = {
    "a row": ROW,
    "found in the model": FOUND,
    "black box": tuple(sorted(name for names in BLACK_BOX.values() for name in names)),
    "refused": tuple(REFUSED),
    "untried": UNTRIED,
}

# Whatever a family calls its sizes: those of a model of some ten thousand weights.
SIZES: dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "dim", "n_embed", "emb_dim", "word_embed_proj_dim"), 32),
    **dict.fromkeys(("embedding_size", "input_embedding_size", "output_embedding_size", "output_size"), 32),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size", "dff", "decoder_ffn_dim"), 64),
    **dict.fromkeys(("encoder_ffn_dim", "dim_ff", "d_ff", "d_inner", "intermediate_size_mlp", "block_ff_dim"), 64),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size", "expert_ffn_hidden_size"), 16),
    **dict.fromkeys(("shared_intermediate_size", "q_lora_rank", "kv_lora_rank", "sliding_window"), 16),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers"), 4),
    **dict.fromkeys(("decoder_layers", "encoder_layers", "num_decoder_layers", "num_encoder_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(("encoder_attention_heads", "num_decoder_attention_heads", "num_encoder_attention_heads"), 4),
    **dict.fromkeys(("attention_heads", "mamba_n_heads", "linear_num_value_heads", "mamba_num_heads"), 4),
    **dict.fromkeys(("n_routed_experts", "num_experts", "num_local_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("qk_rope_head_dim", "qk_nope_head_dim", "rotary_dim", "conv_kernel"), 4),
    **dict.fromkeys(("num_key_value_heads", "linear_num_key_heads", "num_experts_per_tok", "mamba_expand"), 2),
    **dict.fromkeys(("head_dim", "v_head_dim", "qk_head_dim", "state_size", "mamba_d_state"), 8),
    **dict.fromkeys(("linear_key_head_dim", "linear_value_head_dim"), 8),
    **dict.fromkeys(("mamba_d_head", "mamba_head_dim"), 16),
    **dict.fromkeys(("n_group", "topk_group", "first_k_dense_replace", "n_groups"), 1),
    **dict.fromkeys(("mamba_n_groups", "mamba_ngroups"), 1),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length"), 128),
    **dict.fromkeys(("max_target_positions", "max_source_positions"), 128),
    "vocab_size": 384, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1, "decoder_start_token_id": 0,
    "forced_eos_token_id": None, "depth": 2, "image_size": 32, "patch_size": 16, "num_mel_bins": 16,
}  # fmt: skip
WANTED = ("head_dim", "num_key_value_heads", "num_attention_heads", "hidden_size")  # also where a family says None
# Where those are not enough.
OVERRIDES: dict[str, dict[str, Any]] = {
    "youtu": {"head_dim": 4, "num_key_value_heads": 4},
    "mamba2": {"num_heads": 4, "head_dim": 16},
    "falcon_h1": {"mamba_d_ssm": 64, "mamba_n_heads": 4, "mamba_d_head": 16},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]]},
    "lfm2": {"layer_types": ["conv", "full_attention", "conv", "full_attention"]},
    "reformer": {
        "axial_pos_embds_dim": [16, 16], "axial_pos_shape": [8, 16], "feed_forward_size": 64,
        "attn_layers": ["local", "local"], "attention_head_size": 8,
    },
    "xmod": {"default_language": "en_XX"},
}  # fmt: skip


def build(kind: str) -> Any:
    """A tiny random model of that kind, in evaluation mode."""
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch's own, where a family compiles what it imports
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config(kind))
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.is_floating_point():
                    parameter.add_(torch.randn_like(parameter) * 0.05)
    return model.eval()


def config(kind: str) -> Any:
    """Its config, with small sizes in place of its own in every part of it."""
    usual = AutoConfig.for_model(kind).to_dict()
    sizes = _small(usual)
    if "is_decoder" in usual or kind in ("bert", "electra", "rembert", "xmod"):
        sizes["is_decoder"] = True
    more = OVERRIDES.get(kind, {})
    try:
        return AutoConfig.for_model(
            kind, **{**sizes, **({"layer_types": None} if usual.get("layer_types") else {}), **more}
        )
    except Exception:  # some make their layers' kinds up themselves, others want to be told
        return AutoConfig.for_model(kind, **{**sizes, **more})


def _small(usual: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in usual.items():
        if isinstance(value, dict) and "model_type" in value:
            found[name] = {"model_type": value["model_type"], **_small(value)}
        elif name in SIZES and (value is not None or name in WANTED):
            found[name] = SIZES[name]
    return found
