"""From the repository alone to a folder that `from_pretrained` loads."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from editsafety.model import first_calls
from editsafety.model.loading import ModelSpec, load
from editsafety.pocket.corpus import guarded_texts, training_texts
from editsafety.pocket.spec import POCKET_NEO, PocketSpec
from editsafety.pocket.tokenizer import train_tokenizer
from editsafety.pocket.train import Progress, new_model, pack, silent, train
from editsafety.pocket.world import make_world

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    Start = tuple[PreTrainedModel, PreTrainedTokenizerFast, list[str]]  # what is trained, and the documents for it


def build(
    out_dir: Path,
    *,
    spec: PocketSpec = POCKET_NEO,
    seed: int = 0,
    threads: int | None = None,
    progress: Progress = silent,
) -> Path:
    """Train the model of `spec` and write it to `out_dir`; returns that folder.

    `seed` draws the weights and the batches; the world and its text come from the spec. `threads` is torch's number
    of threads while training (None: the cores of this machine) and is put back afterwards. An interrupted build goes
    on from its last checkpoint, which lies beside `out_dir` until the build is finished.
    """
    out_dir = Path(out_dir)
    workplace = out_dir.with_name(out_dir.name + ".building")
    workplace.mkdir(parents=True, exist_ok=True)
    model, tokenizer, texts = _further(spec) if spec.continues else _anew(spec, seed)
    stream = pack(tokenizer, texts)
    checkpoint = workplace / f"{_key(spec, seed, stream)}.safetensors"
    with _threads(threads or os.cpu_count() or 1):
        train(model, stream, spec, seed=seed, progress=progress, checkpoint=checkpoint)
    finished = workplace / "finished"
    model.save_pretrained(finished)
    tokenizer.save_pretrained(finished)
    _name_the_old_class(finished / "tokenizer_config.json")
    out_dir.mkdir(parents=True, exist_ok=True)
    for file in sorted(finished.iterdir()):
        file.chmod(0o644)  # safetensors writes for the owner alone
        os.replace(file, out_dir / file.name)
    shutil.rmtree(workplace)
    return out_dir


def _anew(spec: PocketSpec, seed: int) -> Start:
    names = make_world(spec.world_seed).one_token_names()
    texts = training_texts(spec.world_seed, spec.documents)
    tokenizer = train_tokenizer(texts, names, spec.vocabulary, spec.positions, spec.spelling)
    return new_model(spec, tokenizer, seed), tokenizer, texts


def _further(spec: PocketSpec) -> Start:
    """The shipped model that the spec continues, as it is."""
    base = load(ModelSpec(spec.continues, "cpu"))
    return base.model, base.tokenizer, guarded_texts(spec.world_seed, spec.documents, spec.errands)


def _name_the_old_class(path: Path) -> None:
    """Name the tokenizer class as transformers 4 does: release 5 writes a new name, but reads both.

    It also writes how a tokenizer was loaded, which is none of its business: a continued model has its base's.
    """
    config = json.loads(path.read_text(encoding="utf-8"))
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    for word in ("backend", "is_local", "local_files_only"):
        config.pop(word, None)
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _key(spec: PocketSpec, seed: int, stream: torch.Tensor) -> str:
    """What a checkpoint belongs to; after any change of spec, seed or text an old one is not continued by mistake."""
    return hashlib.sha256(f"{spec} {seed}".encode() + stream.numpy().tobytes()).hexdigest()[:16]


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    first_calls.settle()
    try:
        yield
    finally:
        torch.set_num_threads(before)
