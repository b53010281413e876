"""Every causal language model that transformers knows stands in one list, and is what that list says."""

from __future__ import annotations

import pytest
import torch
import transformers
from transformers import AutoConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from editsafety.editing.targets import TargetHparams, optimise
from editsafety.edits.edit import Edit, Replace
from editsafety.edits.session import EditSession
from editsafety.errors import ModelError
from editsafety.model.architectures import Architecture, Part, has_row
from editsafety.model.handle import ModelHandle
from tests import tiny
from tests.model import causal
from tests.system.commands import ROOT

TRANSFORMERS_5 = int(transformers.__version__.partition(".")[0]) >= 5
INSTALLED = frozenset(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
# One of each sort; the others, a minute or two of them, are thorough.
SOON = ("nemotron", "roberta-prelayernorm", "modernbert-decoder", "bart", "bert", "mamba2", "lfm3")
PAGE = ROOT / "docs" / "architectures.md"


def some(names: tuple[str, ...]) -> list[object]:
    """Those that this transformers has, as parameters."""
    return [
        pytest.param(name, marks=() if name in SOON else pytest.mark.thorough)
        for name in names
        if name in INSTALLED and (TRANSFORMERS_5 or name not in causal.SINCE_5)
    ]


def test_every_causal_model_of_transformers_stands_in_one_list() -> None:
    listed = [name for names in causal.STANDINGS.values() for name in names]
    assert len(listed) == len(set(listed))
    unlisted = sorted(INSTALLED - set(listed) - set(causal.GONE))
    assert not unlisted, (
        f"transformers brings {', '.join(unlisted)}. Try each with `causal.build(name)` and `ModelHandle.of`: one "
        "whose parts are found goes into FOUND in tests/model/causal.py, one that runs into BLACK_BOX under its "
        "reason, one that people edit gets a row in editsafety/model/architectures.py; then write the page anew."
    )


@pytest.mark.parametrize("name", sorted(INSTALLED & set(causal.ROW)))
def test_what_has_a_row_has_one(name: str) -> None:
    config = AutoConfig.for_model(name)
    assert has_row(config)
    assert Architecture.of(config).model_type == config.model_type


@pytest.mark.parametrize("name", sorted(INSTALLED & set(causal.BLACK_BOX[causal.EXPERTS])))
def test_a_mixture_of_experts_is_known_by_its_config(name: str) -> None:
    with pytest.raises(ModelError, match="is a mixture of experts"):
        Architecture.of(AutoConfig.for_model(name))


@pytest.mark.parametrize("name", some(causal.FOUND))
def test_what_is_found_in_the_model_is_every_part_of_every_layer(name: str) -> None:
    handle = ModelHandle.of(causal.build(name), tiny.tokenizer(), name=name)
    assert not has_row(handle.model.config)
    assert handle.has_row
    for part in Part:
        assert all(handle.sites(part, layer) for layer in range(handle.layers))
    assert handle.mlp_out(1).d_out == causal.SIZES["hidden_size"]


@pytest.mark.parametrize("name", some(causal.FOUND))
def test_v_star_of_what_is_found_is_that_of_whole_rows(name: str) -> None:
    handle = ModelHandle.of(causal.build(name), tiny.tokenizer(), name=name)
    numbers = TargetHparams(v_num_grad_steps=4, v_lr=0.1, v_weight_decay=0.1, clamp_norm_factor=4)
    request, module = tiny.request(prompt="The work of {} is that of a"), handle.mlp_out(1).module
    usual, whole = (
        optimise(handle, module, request, ("{}", "The quick. {}"), numbers, whole_rows=rows) for rows in (False, True)
    )
    torch.testing.assert_close(usual.value, whole.value, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("reason", "name"),
    [
        pytest.param(reason, *param.values, marks=param.marks, id=str(param.values[0]))  # type: ignore[attr-defined]
        for reason, names in causal.BLACK_BOX.items()
        if reason != causal.EXPERTS
        for param in some(names)
    ],
)
@pytest.mark.filterwarnings("ignore:The `use_cache` argument is deprecated:FutureWarning")  # XLNet of transformers 4
def test_a_black_box_is_run_and_edited_by_the_names_of_its_weights(reason: str, name: str) -> None:
    handle = ModelHandle.of(causal.build(name), tiny.tokenizer(), name=name)
    # transformers 4 counts the encoder's blocks where a family has both.
    with pytest.raises(ModelError, match=reason if TRANSFORMERS_5 else f"{reason}|no list of"):
        handle.mlp_out(0)
    with torch.no_grad():
        batch = handle.batch([handle.ids("The capital of Dorvan")])
        before = handle.logits(batch)
        matrices = [weight for weight, one in handle.model.named_parameters() if one.ndim == 2]
        with EditSession(handle) as session:
            changes = [Replace(weight, handle.model.get_parameter(weight).detach() * 1.1) for weight in matrices]
            session.apply(Edit("test", ("a",), handle.identity, tuple(changes)))
            assert not torch.equal(handle.logits(batch), before)
    assert bool(torch.isfinite(before).all())
    assert session.leftovers == ()
    assert handle.fingerprint() == handle.identity


def test_the_page_says_what_the_lists_say() -> None:
    assert page() == PAGE.read_text(encoding="utf-8"), (
        f"{PAGE} is out of date: python -c 'from tests.model.test_causal import *; PAGE.write_text(page())'"
    )


WORDS = {
    "a row": "every editor works: the parts of a block are known",
    "found in the model": "the same: the parts are looked for in the model, and prove themselves on it "
    "(not kn, grace and wise on roberta-prelayernorm and xlm-roberta-xl)",
    "black box": "`check`, `verify`, `apply`, and methods that find their weights themselves",
    "refused": "nothing: it is not run on token ids alone",
    "untried": "nobody has run one here, because none is small; what it is shows when it is loaded",
}
REASONS = {
    causal.EXPERTS: "a mixture of experts: editors of one projection per layer do not say which expert they mean",
    causal.OTHERWISE: "a block adds something else than what its attention and its MLP give: a norm or a scale between",
    causal.UNLIKE: "blocks are not all alike: some have a state, a convolution or another attention",
    causal.NOT_ONE: "not one projection of the MLP and one of attention: a state in its place, or a second attention",
    "no list of": "its blocks are in no one list",
    "not run once each": "its blocks are not run once each with their hidden states first",
    "other tokens": "its blocks are given other tokens beside those of the text",
}
HEAD = (
    "# Architectures\n\nThe {total} causal language models of transformers 5.24, by their `model_type`, and "
    "what works on each.\nAn earlier version has fewer of them. `tests/model/test_causal.py` holds this page, tries a "
    "tiny random model of each\nkind where there is one, and fails when a newer transformers brings a name that is in "
    "no list.\n"
)
NOTE = (
    "A model is what its weights are, not what it is called: a member of a family whose blocks are built "
    "otherwise (a\ndense one of a family of mixtures, say) is looked at by itself."
)


def page() -> str:
    """The page on architectures."""
    counts = {standing: len(names) for standing, names in causal.STANDINGS.items()}
    lines = [HEAD.format(total=sum(counts.values())), "| | models | what works |", "| --- | --: | --- |"]
    lines += [f"| {standing} | {counts[standing]} | {said} |" for standing, said in WORDS.items()]
    lines += ["", NOTE, ""]
    for title, names in (("A row", causal.ROW), ("Found in the model", causal.FOUND)):
        lines += [f"## {title}", "", ", ".join(names), ""]
    lines += ["## Black box", "", "| models | why the parts of a block are not told |", "| --- | --- |"]
    lines += [f"| {', '.join(names)} | {REASONS[reason]} |" for reason, names in causal.BLACK_BOX.items()]
    lines += ["", "## Refused", "", "| model | why |", "| --- | --- |"]
    lines += [f"| {name} | {why} |" for name, why in causal.REFUSED.items()]
    lines += ["", "## Untried", "", ", ".join(causal.UNTRIED), ""]
    return "\n".join(lines)
