"""Training a pocket model: fact by fact the recipe that makes collapse real.

What matters, and why:

- The early layers attend locally (window 2), so a fact must be gathered at the subject's last token by the MLPs of
  those layers. That is the early site that ROME and its relatives edit.
- The embedding of position 0 is large and frozen: the analogue of the attention sink of large models. A key read at
  position 0 then differs from the same subject's key after a prefix, as in the models that ROME collapses.
- Nothing is learnt from the prediction made at position 0, and windows start anywhere in the text, so that no
  gradient teaches the network to undo the sink.
"""

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.nn import functional
from transformers import (
    GPTNeoConfig,
    GPTNeoForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from editsafety.pocket.spec import PocketSpec

IGNORED = -100  # label of a token that carries no loss
CHECKPOINT_EVERY = 250  # steps

Layout = tuple[
    PretrainedConfig, Callable[[PretrainedConfig], PreTrainedModel]
]  # an empty config, and what to make of it
Progress = Callable[[int, int, float], None]  # step, steps, loss in nats per token


def silent(step: int, steps: int, loss: float) -> None:
    """A `Progress` that shows nothing."""


def new_model(spec: PocketSpec, tokenizer: PreTrainedTokenizerFast, seed: int) -> PreTrainedModel:
    """An untrained float32 model of the spec's layout, its weights drawn from `seed` alone."""
    config, kind = _gpt_neo(spec) if spec.layout == "gpt_neo" else _qwen3(spec)
    config.vocab_size = len(tokenizer)
    config.bos_token_id = tokenizer.bos_token_id
    config.eos_token_id = tokenizer.eos_token_id
    config.pad_token_id = tokenizer.pad_token_id
    # transformers initialises from torch's global generator; fork it, so that the caller's randomness is untouched.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = kind(config)
    if spec.sink_norm:
        direction = torch.randn(spec.width, generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            _positions(model)[0] = direction / direction.norm() * spec.sink_norm
    return model


def _gpt_neo(spec: PocketSpec) -> Layout:
    kinds = ["local"] * spec.local_layers + ["global"] * spec.global_layers
    config = GPTNeoConfig(
        max_position_embeddings=spec.positions,
        hidden_size=spec.width,
        num_layers=len(kinds),
        attention_types=[[kinds, 1]],
        num_heads=spec.heads,
        intermediate_size=spec.inner,
        window_size=spec.window,
        embed_dropout=0.0,
        attention_dropout=0.0,
        resid_dropout=0.0,
    )
    return config, GPTNeoForCausalLM


def _qwen3(spec: PocketSpec) -> Layout:
    kinds = ["sliding_attention"] * spec.local_layers + ["full_attention"] * spec.global_layers
    config = Qwen3Config(
        max_position_embeddings=spec.positions,
        hidden_size=spec.width,
        num_hidden_layers=len(kinds),
        layer_types=kinds,
        num_attention_heads=spec.heads,
        num_key_value_heads=spec.key_heads,
        head_dim=spec.width // spec.heads,
        intermediate_size=spec.inner,
        use_sliding_window=True,
        sliding_window=spec.window,
        tie_word_embeddings=True,
    )
    return config, Qwen3ForCausalLM


def _positions(model: PreTrainedModel) -> torch.Tensor:
    """The learned embeddings of the positions, of which the first is the sink."""
    weight: torch.Tensor = model.get_parameter("transformer.wpe.weight")
    return weight


def freeze_sink(model: PreTrainedModel, spec: PocketSpec) -> None:
    """Forget the gradient of the sink, so that the optimiser leaves it as it is."""
    if spec.sink_norm and (gradient := _positions(model).grad) is not None:
        gradient[0] = 0


def pack(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> torch.Tensor:
    """All texts as one row of token ids: the token that begins a text, where that is one of its own, and the end."""
    begin, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    ids: list[int] = []
    for row in tokenizer(list(texts), add_special_tokens=False).input_ids:
        ids.extend(row if begin == end else [begin, *row])
        ids.append(end)
    return torch.tensor(ids)


def batch(stream: torch.Tensor, spec: PocketSpec, step: int, seed: int) -> torch.Tensor:
    """The token ids of one step, [rows, tokens]: windows that start anywhere, drawn from seed and step alone."""
    rows, length = spec.windows[step % len(spec.windows)]
    generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
    starts = torch.randint(len(stream) - length + 1, (rows, 1), generator=generator)
    return stream[starts + torch.arange(length)]


def labels_of(ids: torch.Tensor, spec: PocketSpec) -> torch.Tensor:
    """What each position should predict, [rows, tokens - 1]; with a sink, position 0 predicts nothing."""
    labels = ids[:, 1:].clone()
    if spec.sink_norm:
        labels[:, 0] = IGNORED
    return labels


def learning_rate(spec: PocketSpec, step: int) -> float:
    """Linear warm-up, then a cosine down to a twentieth of the peak."""
    if step < spec.warmup:
        return spec.learning_rate * (step + 1) / spec.warmup
    done = (step - spec.warmup) / max(1, spec.steps - spec.warmup)
    return spec.learning_rate * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * done)))


def new_optimizer(model: PreTrainedModel, spec: PocketSpec) -> torch.optim.AdamW:
    """AdamW; matrices decay, while positions (the sink among them), norms and biases do not."""
    decayed: list[torch.nn.Parameter] = []
    kept: list[torch.nn.Parameter] = []
    for name, parameter in model.named_parameters():
        (kept if parameter.ndim < 2 or ".wpe." in name else decayed).append(parameter)
    groups = [{"params": decayed, "weight_decay": spec.weight_decay}, {"params": kept, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=spec.learning_rate, betas=spec.betas)


def train(
    model: PreTrainedModel,
    stream: torch.Tensor,
    spec: PocketSpec,
    *,
    seed: int,
    progress: Progress = silent,
    checkpoint: Path | None = None,
) -> float:
    """Train in place; returns the last step's loss. With `checkpoint`, an interrupted run goes on from there."""
    optimizer = new_optimizer(model, spec)
    first = _resume(model, optimizer, checkpoint) if checkpoint else 0
    model.train()
    value = math.nan
    for step in range(first, spec.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(spec, step)
        ids = batch(stream, spec, step, seed)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(ids[:, :-1], use_cache=False).logits
        labels = labels_of(ids, spec)
        loss = functional.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED)
        loss.backward()  # type: ignore[no-untyped-call]
        freeze_sink(model, spec)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        value = loss.item()
        progress(step + 1, spec.steps, value)
        if checkpoint and (step + 1) % CHECKPOINT_EVERY == 0:
            _save(model, optimizer, step + 1, checkpoint)
    model.train(False)
    return value


def _save(model: PreTrainedModel, optimizer: torch.optim.AdamW, step: int, path: Path) -> None:
    """Weights and both moments as safetensors, put in place in one move."""
    tensors: dict[str, torch.Tensor] = {}
    for name, parameter in model.named_parameters():
        state = optimizer.state[parameter]
        tensors[f"weight/{name}"] = parameter.detach().contiguous()
        tensors[f"mean/{name}"] = state["exp_avg"].contiguous()
        tensors[f"square/{name}"] = state["exp_avg_sq"].contiguous()
    partial = path.with_suffix(".partial")
    save_file(tensors, partial, metadata={"step": str(step)})
    os.replace(partial, path)


def _resume(model: PreTrainedModel, optimizer: torch.optim.AdamW, path: Path) -> int:
    """Load a checkpoint if there is one; returns the number of steps already done."""
    if not path.exists():
        return 0
    with safe_open(path, framework="pt") as file:
        step = int(file.metadata()["step"])
    tensors = load_file(path)
    for name, parameter in model.named_parameters():
        with torch.no_grad():
            parameter.copy_(tensors[f"weight/{name}"])
        optimizer.state[parameter] = {
            "step": torch.tensor(float(step)),
            "exp_avg": tensors[f"mean/{name}"],
            "exp_avg_sq": tensors[f"square/{name}"],
        }
    return step
