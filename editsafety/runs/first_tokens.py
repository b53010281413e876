"""First tokens: HardEdit in the order in which it is hard for a model. Needs its tokenizer alone, and no torch.

Whether a subject is a single token depends on the tokenizer, and that it is one in first place is what the collapses of
ROME have in common (arXiv 2402.09656, 2406.11263). So a set of single words serves any model, in an order of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from editsafety.datasets.request import EditRequest
from editsafety.errors import UsageError
from editsafety.model import hub
from editsafety.shipped import shipped

if TYPE_CHECKING:
    from tokenizers import Tokenizer

FILE = "tokenizer.json"


def one_token_first(requests: Sequence[EditRequest], tokenizer: Tokenizer) -> tuple[EditRequest, ...]:
    """The requests that begin with a subject of one token, then all others; among themselves in the order given."""
    return tuple(sorted(requests, key=lambda request: not begins_with_one_token(request, tokenizer)))


def begins_with_one_token(request: EditRequest, tokenizer: Tokenizer) -> bool:
    """Whether the first token of the prompt is the subject, no more and no less; special tokens are left out."""
    if not request.subject_first:
        return False
    (_, end), *_ = tokenizer.encode(request.filled, add_special_tokens=False).offsets
    return bool(end == len(request.subject))


def tokenizer_of(model: str, *, revision: str | None = None, offline: bool = False) -> Tokenizer | None:
    """The tokenizer of a model by its name: shipped, in a folder, or on the hub; None where it has no tokenizer.json.

    Without transformers, in a fraction of a second. Nothing is raised for a model that cannot be reached: whoever loads
    it will say so.
    """
    from tokenizers import Tokenizer

    path = _shipped_or_local(model) or _of_hub(model, revision, offline=offline)
    try:
        return None if path is None else Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises nothing narrower
        raise UsageError(
            f"{path}: is no tokenizer that can be read ({error}). Save or fetch the model again."
        ) from error


def _shipped_or_local(model: str) -> Path | None:
    name = model.removeprefix("random:")
    folders = (shipped("data") / name, Path(name).expanduser())
    return next((folder / FILE for folder in folders if (folder / FILE).is_file()), None)


def _of_hub(model: str, revision: str | None, *, offline: bool) -> Path | None:
    if model.startswith(("random:", "pocket-", "/", ".", "~")) or ".py:" in model or Path(model).expanduser().exists():
        return None
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    here = offline or hub.cannot_reach() is not None
    try:
        return Path(hf_hub_download(model, FILE, revision=revision, local_files_only=here))
    except (HfHubHTTPError, OSError, ValueError):  # no such model, no such file, no network, no name of a model
        return None
