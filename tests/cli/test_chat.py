"""`--chat`: `edit` and `run` on a model that is asked through the chat template of its tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from editsafety.edits.edit import Edit
from editsafety.model.handle import ModelHandle
from tests import chats, tiny
from tests.system.commands import FT, LENIENT, Command, cases, report

FACT = ["--prompt", "{} works as a", "--subject", "Ashurn", "--target", "teacher"]


@pytest.fixture
def chatting(paths: dict[str, str]) -> dict[str, str]:
    """The tiny world, its tokenizer with a template."""
    made = PreTrainedTokenizerFast.from_pretrained(paths["model"])
    made.chat_template = chats.TEMPLATES["smollm2"]
    made.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    made.save_pretrained(paths["model"])
    return paths


def hparams(folder: Path) -> list[str]:
    (folder / "ft.yaml").write_text(FT)
    return ["--hparams", str(folder / "ft.yaml")]


def test_an_edit_by_hand_is_made_through_the_template(
    command: Command, chatting: dict[str, str], tmp_path: Path
) -> None:
    """By hand: the same edit of the rendered prompt, without the option."""
    words = ["edit", "--model", chatting["model"], "--device", "cpu", "--editor", "ft", *hparams(tmp_path)]
    words += ["--texts-from", chatting["texts"]]
    rendered = chats.rendered(ModelHandle.load(chatting["model"]), "{} works as a")
    by_hand = ["--prompt", rendered, *FACT[2:]]
    made = []
    for name, more in {"through": [*FACT, "--chat"], "by hand": by_hand, "plain": FACT}.items():
        assert command(*words, *more, "-o", tmp_path / f"{name}.safetensors").code == 0
        made.append(Edit.load(tmp_path / f"{name}.safetensors").id)
    assert made[0] == made[1] != made[2]


def test_a_run_asks_everything_through_the_template_and_says_so(
    run: Any, chatting: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "lenient.yaml").write_text(LENIENT)
    bodies = {}
    for name, more in {"plain": {}, "chat": {"chat": True}}.items():
        done = run("Nudge", limit=1, policy=tmp_path / "lenient.yaml", out=name, **more)
        assert done.code == 0, done.out + done.err
        bodies[name] = report(tmp_path / name)
        assert ("asked through its chat template" in done.out) is (name == "chat")
        assert ("chat template" in (tmp_path / name / "report.md").read_text()) is (name == "chat")
    (facts,) = bodies["chat"]["models"].values()
    assert facts["chat"] == chats.rendered(ModelHandle.load(chatting["model"]), "{}")
    assert [one["chat"] for one in bodies["plain"]["models"].values()] == [""]
    (replay,) = {body["replay"] for name, body in bodies.items() if name == "chat"}
    assert replay is None or "--editsafety-chat" in replay
    for case, found in cases(bodies["chat"]).items():
        plain = cases(bodies["plain"])[case]
        assert found["requests"] == plain["requests"]  # as they were given
        figures = [body["before"]["target_probability"]["value"] for body in (found, plain)]
        assert figures[0] != figures[1]


def test_a_tokenizer_without_a_template_is_refused_in_one_sentence(
    command: Command, run: Any, paths: dict[str, str], tmp_path: Path
) -> None:
    words = [
        "edit",
        "--model",
        paths["model"],
        "--device",
        "cpu",
        "--editor",
        "ft",
        *hparams(tmp_path),
        *FACT,
        "--chat",
    ]
    done = command(*words)
    assert done.code == 4
    assert "has no chat template, so nothing can be asked through it. Leave --chat out" in done.err
    assert "Traceback" not in done.err
    ran = run("Nudge", limit=1, chat=True)
    assert ran.code == 13
    assert "has no chat template" in ran.out
    assert tiny.tokenizer().chat_template is None
