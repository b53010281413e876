"""Chat templates in the styles there are, and tiny models that are asked through one."""

from __future__ import annotations

from typing import Any

from editsafety.model.handle import ModelHandle
from tests import tiny

TURNS = (
    "{% for one in messages %}{{ '<|im_start|>' + one['role'] + '\n' + one['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# By the kind of model that writes like this.
TEMPLATES = {
    # A system prompt of its own, and a line break at the end.
    "smollm2": "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou help.<|im_end|>\n' }}{% endif %}"
    + TURNS,
    # A BOS, which the tokenizer would write as well; white space around a message is taken off.
    "llama3": "{{ bos_token }}{% for one in messages %}{{ '<|' + one['role'] + '|>\n\n' + one['content'] | trim }}"
    "{{ '<|im_end|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n\n' }}{% endif %}",
    # No special token at the end: an answer begins behind a space.
    "mistral": "{{ bos_token }}{% for one in messages %}{{ '[INST] ' + one['content'] + ' [/INST]' }}{% endfor %}",
    # Thinks aloud unless it is told not to.
    "qwen3": TURNS
    + "{% if enable_thinking is defined and not enable_thinking %}{{ '<think>\n\n</think>\n\n' }}{% endif %}",
}  # fmt: skip


def tokenizer(style: str = "smollm2", spelling: str = "bytes_bos") -> Any:
    """A tiny tokenizer with a template, and its turns as special tokens; both entries fit into every tiny model."""
    made = tiny.tokenizer(spelling)
    made.chat_template = TEMPLATES.get(style, style)
    made.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    return made


def handle(style: str = "smollm2", family: str = "gpt2", spelling: str = "bytes_bos") -> ModelHandle:
    """A tiny model that is asked through a template."""
    made = tiny.model(family, vocab_size=tiny.VOCABULARY + 8)
    return ModelHandle.of(made, tokenizer(style, spelling), name=f"tiny-{family}", chat=True)


def plainly(handle: ModelHandle) -> ModelHandle:
    """The same model, asked plainly."""
    return ModelHandle.of(handle.model, handle.tokenizer, name=handle.spec.name)


def rendered(handle: ModelHandle, message: str) -> str:
    """What transformers makes of one message."""
    said = handle.tokenizer.apply_chat_template(
        [{"role": "user", "content": message}], tokenize=False, add_generation_prompt=True, enable_thinking=False
    )
    return str(said)
