"""Chat: a prompt inside a tokenizer's chat template, as one message of a user that the model is about to answer.

A template is a program, and nothing of it is known beforehand. It is run on two messages; what it writes before and
behind both of them alike is what it writes around every one. The line break that most templates end in belongs to the
prompt: an answer begins right behind it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from editsafety.errors import ModelError, sentence_of

SLOT = "{}"
MARK, OTHER = "MESSAGE", "another one, of 7 words in all"
# Some templates write today's date, and a run must be the same tomorrow.
DAY = "26 Jul 2024"
SAME_DAY = f"{{% macro strftime_now(form) %}}{DAY}{{% endmacro %}}"


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """What stands around a message."""

    # Up to the message: what begins a text, a system prompt where the template has one, the user's turn.
    head: str
    # Behind it, up to where the answer begins.
    tail: str
    # Whether white space at the edges of a message is taken off.
    trims: bool = False

    @classmethod
    def of(cls, tokenizer: Any, name: str) -> ChatTemplate:
        """The chat template of a tokenizer; `name` is the model's, for errors.

        Models that think aloud are asked to answer at once. Raises ModelError where there is no template, or one that
        does more than write something around a message.
        """
        if not getattr(tokenizer, "chat_template", None):
            raise ModelError(
                f"the tokenizer of {name} has no chat template, so nothing can be asked through it. "
                "Leave --chat out, or take the chat model's own tokenizer."
            )
        written = _render(tokenizer, MARK, name)
        head, mark, tail = written.partition(MARK)
        if not mark or MARK in tail or SLOT in head + tail or _render(tokenizer, OTHER, name) != head + OTHER + tail:
            raise ModelError(
                f"the chat template of {name} does more than write something before and behind a message "
                f"(it makes {written[:120]!r} of {MARK!r}). Leave --chat out."
            )
        return cls(head, tail, trims=_render(tokenizer, f"  {MARK} ", name) == written)

    def __str__(self) -> str:
        return f"{self.head}{SLOT}{self.tail}"

    def around(self, prompt: str) -> str:
        """The prompt as a message; one that is inside the template already is left as it is."""
        if prompt.startswith(self.head) and prompt.endswith(self.tail):
            return prompt
        return f"{self.head}{prompt.strip() if self.trims else prompt}{self.tail}"

    def write_before(self, text: str, prompt: str) -> str | None:
        """The message of a prompt behind a text, in the user's turn; None for a prompt that is in no template."""
        return f"{self.head}{text}{prompt[len(self.head) :]}" if prompt.startswith(self.head) else None


def _render(tokenizer: Any, message: str, name: str) -> str:
    try:
        template = str(tokenizer.get_chat_template())
        written = tokenizer.apply_chat_template(
            [{"role": "user", "content": message}],
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=False,
            date_string=DAY,
            chat_template=SAME_DAY + template if "strftime_now" in template else template,
        )
    except Exception as error:  # a template is somebody else's program
        raise ModelError(
            f"the chat template of {name} takes no message of a user alone ({sentence_of(error)}). Leave --chat out."
        ) from error
    return str(written)
