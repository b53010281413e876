"""Harness: tasks of lm-evaluation-harness on the model in memory (`pip install 'editsafety[lmeval]'`).

Its response cache stays off: its key is the request alone, not the model, so an edited model would be given the answers
of the unedited one. What its model class and its evaluation change is kept away from ours: the tokenizer is a copy
(padding side and token are set on it), weights are not tied again, random number generators are put back. Scores that
mean "not computed" there (999, None, NaN, an empty text) are reasons here. Where the model's logits are not finite the
harness goes on with the first word of the vocabulary; here that is a finding.
"""

from __future__ import annotations

import copy
import difflib
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn

from editsafety.errors import DataError, UsageError, masked
from editsafety.model.handle import ModelHandle
from editsafety.runs.measurement import Measurement

RATES = frozenset(("acc", "acc_norm", "acc_bytes", "exact_match", "em", "f1", "exact", "recall", "precision"))
BYPASS = 999  # what the harness gives for a metric that it did not compute
NAMED = ("name", "alias", "sample_len", "sample_count")


def harness(
    handle: ModelHandle,
    tasks: Sequence[str],
    *,
    limit: int | None = None,
    include_path: str | Path | None = None,
    batch_size: int = 16,
    offline: bool = False,
) -> list[Measurement]:
    """Every figure of the tasks, named `<task>_<metric>` (`piqa_acc_norm`; with a filter `gsm8k_exact_match_strict`).

    `tasks` are names known to the harness or of YAML files in the folder `include_path`. `limit` takes the *first*
    items of each task. With `offline` only data that is here already is used. Free answers are generated with a cache
    of keys, of which a sidecar sees one token at a time. Raises UsageError (no lm-eval, an unknown task), DataError
    (data that are not available).
    """
    lm_eval, model_class, manager_class = _imported()
    manager = _manager(manager_class, tasks, include_path)
    with _left_alone(handle.model), _offline(offline or handle.spec.offline), _watched(handle.model) as broken:
        language_model = model_class(
            pretrained=handle.model,
            tokenizer=copy.deepcopy(handle.tokenizer),
            max_length=handle.context,
            softmax_dtype="float32",
            batch_size=batch_size,
        )
        try:
            found = lm_eval.simple_evaluate(
                model=language_model, tasks=list(tasks), limit=limit, task_manager=manager, use_cache=None,
                cache_requests=False, bootstrap_iters=0, log_samples=True, random_seed=None, numpy_random_seed=None,
                torch_random_seed=None,
            )  # fmt: skip
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            if isinstance(error, torch.cuda.OutOfMemoryError):
                raise
            reason = masked(" ".join(str(error).split()))[:300]
            raise DataError(
                f"lm-eval cannot run {', '.join(tasks)}: {type(error).__name__}: {reason}. Is its data here, or can it "
                "be downloaded?"
            ) from error
    return measurements(found or {}, broken=bool(broken))


def measurements(found: Mapping[str, Any], *, broken: bool = False) -> list[Measurement]:
    """The figures in what `lm_eval.simple_evaluate` returned, in its order.

    Where the single items average to the figure they are kept, with the standard error of their mean.
    """
    rows = found.get("results", {})
    counts = found.get("n-samples", {})
    measured = []
    for task, row in rows.items():
        n = int((counts.get(task) or {}).get("effective") or row.get("sample_len") or 0)
        samples = found.get("samples", {}).get(task, ())
        for key, value in row.items():
            metric, _, kind = key.partition(",")
            if key in NAMED or metric.endswith("_stderr"):
                continue
            items = [one[metric] for one in samples if metric in one and one.get("filter", kind) == kind]
            name = f"{task}_{metric}" + ("" if kind in ("", "none") else f"_{kind}")
            measured.append(_measurement(name, metric, value, items, n, broken))
    return measured


def _measurement(name: str, metric: str, value: Any, items: Sequence[Any], n: int, broken: bool) -> Measurement:
    unit = "rate" if metric in RATES else metric
    reason = _no_number(value)
    if broken:
        return Measurement.missing(name, 1, unit, "the model's logits are not finite", broken=True, n=n)
    if reason is not None:
        return Measurement.missing(name, 1, unit, reason, n=n)
    numbers = [float(item) for item in items if isinstance(item, int | float) and math.isfinite(item)]
    if numbers and len(numbers) == len(items):
        mean = Measurement.mean_of(name, 1, unit, numbers)
        if mean.value is not None and math.isclose(mean.value, float(value), rel_tol=1e-6, abs_tol=1e-9):
            return mean
    return Measurement(name, 1, unit, float(value), n=n)


def _no_number(value: Any) -> str | None:
    """Why a figure of the harness is none; None when it is one."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"lm-eval gave {value!r} where a number was expected"
    if value == BYPASS:
        return f"lm-eval did not compute this metric (it gives {BYPASS} for that)"
    return None if math.isfinite(value) else f"lm-eval gave {value}"


def _imported() -> tuple[Any, Any, Any]:
    try:
        top, models, tasks = map(import_module, ("lm_eval", "lm_eval.models.huggingface", "lm_eval.tasks"))
    except ImportError as error:
        raise UsageError(
            f"tasks of lm-evaluation-harness need lm-eval, which is not installed here ({error}). "
            "Install it: pip install 'editsafety[lmeval]'."
        ) from error
    return top, models.HFLM, tasks.TaskManager


def _manager(kind: Any, tasks: Sequence[str], include_path: str | Path | None) -> Any:
    """What finds the tasks: in the given folder alone if it has them all, as reading lm-eval's own takes long."""
    if not tasks:
        raise UsageError("no task of lm-evaluation-harness was named; give one, like piqa.")
    if include_path is not None:
        own = kind(include_path=str(include_path), include_defaults=False)
        if set(tasks) <= set(own.all_tasks):
            return own
    manager = kind(include_path=str(include_path) if include_path is not None else None)
    _refuse_unknown(tasks, set(manager.all_tasks), include_path)
    return manager


def _refuse_unknown(tasks: Sequence[str], known: set[str], include_path: str | Path | None) -> None:
    for task in tasks:
        if task not in known:
            close = ", ".join(difflib.get_close_matches(task, known, n=3)) or "nothing like it is known"
            where = f" (with the tasks in {include_path})" if include_path is not None else ""
            raise UsageError(
                f"lm-eval{where} knows no task {task!r}. Close to it: {close}. List them: lm-eval ls tasks."
            )


@contextmanager
def _watched(model: nn.Module) -> Iterator[list[str]]:
    """A list that is no longer empty once the model has given logits that are not finite."""
    seen: list[str] = []

    def look(_: nn.Module, __: Any, output: Any) -> None:
        logits = getattr(output, "logits", None)
        if logits is not None and not seen and not bool(torch.isfinite(logits.amax(-1)).all()):
            seen.append("not finite")

    hook = model.register_forward_hook(look)
    try:
        yield seen
    finally:
        hook.remove()


@contextmanager
def _left_alone(model: Any) -> Iterator[None]:
    """Keep the harness from tying the weights again (an edit may have changed one of a tied pair), and from moving the
    global random number generators on.
    """
    import numpy

    drawn, drawn_there = random.getstate(), numpy.random.get_state()
    model.tie_weights = lambda *_, **__: None
    try:
        with torch.random.fork_rng():
            yield
    finally:
        del model.tie_weights
        random.setstate(drawn)
        numpy.random.set_state(drawn_there)


@contextmanager
def _offline(wanted: bool) -> Iterator[None]:
    """Keep the libraries that fetch data from the network while the block runs."""
    if not wanted:
        yield
        return
    data, hub = import_module("datasets.config"), import_module("huggingface_hub.constants")
    switches = ((data, "HF_HUB_OFFLINE"), (data, "HF_DATASETS_OFFLINE"), (hub, "HF_HUB_OFFLINE"))
    before = [(place, name, getattr(place, name)) for place, name in switches if hasattr(place, name)]
    try:
        for place, name, _ in before:
            setattr(place, name, True)
        yield
    finally:
        for place, name, value in before:
            setattr(place, name, value)
