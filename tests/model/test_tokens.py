"""Tokens: special ones once, targets right behind their prompts, and every token with its characters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from editsafety.editing.subject import locate_text
from editsafety.errors import EditorError
from editsafety.model import tokens
from editsafety.model.handle import ModelHandle
from tests import tiny

CHAT = ("<|start|>", "<|end|>")
ASKED = "<|start|>user\nWhere does Toren live?<|end|>\n<|start|>assistant\n"


def fast(inner: Tokenizer, **special: str) -> PreTrainedTokenizerFast:
    names = {"eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>", **special}
    made = PreTrainedTokenizerFast(tokenizer_object=inner, clean_up_tokenization_spaces=False, **names)
    made.add_special_tokens({"additional_special_tokens": list(CHAT)})
    return made


def trained(kind: str) -> Tokenizer:
    return Tokenizer.from_str(tiny.tokenizer(kind).backend_tokenizer.to_str())


def characters(words: str = "") -> Tokenizer:
    """One token for each character, and those words."""
    letters = sorted(set("".join(tiny.SENTENCES)) | set("abcdefghijklmnopqrstuvwxyz ▁\nßﬁéE’?!€") | set(words))
    names = ["<eos>", "<pad>", "<bos>", "<unk>", *letters]
    return Tokenizer(models.BPE({name: i for i, name in enumerate(names)}, [], unk_token="<unk>"))


def lower_case() -> Tokenizer:
    """As BERT writes: no accents, no capitals."""
    made = characters()
    made.normalizer = normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase()])
    made.decoder = decoders.Fuse()
    return made


def compatible() -> Tokenizer:
    """NFKC: one ligature becomes two letters."""
    made = characters()
    made.normalizer = normalizers.NFKC()
    made.decoder = decoders.Fuse()
    return made


def metaspace(scheme: str) -> Tokenizer:
    made = characters()
    made.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme=scheme)
    made.decoder = decoders.Metaspace(replacement="▁", prepend_scheme=scheme)
    return made


def prefixed_bytes() -> Tokenizer:
    """Byte-level BPE that writes a space before every text (RoBERTa, OPT with that setting)."""
    made = trained("bytes")
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    return made


def closed(kind: str = "bytes_bos") -> Tokenizer:
    """A BOS in front and an EOS behind every text."""
    made = trained(kind)
    ends = [(name, made.token_to_id(name)) for name in ("<bos>", "<eos>")]
    made.post_processor = processors.TemplateProcessing(single="<bos> $A <eos>", special_tokens=ends)
    return made


KINDS: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "bytes": lambda: fast(trained("bytes")),
    "bytes behind a BOS": lambda: fast(trained("bytes_bos"), bos_token="<bos>"),
    "bytes with a space before": lambda: fast(prefixed_bytes()),
    "sentencepiece": lambda: fast(trained("metaspace_bos"), bos_token="<bos>"),
    "metaspace, always": lambda: fast(metaspace("always")),
    "metaspace, first": lambda: fast(metaspace("first")),
    "metaspace, never": lambda: fast(metaspace("never")),
    "closed by an EOS": lambda: fast(closed(), bos_token="<bos>"),
    "lower case": lambda: fast(lower_case()),
    "compatible letters": lambda: fast(compatible()),
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def handle(kind: str) -> ModelHandle:
    return ModelHandle.of(tiny.model("gpt2"), KINDS[kind](), name="tiny-gpt2")


def written(made: PreTrainedTokenizerFast, ids: list[int]) -> str:
    return str(made.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))


# ------------------------------------------------------------------------------------------------- the subject's token


@every_kind
@pytest.mark.parametrize(
    ("prompt", "subject"),
    [
        ("{} works as a", "Toren"),
        ("The mother tongue of {} is", "Mirel of Kelmar"),
        (ASKED.replace("Toren", "{}"), "Toren"),
        ("<eos>Where does {} live?", "Toren"),
        ("caﬁ ßé ﬁﬁ éÉ {} lives", "Toren"),  # lengths change before the subject ...
        ("The name {} is", "éﬁ"),  # ... and in it
        ("Where is\n{}\n", "Toren"),
        ("Toren and {}, Toren", "Toren"),
    ],
)
def test_the_located_token_is_the_last_of_the_subject_and_of_nothing_else(kind: str, prompt: str, subject: str) -> None:
    """By the alignment of the tokenizers library itself: the token of the subject's last character."""
    made = KINDS[kind]()
    found = locate_text(handle(kind), prompt, subject)
    text = prompt.replace("{}", subject, 1)
    last = text.index(prompt.partition("{}")[0] + subject) + len(prompt.partition("{}")[0] + subject) - 1
    inner = made.backend_tokenizer.encode(text, add_special_tokens=False)
    expected = [at for at, (first, behind) in enumerate(inner.offsets) if first <= last < behind][-1]
    assert list(found.ids[-len(inner.ids) :]) == inner.ids
    assert found.subject - (len(found.ids) - len(inner.ids)) == expected


@every_kind
@pytest.mark.parametrize("prompt", ["The name {}en is", "The name Mi{} is", "{}wheat"])
def test_a_subject_that_shares_its_last_token_with_another_word_is_refused_or_has_its_own(
    kind: str, prompt: str
) -> None:
    """Whatever is located ends at the subject's last letter: else it would be an edit at another word."""
    made = handle(kind)
    spans = made.spell_out(prompt.replace("{}", "Tor")).spans
    end = len(prompt.partition("{}")[0]) + 3
    assert spans is not None
    own = [at for at, (first, behind) in enumerate(spans) if behind == end and end - first <= 4]
    if own:
        assert locate_text(made, prompt, "Tor").subject == own[-1]
    else:
        with pytest.raises(EditorError, match="cannot be located"):
            locate_text(made, prompt, "Tor")


def test_a_token_of_two_words_is_nobodys() -> None:
    made = Tokenizer(models.WordLevel({"<unk>": 0, "Toren's": 1, "flute": 2, "Xylophone": 3}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    one = ModelHandle.of(
        tiny.model("gpt2"), PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>"), name="x"
    )
    with pytest.raises(EditorError, match="last token of subject 'Toren' cannot be located"):
        locate_text(one, "{}'s flute", "Toren")
    with pytest.raises(EditorError, match="last token of subject 'X' cannot be located"):
        locate_text(one, "{}ylophone", "X")  # one token, in first place: nothing before it would tell


class Silent:
    """A tokenizer written in Python: it knows no characters (transformers 4 has them, transformers 5 does not)."""

    is_fast = False

    def __init__(self, made: Any) -> None:
        self.made = made

    def __call__(self, text: str, **more: Any) -> Any:
        assert "return_offsets_mapping" not in more, "a slow tokenizer raises NotImplementedError"
        return self.made(text, **more)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.made, name)


@every_kind
def test_without_characters_the_text_up_to_the_subject_tells_the_same(kind: str) -> None:
    quiet: Any = Silent(KINDS[kind]())
    slow, one = ModelHandle.of(tiny.model("gpt2"), quiet, name="tiny-gpt2"), handle(kind)
    for prompt in ("The mother tongue of {} is", ASKED.replace("Toren", "{}")):
        assert locate_text(slow, prompt, "Toren") == locate_text(one, prompt, "Toren")
    with pytest.raises(EditorError, match="cannot be located"):
        locate_text(ModelHandle.of(tiny.model("gpt2"), Silent(KINDS["bytes"]()), name="x"), "{}en lives", "Tor")  # type: ignore[arg-type]


# ---------------------------------------------------------------------------------------------------- special tokens


def test_a_bos_is_there_once_whoever_gave_it() -> None:
    for kind in ("bytes behind a BOS", "sentencepiece", "closed by an EOS"):
        made = KINDS[kind]()
        bos = made.bos_token_id
        for text in ("Toren lives", "<bos>Toren lives", "<bos>", ""):
            ids = tokens.spell(made, text)
            assert ids.count(bos) == 1, (kind, text)
            assert ids[0] == bos
        assert tokens.spell(made, "<bos>Toren")[1:] == tokens.spell(made, "<bos>Toren", special=False)[1:]
    plain = KINDS["bytes"]()
    assert tokens.spell(plain, "<bos>Toren").count(plain.convert_tokens_to_ids("<bos>")) == 1
    assert tokens.spell(plain, "Toren") == tokens.spell(plain, "Toren", special=False)


def test_a_rendered_chat_template_has_one_bos_behind_a_tokenizer_that_adds_one() -> None:
    made = KINDS["bytes behind a BOS"]()
    made.chat_template = (
        "{{ bos_token }}{% for one in messages %}<|start|>{{ one.role }}\n{{ one.content }}<|end|>\n{% endfor %}"
        "<|start|>assistant\n"
    )
    text = made.apply_chat_template([{"role": "user", "content": "Where does Toren live?"}], tokenize=False)
    ids = tokens.spell(made, text)
    assert ids.count(made.bos_token_id) == 1
    assert written(made, ids) == text


def test_a_front_of_several_special_tokens_is_there_once() -> None:
    inner = trained("bytes_bos")
    pair = [(name, inner.token_to_id(name)) for name in ("<pad>", "<bos>")]
    inner.post_processor = processors.TemplateProcessing(single="<pad> <bos> $A", special_tokens=pair)
    made = fast(inner, bos_token="<bos>")
    assert tokens.spell(made, "<pad><bos>Toren") == tokens.spell(made, "Toren")


def test_what_a_tokenizer_puts_behind_a_text_is_left_out() -> None:
    made = KINDS["closed by an EOS"]()
    assert made("Toren lives")["input_ids"][-1] == made.eos_token_id
    assert tokens.spell(made, "Toren lives") == made("Toren lives")["input_ids"][:-1]
    assert tokens.spell(made, "") == [made.bos_token_id]


def test_a_text_written_before_a_prompt_stands_behind_its_bos() -> None:
    made = KINDS["bytes behind a BOS"]()
    assert tokens.write_before(made, "Rain falls. ", "<bos>Toren lives") == "<bos>Rain falls. Toren lives"
    assert tokens.write_before(made, "Rain falls. ", "Toren lives") == "Rain falls. Toren lives"
    found = locate_text(handle("bytes behind a BOS"), "<bos>Where does {} live", "Toren", "Rain falls. {}")
    assert list(found.ids) == made("Rain falls. Where does Toren live")["input_ids"]


# ------------------------------------------------------------------------------------------------ what follows a prompt


@every_kind
@pytest.mark.parametrize("prompt", [ASKED, "A:\n\n", "Toren:\t", "<|start|>", "Toren lives in<|end|>", "Toren is a "])
def test_a_target_follows_white_space_and_special_tokens_directly(kind: str, prompt: str) -> None:
    made = KINDS[kind]()
    head, ids = tokens.spell(made, prompt), tokens.follow(made, " teacher ", prompt)
    assert tokens.gap(made, prompt) == ""
    if kind != "metaspace, first":  # its decoder writes a space that is no token behind a special token
        assert written(made, [*head, *ids])[len(written(made, head)) :] == "teacher"
    assert not set(ids) & set(made.all_special_ids)


@every_kind
@pytest.mark.parametrize("prompt", ["Toren works as a", "A:", "[/INST]", "The answer is <b>"])
def test_a_target_follows_anything_else_behind_one_space(kind: str, prompt: str) -> None:
    made = KINDS[kind]()
    head, ids = tokens.spell(made, prompt), tokens.follow(made, " teacher\n", prompt)
    assert tokens.gap(made, prompt) == " "
    assert written(made, [*head, *ids])[len(written(made, head)) :] == " teacher"


def test_a_special_token_that_only_the_vocabulary_knows_ends_a_prompt_too() -> None:
    made = fast(trained("bytes"))
    made.add_tokens(["<|answer|>"], special_tokens=True)
    made.add_tokens(["Ostrin"])
    assert tokens.gap(made, "Where?<|answer|>") == ""
    assert tokens.gap(made, "Toren lives in Ostrin") == " "  # a word of the vocabulary is a word


def test_a_tokenizer_is_known_by_how_it_spells_and_not_by_how_it_was_called() -> None:
    made = tiny.tokenizer("bytes")
    known = tokens.identity(made)
    made(["A sample.", "Another sample, a longer one."], padding=True, truncation=True, max_length=5)
    assert tokens.identity(made) == known == tokens.identity(tiny.tokenizer("bytes"))
    others = {tokens.identity(tiny.tokenizer(kind)) for kind in ("bytes_bos", "metaspace_bos", "words")}
    assert len({known, *others}) == 4
    made.add_special_tokens({"additional_special_tokens": ["<turn>"]})
    assert tokens.identity(made) != known
