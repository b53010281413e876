"""`crash_test`: the suites' judgement as one function call, for a model that is already in memory."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from editsafety.errors import EditSafetyError, SpoiltProcessError, StoreError
from editsafety.judging.measurable import refuse_unmeasured
from editsafety.judging.policy import Policy
from editsafety.judging.report import RunReport
from editsafety.lab.lab import Lab
from editsafety.model.handle import ModelHandle
from editsafety.progress import Progress
from editsafety.runs.folders import STORE
from editsafety.runs.plan import RunPlan, keep_known
from editsafety.runs.settings import Settings
from editsafety.runs.store import Store

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def crash_test(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    editors: Sequence[str],
    *,
    name: str = "in-memory",
    folder: Path | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> RunReport:
    """Judge editors on a model in memory. The model is afterwards, bit for bit, what it was.

    Args:
        model: a causal language model of transformers.
        tokenizer: its tokenizer.
        editors: names, or `path.py:Class`.
        name: what the model is called in ids, and under which name hyperparameters are looked for.
        folder: where results are kept and found again; a temporary folder when not given.
        progress: where progress is shown; nowhere when not given.
        **settings: the options of `editsafety run`, with underscores: `hard`, `texts_from`, `limit`, `policy`, ...

    Raises UsageError or DataError before anything is run, NotPreparedError for an editor whose slow part is missing.
    """
    plan = RunPlan.of(Settings((name,), tuple(editors), **settings))
    policy = Policy.of(plan.settings)
    refuse_unmeasured(policy)
    handle = ModelHandle.of(model, tokenizer, name=name, chat=plan.settings.chat)
    with tempfile.TemporaryDirectory() as temporary:
        store = Store((folder or Path(temporary)) / STORE)
        shown, handles = progress or Progress.quiet(), {name: handle}
        plan = keep_known(plan, store, Lab(plan, store, shown, handles=handles).knows, shown)
        lab = Lab(plan, store, shown, handles=handles)
        records = {}
        for case in lab.wanted:
            try:
                records[case.id] = lab.record(case)
            except (StoreError, SpoiltProcessError):
                raise
            except EditSafetyError:
                if not case.tentative:  # of such a control the report says why it was not run
                    raise
        for block in plan.blocks:
            lab.same_in_any_order(*block)
        report = RunReport.of(plan, policy, records, store.facts(), planned=lab.wanted)
        store.close()
    return report
