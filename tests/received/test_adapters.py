"""Adapters of every kind that peft can make: judged as peft serves them, or refused with the reason."""

from __future__ import annotations

import inspect
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from editsafety import received
from editsafety.edits.seal import Seal
from editsafety.edits.session import EditSession
from editsafety.errors import ModelError
from editsafety.judging.policy import Policy
from editsafety.judging.verdict import Verdict
from editsafety.model.handle import ModelHandle
from editsafety.received import tying
from editsafety.received.receiving import Handed, receive
from tests import tiny
from tests.builders import default_without

peft = pytest.importorskip("peft")

TEXTS = tiny.SENTENCES
LINEAR = ["q_proj", "down_proj"]
WORDS = sorted(set(tiny.tokenizer()(TEXTS[0])["input_ids"]))[:4]


def make(place: Path, config: Any, *, family: str = "llama", tied: bool | None = None, size: float = 0.1) -> str:
    """An adapter with random numbers, as peft saves it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = peft.get_peft_model(tiny.model(family, tied=tied), config)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(size * torch.randn(parameter.shape, generator=generator))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.save_pretrained(place)
    return str(place)


@torch.no_grad()
def serve(place: str, *, family: str = "llama", tied: bool | None = None) -> list[torch.Tensor]:
    """Logits of the model with the adapter beside it, as peft loads it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = peft.PeftModel.from_pretrained(tiny.model(family, tied=tied), place).eval()
    spelled = tiny.tokenizer()
    return [model(input_ids=torch.tensor([spelled(text)["input_ids"]])).logits[0] for text in TEXTS]


@torch.no_grad()
def apply(handle: ModelHandle, given: Handed) -> list[torch.Tensor]:
    """Logits of the unedited model with the edit that was made of the adapter."""
    with given.taking(handle), EditSession(handle) as session:
        session.apply(given.edit)
        return [handle.logits(handle.batch([handle.ids(text)]))[0] for text in TEXTS]


def lora(**more: Any) -> Any:
    return peft.LoraConfig(task_type="CAUSAL_LM", r=2, lora_alpha=6, **{"target_modules": LINEAR, **more})


MERGED: dict[str, Any] = {
    "lora": lambda: lora(),
    "rslora": lambda: lora(use_rslora=True),
    "dora": lambda: lora(use_dora=True),
    "lora with its biases": lambda: lora(bias="lora_only"),
    "lora of ranks by layer": lambda: lora(rank_pattern={"q_proj": 3}, alpha_pattern={"down_proj": 11}),
    "lora with a norm saved whole": lambda: lora(modules_to_save=["norm"]),
    "lora with tokens": lambda: lora(trainable_token_indices=WORDS),
    "tokens": lambda: peft.TrainableTokensConfig(task_type="CAUSAL_LM", token_indices=WORDS),
    "ia3": lambda: peft.IA3Config(task_type="CAUSAL_LM", target_modules=LINEAR, feedforward_modules=["down_proj"]),
    "loha": lambda: peft.LoHaConfig(task_type="CAUSAL_LM", r=2, target_modules=LINEAR),
    "lokr": lambda: peft.LoKrConfig(task_type="CAUSAL_LM", r=2, target_modules=LINEAR),
    "oft": lambda: peft.OFTConfig(task_type="CAUSAL_LM", r=0, oft_block_size=4, target_modules=["q_proj"]),
    "vera": lambda: peft.VeraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj"]),
    "norms": lambda: peft.LNTuningConfig(task_type="CAUSAL_LM", target_modules=["input_layernorm"]),
}
ENDS: dict[str, Any] = {
    "the embedding": lambda: lora(target_modules=["embed_tokens"]),
    "the head": lambda: lora(target_modules=["lm_head"]),
    "both ends": lambda: lora(target_modules=["embed_tokens", "lm_head"]),
    "the head, saved whole": lambda: lora(modules_to_save=["lm_head"]),
    "the embedding, saved whole": lambda: lora(modules_to_save=["embed_tokens"]),
    "both ends, saved whole": lambda: lora(modules_to_save=["embed_tokens", "lm_head"]),
}


@pytest.mark.parametrize("kind", MERGED)
@pytest.mark.parametrize("tied", [True, False])
def test_an_adapter_becomes_weights_that_compute_what_peft_serves(kind: str, tied: bool, tmp_path: Path) -> None:
    place, handle = make(tmp_path / "adapter", MERGED[kind](), tied=tied), tiny.handle("llama", tied=tied)
    given = receive(handle, place, TEXTS)
    assert given.kind == "adapter"
    plain = [handle.logits(handle.batch([handle.ids(text)]))[0].detach() for text in TEXTS]
    expected = serve(place, tied=tied)
    assert any(not torch.allclose(one, two, atol=1e-2) for one, two in zip(plain, expected, strict=True))
    for now, then in zip(apply(handle, given), expected, strict=True):
        torch.testing.assert_close(now, then, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", ENDS)
@pytest.mark.parametrize(("family", "tied"), [("llama", True), ("llama", False), ("qwen2", True)])
def test_an_adapter_on_one_end_of_a_model_leaves_the_other_as_it_is(
    kind: str, family: str, tied: bool, tmp_path: Path
) -> None:
    """Merged into a matrix that is both ends, it would change the other as well."""
    place, handle = make(tmp_path / "adapter", ENDS[kind](), family=family, tied=tied), tiny.handle(family, tied=tied)
    seal, given = Seal.of(handle), receive(handle, place, TEXTS)
    assert given.untied is (tied)
    for now, then in zip(apply(handle, given), serve(place, family=family, tied=tied), strict=True):
        torch.testing.assert_close(now, then, atol=2e-4, rtol=1e-4)
    assert seal.changed(Seal.of(handle)) == ()
    assert tying.is_tied(handle) is tied


def test_ends_that_are_tied_by_the_adapter_too_stay_one_matrix(tmp_path: Path) -> None:
    if "ensure_weight_tying" not in inspect.signature(peft.LoraConfig).parameters:
        pytest.skip("this peft cannot tie adapters")
    config = lora(modules_to_save=["embed_tokens"], ensure_weight_tying=True)
    place, handle = make(tmp_path / "adapter", config, tied=True), tiny.handle("llama", tied=True)
    given = receive(handle, place, TEXTS)
    assert not given.untied
    for now, then in zip(apply(handle, given), serve(place, tied=True), strict=True):
        torch.testing.assert_close(now, then, atol=2e-4, rtol=1e-4)


def test_the_perplexity_of_an_adapter_on_tied_embeddings_is_that_of_the_served_model(tmp_path: Path) -> None:
    place, handle = make(tmp_path / "adapter", ENDS["the embedding"](), tied=True), tiny.handle("llama", tied=True)
    policy = Policy.read("default")
    found = received.examine(received.unedited(handle, TEXTS, policy), receive(handle, place, TEXTS), (), policy)
    losses = []
    for logits, text in zip(serve(place, tied=True), TEXTS, strict=True):
        ids = torch.tensor(tiny.tokenizer()(text)["input_ids"])
        losses.append(torch.nn.functional.cross_entropy(logits[:-1], ids[1:]).exp())
    assert found.records[0].after["me_ppl"].value == pytest.approx(float(torch.stack(losses).mean()), rel=1e-4)
    assert [change.name for change in found.changes] == ["model.embed_tokens.weight"]
    assert "are one matrix in the unedited model" in " ".join(found.handed.remarks)


@pytest.mark.parametrize(
    ("config", "why"),
    [
        (lambda: peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3), "PROMPT_TUNING"),
        (lambda: peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3), "PREFIX_TUNING"),
        (lambda: peft.PromptEncoderConfig(task_type="CAUSAL_LM", num_virtual_tokens=3), "P_TUNING"),
    ],
)
def test_an_adapter_of_virtual_tokens_is_refused_for_what_it_is(config: Any, why: str, tmp_path: Path) -> None:
    place = make(tmp_path / "adapter", config())
    with pytest.raises(ModelError, match=rf"no weights stand for this adapter \({why}\), it puts virtual tokens"):
        receive(tiny.handle("llama"), place, TEXTS)


def test_an_adapter_that_is_served_otherwise_than_merged_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault in peft's merging, or a kind of adapter with parts that depend on the text."""
    place = make(tmp_path / "adapter", lora())
    whole = peft.tuners.lora.layer.Linear.get_delta_weight
    monkeypatch.setattr(peft.tuners.lora.layer.Linear, "get_delta_weight", lambda *given: 0.5 * whole(*given))
    with pytest.raises(ModelError, match=r"this adapter \(LORA\) computes something else than peft serves"):
        receive(tiny.handle("llama"), place, TEXTS)


def test_a_model_saved_with_a_head_of_its_own_is_judged_against_the_tied_one(tmp_path: Path) -> None:
    """As trainers write it that train the head of a model whose ends are tied, and merge it."""
    handle, model = tiny.handle("llama", tied=True), tiny.model("llama", tied=True)
    tying.untie(model)
    model.config.tie_word_embeddings = False
    with torch.no_grad():
        model.lm_head.weight.mul_(1.5)
    model.save_pretrained(tmp_path / "edited")
    tiny.tokenizer().save_pretrained(tmp_path / "edited")
    given = receive(handle, str(tmp_path / "edited"), TEXTS)
    assert given.untied
    assert [delta.parameter for delta in given.edit.deltas] == ["lm_head.weight"]
    policy = default_without("base_perplexity")
    found = received.examine(received.unedited(handle, TEXTS, policy), given, (), policy)
    assert [change.name for change in found.changes] == ["lm_head.weight"]
    assert found.group.verdict is not Verdict.ERROR


def test_a_tied_copy_of_a_model_with_two_matrices_is_compared_end_by_end(tmp_path: Path) -> None:
    handle = tiny.handle("llama", tied=False)
    model = tiny.model("llama", tied=False)
    model.lm_head.weight = model.model.embed_tokens.weight
    model.config.tie_word_embeddings = True
    model.save_pretrained(tmp_path / "edited")
    tiny.tokenizer().save_pretrained(tmp_path / "edited")
    given = receive(handle, str(tmp_path / "edited"), TEXTS)
    assert [delta.parameter for delta in given.edit.deltas] == ["lm_head.weight"]
    assert not given.untied
