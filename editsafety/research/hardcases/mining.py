"""Screening and mining: run all single edits of a pool, see which collapse the model, keep those as hard cases.

HardCF was made from COUNTERFACT in this way (arXiv 2402.09656). The lab keeps every finished edit, so a screening that
was interrupted goes on, and mining after screening runs nothing again.
"""

from __future__ import annotations

import hashlib
import json
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from editsafety import datasets
from editsafety.datasets.fetch import digest
from editsafety.datasets.request import EditRequest
from editsafety.errors import EditorError, UsageError
from editsafety.judging.checks import ratio
from editsafety.lab.lab import Lab
from editsafety.model.loading import ModelSpec
from editsafety.names import label, slug
from editsafety.numbers import counting, exact, times
from editsafety.research.hardcases.preview import one_token_first, tokenizer_of
from editsafety.runs.case_record import CaseRecord
from editsafety.runs.fact import RunFact
from editsafety.runs.plan import RunPlan, spread, text_digest
from editsafety.runs.signals import DELTA, NOTED
from editsafety.tensor_files import write_atomically

QUANTILES = (0.0, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0)
# Not listed: two figures that go with delta_norm for one model and editor, and one that is counted by itself.
LEFT_OUT = ("delta_per_entry", "delta_large_share", "first_token")
SIGNALS = tuple(s.name for s in (*DELTA, *NOTED) if s.measured and s.name not in LEFT_OUT)
WORST = 10


@dataclass(frozen=True, slots=True)
class CollapseCount:
    """How many of a group of edits collapse the model."""

    # The edits of the group.
    n: int
    # Those that collapse it.
    collapsed: int

    def __str__(self) -> str:
        return f"{self.collapsed} of {self.n} collapse"


@dataclass(frozen=True)
class Screening:
    """What a pool came to.

    An edit collapses the model when it multiplies the perplexity by more than `above`, or breaks it. One that has no
    perplexity (its editor failed) is neither collapsed nor not: it is counted apart.

    """

    # Of every single edit, in the pool's order.
    records: tuple[CaseRecord, ...]
    # The ratio of perplexities past which a model has collapsed.
    above: float
    # The cases whose subject is one token in first place.
    first: frozenset[str] = field(default_factory=frozenset)

    @property
    def measured(self) -> tuple[CaseRecord, ...]:
        """The records with a ratio, in the pool's order."""
        return tuple(record for record in self.records if ratio(record) is not None)

    @property
    def failed(self) -> tuple[CaseRecord, ...]:
        """The records without one."""
        return tuple(record for record in self.records if ratio(record) is None)

    @property
    def collapsed(self) -> tuple[CaseRecord, ...]:
        """The records whose edit collapses the model, in the pool's order."""
        return tuple(record for record in self.measured if self.collapses(record))

    def collapses(self, record: CaseRecord) -> bool:
        """Whether the edit of a measured record collapses the model."""
        found = ratio(record)
        return found is not None and not found <= self.above

    def group(self, *, first: bool) -> CollapseCount:
        """The measured edits whose subject is one token in first place, or the others."""
        chosen = [record for record in self.measured if (record.case in self.first) is first]
        return CollapseCount(len(chosen), sum(map(self.collapses, chosen)))

    def quantiles(self) -> dict[float, float]:
        """Ratios by share of the measured edits that have no larger one; infinite where the model broke."""
        found = sorted(ratio(record) or 0.0 for record in self.measured)
        return {share: found[max(0, math.ceil(share * len(found)) - 1)] for share in QUANTILES if found}

    def worst(self, most: int = WORST) -> list[CaseRecord]:
        """The records with the largest ratios, the largest first."""
        return sorted(self.measured, key=lambda record: -(ratio(record) or 0.0))[:most]

    def signals(self) -> Iterator[tuple[str, float | None, float | None]]:
        """Name of each weight signal, its median over the collapsed edits, and over the others (None without any)."""
        stay = [record for record in self.measured if not self.collapses(record)]
        for name in SIGNALS:
            pair = [_median(records, name) for records in (self.collapsed, stay)]
            if pair != [None, None]:
                yield name, pair[0], pair[1]

    def summary(self) -> list[tuple[str, str]]:
        """What there is to say, as name and figure."""
        quantiles = ", ".join(f"{share:.0%} {times(found)}" for share, found in self.quantiles().items())
        share = f" ({len(self.collapsed) / len(self.measured):.1%})" if self.measured else ""
        said = [
            ("screened", str(len(self.records))),
            (f"collapsed (above {self.above:g}x)", f"{len(self.collapsed)}{share}"),
            ("one-token subject in first place", str(self.group(first=True))),
            ("others", str(self.group(first=False))),
            ("ratios", quantiles or "none"),
        ]
        if self.failed:
            failure = self.failed[0].failure
            said.append(("without a result", f"{counting(len(self.failed))}; {failure.message if failure else ''}"))
        said += [
            (f"median {name}", f"{_spelled(hard)} where it collapses, {_spelled(stays)} where not")
            for name, hard, stays in self.signals()
        ]
        return [*said, *(("worst", _line(record)) for record in self.worst() if self.collapses(record))]

    def as_json(self) -> dict[str, Any]:
        """Plain values; a ratio that is not finite is null."""
        groups = {"one_token_first": self.group(first=True), "others": self.group(first=False)}
        return {
            "screened": len(self.records),
            "measured": len(self.measured),
            "without_result": len(self.failed),
            "collapsed": len(self.collapsed),
            "collapsed_above_ratio": self.above,
            **{name: {"n": group.n, "collapsed": group.collapsed} for name, group in groups.items()},
            "ratio_quantiles": {f"{share:g}": _finite(found) for share, found in self.quantiles().items()},
            "median_signals": {
                name: {"collapsed": hard, "others": stays} for name, hard, stays in self.signals()
            },
            "cases": [
                {
                    "id": record.requests[0].id,
                    "filled": record.requests[0].filled,
                    "subject": record.requests[0].subject,
                    "target_new": record.requests[0].target_new,
                    "ratio": _finite(ratio(record)),
                    "collapsed": self.collapses(record),
                    "one_token_first": record.case in self.first,
                    **{name: _signal(record, name) for name in SIGNALS},
                    "failure": record.failure.message if record.failure else None,
                }
                for record in self.records
            ],
        }  # fmt: skip


def sample_cases(plan: RunPlan, limit: int | None = None, shard: str = "") -> RunPlan:
    """The plan with at most `limit` of its cases, evenly from all over, of these every n-th from the i-th for "i/n".

    Evenly, because published sets are sorted by relation or by how they were made. Raises UsageError.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"--limit {limit} screens nothing; give 1 or more, or none for the whole pool.")
    chosen = spread(plan.cases, limit or len(plan.cases))
    if shard:
        place, _, count = shard.partition("/")
        if not (place.isdigit() and count.isdigit() and 1 <= int(place) <= int(count)):
            raise UsageError(f"--shard {shard}: expected i/n with i from 1 to n, such as 1/4.")
        chosen = chosen[int(place) - 1 :: int(count)]
    if not chosen:
        raise UsageError(f"--shard {shard} of {counting(len(plan.cases))} is empty; give a smaller n.")
    return replace(plan, cases=tuple(chosen), controls=(), courses=())


def screen(lab: Lab, *, above: float) -> Screening:
    """Run the plan's cases, or find their records. Raises EditorError when not one of them has a perplexity."""
    settings = lab.plan.settings
    (model,) = settings.models
    records = tuple(lab.record(case) for case in lab.plan.cases)
    tokenizer = tokenizer_of(
        ModelSpec(
            model, revision=settings.revision, offline=settings.offline, trust_remote_code=settings.trust_remote_code
        )
    )
    first = frozenset(case.id for case in lab.plan.cases if one_token_first(tokenizer, case.request))
    screening = Screening(records, above, first)
    if not screening.measured:
        failure = records[0].failure
        raise EditorError(f"not one of {counting(len(records))} has a result: {failure.message if failure else 'why?'}")
    return screening


def hard_cases(screening: Screening, most: int | None = None) -> tuple[EditRequest, ...]:
    """The requests that collapse the model, with ids of their own.

    Of more than `most`, that many are kept, evenly spread over the pool: not the worst ones, which would flatter.
    """
    collapsed = screening.collapsed
    kept = spread([record.requests[0] for record in collapsed], len(collapsed) if most is None else most)
    return tuple(replace(request, id=f"hardcf-{i:04d}", source="") for i, request in enumerate(kept, start=1))


def write(path: Path, lab: Lab, screening: Screening, hard: Sequence[EditRequest]) -> None:
    """Write the hard cases as JSON lines, and beside them (`.about.json`) where they come from.

    Nothing in either file depends on the day or the place: the same screening gives the same bytes.
    """
    lines = [json.dumps(request.as_json(), ensure_ascii=False, default=list) for request in hard]
    write_atomically(path, "".join(f"{line}\n" for line in lines).encode())
    about = {**provenance(lab), **counts(screening), "kept": len(hard)}
    write_atomically(path.with_suffix(".about.json"), (json.dumps(about, indent=1) + "\n").encode())


def write_report(path: Path, lab: Lab, screening: Screening) -> None:
    """Write all that was found by a screening, as JSON."""
    body = {**provenance(lab), **screening.as_json()}
    write_atomically(path, (json.dumps(body, indent=1, allow_nan=False) + "\n").encode())


def provenance(lab: Lab) -> dict[str, Any]:
    """What was run: model, editor with code and numbers, pool and texts with their sha256, seed, versions.

    A pool that is a folder, or a part of a file, has no sha256 of its own; that of the requests is always there.
    """
    settings = lab.plan.settings
    (model,), (editor,) = settings.models, settings.editors
    facts = lab.store.facts()
    loaded, made = facts.models.get(slug(model)), facts.editors.get((slug(model), label(editor)))
    texts = lab.plan.texts[model]
    spec = lab.plan.sources[f"{slug(model)} normal"]
    pool = datasets.path_of(spec)
    return {
        "model": {
            "name": model,
            **{name: getattr(loaded, name, None) for name in ("fingerprint", "dtype", "revision")},
        },
        "editor": {"name": editor, **{name: getattr(made, name, None) for name in ("code", "hparams")}},
        "pool": {
            "name": spec,
            "sha256": digest(pool) if pool.is_file() else None,
            "screened_sha256": _rows_digest(lab),
        },
        "texts": {"name": lab.plan.sources[f"{slug(model)} texts"], "n": len(texts), "sha256": text_digest(texts)},
        "seed": settings.seed,
        "computed_with": dict(facts.software) or None,
    }


def counts(screening: Screening) -> Mapping[str, Any]:
    """How many were screened and collapsed, as JSON values."""
    whole = screening.as_json()
    names = ("screened", "without_result", "collapsed", "collapsed_above_ratio", "one_token_first", "others")
    return {name: whole[name] for name in names}


def _fields(fact: RunFact | None, *names: str) -> dict[str, Any]:
    """Some fields of a fact; nulls where it is not known."""
    return {name: getattr(fact, name, None) for name in names}


def _rows_digest(lab: Lab) -> str:
    digests = "".join(case.request.digest() for case in lab.plan.cases)
    return hashlib.sha256(digests.encode()).hexdigest()


def _signal(record: CaseRecord, name: str) -> float | None:
    return record.after[name].value if name in record.after else None


def _median(records: Sequence[CaseRecord], name: str) -> float | None:
    found = [value for record in records if (value := _signal(record, name)) is not None]
    return statistics.median(found) if found else None


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _spelled(value: float | None) -> str:
    return "-" if value is None else exact(value, 3)


def _line(record: CaseRecord) -> str:
    request = record.requests[0]
    return f'{times(ratio(record))}  {request.id}  "{request.filled}" -> {request.target_new}'
