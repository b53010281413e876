"""Candidates for hard cases from a chat model, as HardEdit was written with one (arXiv 2402.09656, with GPT-3.5).

Any endpoint that speaks OpenAI's chat completions is asked, with an instruction of our own; what comes back is read
line by line, vetted by the rules of HardEdit, and compared with what is known. Whether the facts are true is checked by
no machine here: read them, and let `editsafety screen` tell which of them are hard. No torch here.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from editsafety.datasets.request import EditRequest
from editsafety.errors import DataError
from editsafety.research.hardcases import chat, vetting
from editsafety.research.hardcases.chat import Endpoint
from editsafety.tensor_files import write_atomically

FIELDS = ("prompt", "subject", "target_new", "target_true", "relation", "rephrasings", "neighbours")
RELATIONS, ANSWERS = 3, 8  # so many relations are asked for in one call, with so many of their answers as examples
RULES = """\
You write test cases for experiments in which a single fact in a language model is overwritten.
Answer with JSON objects only, one per line: no list around them, no comments, no code fence. Each object has exactly
these fields:
 "prompt": a natural English beginning of a sentence. It starts with {} (which stands for the subject), holds it once,
   and ends just before the answer, without a trailing space.
 "subject": one single, common, capitalised word that everybody knows.
 "target_true": the short answer that is true. It must be a fact beyond doubt.
 "target_new": another answer of the same type, which is false for this subject.
 "relation": the name of the relation, one of those given below.
 "rephrasings": two other beginnings that ask for the same fact, with the subject written out, not in first place.
 "neighbours": two objects {"prompt": ..., "answer": ...} about other subjects with target_true as their true answer.
Neither target may occur in the prompt or in the rephrasings, the subject not in the neighbours, the answer not in their
prompts. No two objects may have the same subject and relation."""


@dataclass(frozen=True)
class Proposal:
    """What an endpoint came up with."""

    # The candidates that passed.
    kept: tuple[EditRequest, ...]
    # How many calls and candidates went which way, by name.
    counts: Mapping[str, int] = field(default_factory=dict)
    # The first reasons, in full.
    reasons: tuple[str, ...] = ()


def propose(
    endpoint: Endpoint,
    wanted: int,
    known: Sequence[EditRequest],
    *,
    at_once: int = 20,
    calls: int | None = None,
    seed: int = 0,
    sleep: Callable[[float], None] = time.sleep,
    step: Callable[[int], None] = lambda kept: None,
) -> Proposal:
    """At most `wanted` candidates that pass the rules of HardEdit and are not among the known ones.

    Asks until there are enough, or `calls` times (by default three times as often as it would take if all were good).
    Counted are: calls, calls_failed, calls_without_rows, rows, malformed, duplicates, against_the_rules. Raises
    UsageError for an endpoint that refuses the key or the model, DataError when not one call was answered.
    """
    if not vetting.answers_of(known):
        raise DataError("no requests are known, so no relation and no type of target can be asked for. Give some.")
    rng = random.Random(f"propose {seed}")
    counts: Counter[str] = Counter()
    kept: list[EditRequest] = []
    reasons: list[str] = []
    for _ in range(calls or 3 * math.ceil(wanted / at_once)):
        counts["calls"] += 1
        try:
            said = chat.ask(endpoint, RULES, write_question(known, at_once, rng), sleep=sleep)
        except chat.NoAnswer as error:
            counts["calls_failed"] += 1
            reasons.append(str(error))
            continue
        found = list(_rows(said))
        counts["calls_without_rows"] += not any(isinstance(row, dict) for row in found)
        for row in found:
            if len(kept) < wanted:
                reasons += _take(row, kept, known, counts)
        step(len(kept))
        if len(kept) >= wanted:
            break
    if counts["calls"] == counts["calls_failed"]:
        raise DataError(f"not one of {counts['calls']} calls was answered: {reasons[-1]}")
    return Proposal(tuple(kept), dict(counts), tuple(dict.fromkeys(reasons)))


def write_question(known: Sequence[EditRequest], at_once: int, rng: random.Random) -> str:
    """What one call asks for: a number of rows, and a few of the relations with answers of their type."""
    answers: dict[str, set[str]] = {}
    for request in known:
        answers.setdefault(request.relation, set()).add(request.target_true or "")
    chosen = rng.sample(sorted(answers), min(RELATIONS, len(answers)))
    lines = [f"Write {at_once} objects, about equally many for each of these relations:"]
    for relation in chosen:
        few = rng.sample(sorted(answers[relation]), min(ANSWERS, len(answers[relation])))
        example = rng.choice([request for request in known if request.relation == relation])
        lines.append(f'- "{relation}" as in "{example.filled}": answers such as {", ".join(few)}')
    taken = rng.sample([request.subject for request in known if request.relation in chosen], k=min(len(known), 1))
    return "\n".join([*lines, f"Both targets are of the answers above. Subjects such as {taken[0]} are taken already."])


def write(path: Path, proposal: Proposal, endpoint: Endpoint, *, known: Sequence[str], seed: int, **more: Any) -> None:
    """Write the candidates as JSON lines, and beside them (`.about.json`) where they come from; the key nowhere."""
    lines = [json.dumps(request.as_json(), ensure_ascii=False, default=list) for request in proposal.kept]
    write_atomically(path, "".join(f"{line}\n" for line in lines).encode())
    about = {
        "about": "candidates for hard cases written by a chat model; the facts are not checked",
        "endpoint": urlsplit(endpoint.url).hostname,
        "api_model": endpoint.model,
        "instruction_sha256": hashlib.sha256(RULES.encode()).hexdigest(),
        "seed": seed,
        "known": list(known),
        **proposal.counts,
        "kept": len(proposal.kept),
        **more,
    }
    write_atomically(path.with_suffix(".about.json"), (json.dumps(about, indent=1) + "\n").encode())


def _rows(said: str) -> Iterator[Any]:
    """The values in an answer: a JSON list, or a value a line; a line that is none comes as the text it is."""
    try:
        whole = json.loads(said)
    except (ValueError, RecursionError):
        whole = None
    if isinstance(whole, list):
        yield from whole
        return
    for line in said.splitlines():
        text = line.strip().rstrip(",")
        if text in ("", "[", "]") or text.startswith("```"):
            continue
        try:
            yield json.loads(text)
        except (ValueError, RecursionError):
            yield text


def _take(row: Any, kept: list[EditRequest], known: Sequence[EditRequest], counts: Counter[str]) -> Iterator[str]:
    """Keep a row if it is good; else say why not."""
    counts["rows"] += 1
    name = f"proposed-{len(kept) + 1:04d}"
    try:
        if not isinstance(row, dict):
            raise DataError(f"no JSON object: {row!r:.60}")
        request = EditRequest.from_json({"id": name, **{key: row[key] for key in FIELDS if key in row}})
    except DataError as error:
        counts["malformed"] += 1
        yield str(error)
        return
    findings = vetting.vet([request], "hardedit", beside=(*known, *kept))
    if not findings:
        kept.append(request)
    elif any(finding.said.startswith(vetting.SAID_BEFORE) for finding in findings):
        counts["duplicates"] += 1
    else:
        counts["against_the_rules"] += 1
        yield str(findings[0])
