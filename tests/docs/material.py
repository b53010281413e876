"""What a page takes for granted, in small: files in published layouts, a corpus, a run, an edited model."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import yaml

from editsafety import datasets
from editsafety.datasets.request import EditRequest
from editsafety.pocket.corpus import covariance_texts
from editsafety.shipped import shipped
from tests.docs.code_blocks import BLOCKS
from tests.docs.table import FEW
from tests.system.commands import Command

Prepare = Callable[[Command], None]
EDIT = "edit --model pocket-neo --editor mend --prompt '{} works as a' --subject Oskiso --target teacher"


def prepared(*parts: Prepare) -> Prepare:
    """Several parts, one after another."""

    def prepare(command: Command) -> None:
        for part in parts:
            part(command)

    return prepare


def well(command: Command, line: str) -> None:
    """A command that must do what it is asked, whatever the verdict on so few cases."""
    done = command(*shlex.split(line))
    assert done.code in (0, 10, 11), f"{line}\n{done.err}"


def own_editor(_: Command) -> None:
    """The editor of the README."""
    for block in (block for block in BLOCKS if block.page == "README.md" and block.language == "python"):
        Path("my_editor.py" if "class MyEditor" in block.text else "my_method.py").write_text(block.text)


def own_program(_: Command) -> None:
    """The program of the page on writing an editor."""
    (block,) = (block for block in BLOCKS if block.page == "docs/writing-an-editor.md" and "def main" in block.text)
    Path("edit.py").write_text(block.text)


def other_run(command: Command) -> None:
    """`reports/other`: what `reports/good` is, before the page makes it."""
    well(command, f"run --model pocket-neo --editor c_rome --out reports/other {FEW}")


def run_in_ci(command: Command) -> None:
    """`reports/ci`, and a baseline of it."""
    own_editor(command)
    well(command, f"run --model pocket-neo --editor my_editor.py:MyEditor --out reports/ci {FEW}")
    well(command, "baseline accept reports/ci -o baselines/mine.json")


def course(command: Command) -> None:
    """`reports/course`: sequences with abilities on the way."""
    words = "--model pocket-neo --editor mend --limit 4 --every 1 --texts 5 --probe reasoning --items 4 --keep-going"
    well(command, f"sequence --out reports/course {words}")


def edited_model(command: Command) -> None:
    """`edit.safetensors`, and `path/to/edited-model` with it inside."""
    well(command, f"{EDIT} -o edit.safetensors")
    well(command, "apply edit.safetensors --model pocket-neo --out path/to/edited-model")


def saved_edit(command: Command) -> None:
    """`delta.safetensors`."""
    well(command, f"{EDIT} -o delta.safetensors")


def published_requests(_: Command) -> None:
    """A few requests of the shipped sets, in the layouts of COUNTERFACT, HardCF and EasyEdit."""
    ordinary, hard = (datasets.requests(name)[:4] for name in ("pocket-world/normal", "pocket-neo/hardcf"))
    _write("counterfact.json", [_counterfact(number, one) for number, one in enumerate(ordinary)])
    _write("HardCF.json", [_easyedit(one) for one in hard])
    _write("requests.json", [_easyedit(one) for one in ordinary])


def chat_model(_: Command) -> None:
    """`my-chat-model`: the model that stands here, with a template."""
    folder = Path("my-chat-model")
    shutil.copytree(str(shipped("data") / "pocket-neo"), folder)
    template = "{% for one in messages %}{{ one['content'] }}{% endfor %}\n"
    (folder / "chat_template.jinja").write_text(template)


def candidates(_: Command) -> None:
    """`candidates.jsonl`: as `propose` writes them, with the answers to each relation that their rules ask for."""
    rows = (shipped("data") / "hardedit.jsonl").read_text(encoding="utf-8")
    Path("candidates.jsonl").write_text(rows)


def corpus(_: Command) -> None:
    """`wikipedia.txt`, one text per line, and hyperparameters in EasyEdit's layout for the model that stands here."""
    Path("wikipedia.txt").write_text("\n".join(covariance_texts(0, 8000)))
    folder = Path("easyedit/hparams/MEMIT")
    folder.mkdir(parents=True)
    numbers = yaml.safe_load((shipped("hparams") / "memit" / "pocket-neo.yaml").read_text(encoding="utf-8"))
    del numbers["v_stop_loss"], numbers["context_starts"]
    theirs = {"alg_name": "MEMIT", "model_name": "./hugging_cache/gpt2-xl", "device": 0, **numbers}
    (folder / "gpt2-xl.yaml").write_text(yaml.safe_dump(theirs))


def ability_files(_: Command) -> None:
    """Rows of GSM8K, BoolQ and LAMBADA as published."""
    _write_lines("test.jsonl", {"question": "2 and 2?", "answer": "2 and 2\n#### 4"})
    _write_lines("dev.jsonl", {"question": "is it", "passage": "It is.", "title": "t", "answer": True})
    _write_lines("lambada_test.jsonl", {"text": "He looked for the signs"})


GIVEN: Mapping[str, Prepare] = {
    "README.md": own_editor,
    "docs/baselines.md": other_run,
    "docs/ci.md": run_in_ci,
    "docs/editors.md": published_requests,
    "docs/hard-cases.md": prepared(published_requests, candidates),
    "docs/real-models.md": prepared(published_requests, corpus, chat_model, course),
    "docs/sequences.md": prepared(course, saved_edit, ability_files),
    "docs/without-the-editor.md": edited_model,
    "docs/writing-an-editor.md": own_program,
}


def _counterfact(number: int, one: EditRequest) -> dict[str, object]:
    rewrite = {
        "prompt": one.prompt, "subject": one.subject, "relation_id": one.relation,
        "target_new": {"str": one.target_new, "id": ""}, "target_true": {"str": one.target_true, "id": ""},
    }  # fmt: skip
    near = [neighbour.prompt for neighbour in one.neighbours]
    return {
        "case_id": number, "requested_rewrite": rewrite, "paraphrase_prompts": list(one.rephrasings),
        "neighborhood_prompts": near,
    }  # fmt: skip


def _easyedit(one: EditRequest) -> dict[str, object]:
    return {
        "prompt": one.filled, "subject": one.subject, "target_new": one.target_new, "ground_truth": one.target_true,
        "rephrase_prompt": one.rephrasings[0],
    }  # fmt: skip


def _write(name: str, rows: Sequence[object]) -> None:
    Path(name).write_text(json.dumps(rows))


def _write_lines(name: str, *rows: object) -> None:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))
