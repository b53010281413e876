"""The tokenizers of the pocket models: byte-pair encodings of two habits, trained on the models' own text."""

import json
from collections.abc import Iterator, Sequence

from tokenizers import Tokenizer
from tokenizers.decoders import ByteFallback, Fuse, Replace, Strip
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.decoders import Sequence as SequencedDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Digits, Metaspace, Punctuation
from tokenizers.pre_tokenizers import Sequence as Sequenced
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

from editsafety.errors import ModelError
from editsafety.pocket.spec import Spelling

END = "<|endoftext|>"
PAD = "<|pad|>"
BEGIN, CLOSE, UNKNOWN, FILL = "<s>", "</s>", "<unk>", "<pad>"
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
SPACE = "\u2581"
NAME_WEIGHT = 3_000  # how often a one-token name is shown on top of the text, so that its merges come early


def train_tokenizer(
    texts: Sequence[str], one_token_names: Sequence[str], vocabulary: int, positions: int, spelling: Spelling = "bytes"
) -> PreTrainedTokenizerFast:
    """A tokenizer of at most `vocabulary` entries in which each given name is one token, with and without a space.

    `bytes` is byte-level BPE as in GPT-2: a word in first place and the same word behind a space are two tokens; one
    special token ends texts. `words` has the habits of Llama 2: spaces become part of the word behind them, every text
    starts with one (so a first word is spelled as any other), digits stand alone, what is not in the vocabulary falls
    back to bytes, and texts have a token that begins and one that ends them (none is added unasked).
    """
    spelled = _bytes(vocabulary) if spelling == "bytes" else _words(vocabulary)
    inner, trainer, special = spelled
    inner.train_from_iterator(_with_names(texts, one_token_names), trainer=trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner if spelling == "bytes" else _plain_bytes(inner),
        **special,
        padding_side="right",
        model_max_length=positions,
        clean_up_tokenization_spaces=False,
    )
    _check(tokenizer, one_token_names, vocabulary)
    return tokenizer


Spelled = tuple[Tokenizer, BpeTrainer, dict[str, str]]


def _bytes(vocabulary: int) -> Spelled:
    bpe = Tokenizer(BPE())
    bpe.pre_tokenizer = ByteLevel(add_prefix_space=False)
    bpe.decoder = ByteLevelDecoder()
    trainer = BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END, PAD],
        initial_alphabet=sorted(ByteLevel.alphabet()),
        show_progress=False,
    )
    return bpe, trainer, {"bos_token": END, "eos_token": END, "unk_token": END, "pad_token": PAD}


def _words(vocabulary: int) -> Spelled:
    bpe = Tokenizer(BPE(unk_token=UNKNOWN, byte_fallback=True, fuse_unk=True))
    # Punctuation apart, or "farmer." would be a token of its own and "farmer" hardly ever seen.
    bpe.pre_tokenizer = Sequenced(
        [Metaspace(SPACE, prepend_scheme="first"), Punctuation("isolated"), Digits(individual_digits=True)]
    )
    bpe.decoder = SequencedDecoder([Replace(SPACE, " "), ByteFallback(), Fuse(), Strip(" ", 1, 0)])
    special = [UNKNOWN, BEGIN, CLOSE, FILL]
    trainer = BpeTrainer(vocab_size=vocabulary, special_tokens=[*special, *BYTES], show_progress=False)
    return bpe, trainer, {"bos_token": BEGIN, "eos_token": CLOSE, "unk_token": UNKNOWN, "pad_token": FILL}


def _plain_bytes(inner: Tokenizer) -> Tokenizer:
    """The byte tokens as ordinary entries: the trainer only knows how to reserve them as special ones."""
    body = json.loads(inner.to_str())
    body["added_tokens"] = [token for token in body["added_tokens"] if token["content"] not in BYTES]
    return Tokenizer.from_str(json.dumps(body))


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
