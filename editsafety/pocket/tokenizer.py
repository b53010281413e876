"""The tokenizer of the pocket models: byte-level BPE, trained on their own text."""

from collections.abc import Iterator, Sequence

from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

from editsafety.errors import ModelError

END = "<|endoftext|>"
PAD = "<|pad|>"
NAME_WEIGHT = 3_000  # how often a one-token name is shown on top of the text, so that its merges come early


def train_tokenizer(
    texts: Sequence[str], one_token_names: Sequence[str], vocabulary: int, positions: int
) -> PreTrainedTokenizerFast:
    """A tokenizer of at most `vocabulary` entries in which each given name is one token, with and without a space."""
    bpe = Tokenizer(BPE())
    bpe.pre_tokenizer = ByteLevel(add_prefix_space=False)
    bpe.decoder = ByteLevelDecoder()
    trainer = BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END, PAD],
        initial_alphabet=sorted(ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(_with_names(texts, one_token_names), trainer=trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token=END,
        eos_token=END,
        unk_token=END,
        pad_token=PAD,
        padding_side="right",
        model_max_length=positions,
        clean_up_tokenization_spaces=False,
    )
    _check(tokenizer, one_token_names, vocabulary)
    return tokenizer


def _with_names(texts: Sequence[str], names: Sequence[str]) -> Iterator[str]:
    yield from texts
    for name in names:
        for _ in range(NAME_WEIGHT):
            yield f"{name} {name}"


def _check(tokenizer: PreTrainedTokenizerFast, names: Sequence[str], vocabulary: int) -> None:
    split = [
        text
        for name in names
        for text in (name, f" {name}")
        if len(tokenizer(text, add_special_tokens=False).input_ids) != 1
    ]
    if split:
        raise ModelError(
            f"{len(split)} names that must be one token are split by the tokenizer, the first is {split[0]!r}. "
            f"Raise the vocabulary above {vocabulary} or show the names more often."
        )
