"""Preview: what a pool of requests looks like to a model's tokenizer alone. No weights are read.

A one-token subject in first place is the pattern behind the collapses of ROME on GPT-style models (arXiv 2406.11263):
how many there are says what a screening of the pool can find, in seconds instead of hours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from editsafety.datasets.request import SLOT, EditRequest
from editsafety.errors import ModelError
from editsafety.model import hub
from editsafety.model.handle import ModelHandle
from editsafety.model.loading import ModelSpec, model_folder, pocket_models

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Preview:
    """Counts over a pool."""

    # All of them.
    rows: int
    # Prompts that begin with the subject.
    subject_first: int
    # Of these, the subject is a single word.
    one_word_first: int
    # Of these, the subject is a single token.
    one_token_first: int

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, requests: Sequence[EditRequest]) -> Preview:
        """Count; one tokenisation for each request that begins with its subject."""
        first = [request for request in requests if request.subject_first]
        words = sum(len(request.subject.split()) == 1 for request in first)
        return cls(len(requests), len(first), words, sum(one_token_first(tokenizer, request) for request in first))


def one_token_first(tokenizer: PreTrainedTokenizerBase, request: EditRequest) -> bool:
    """Whether the subject's last token is the first of the prompt, special tokens (a BOS) apart.

    The same as the note `first_token` of ROME's edits. False for a subject whose end the tokenizer joins with the text
    behind it.
    """
    before, after = request.prompt.split(SLOT)
    head = list(tokenizer(before + request.subject)["input_ids"])
    whole = list(tokenizer(before + request.subject + after)["input_ids"])
    special = set(tokenizer.all_special_ids)
    while head and head[-1] in special and head[-1] != whole[len(head) - 1]:
        head.pop()  # an EOS that the tokenizer puts behind every text
    last = len(head) - 1
    return last >= 0 and whole[: last + 1] == head and all(token in special for token in head[:last])


def tokenizer_of(spec: ModelSpec) -> PreTrainedTokenizerBase:
    """The tokenizer of a model, without the model (a function in a file makes both). Raises ModelError."""
    from transformers import AutoTokenizer

    if ".py:" in spec.name:
        return ModelHandle.load(spec).tokenizer
    options: dict[str, Any] = {"trust_remote_code": spec.trust_remote_code}
    name = spec.name.removeprefix("random:")
    folder = model_folder(spec.name) or Path(name).expanduser()
    if spec.name.startswith("random:") and not (folder / "tokenizer_config.json").is_file():
        borrowed = pocket_models()
        if not borrowed:
            raise ModelError(f"{spec.name}: has no tokenizer, and there is no pocket model here to borrow one from.")
        folder = model_folder(borrowed[0]) or folder
    local = folder.is_dir()
    if not local:
        here = spec.offline or hub.cannot_reach() is not None
        options |= {"revision": spec.revision or "main", "local_files_only": here}
    try:
        return AutoTokenizer.from_pretrained(str(folder) if local else name, **options)
    except (OSError, ValueError, ImportError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ModelError(f"cannot load the tokenizer of {spec.name!r}: {reason}") from error
