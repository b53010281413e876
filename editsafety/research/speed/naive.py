"""The published algorithms' work, step by step and without a shortcut: what `editsafety bench` compares with.

Every step of v* runs every row whole, from the embeddings to the logits of every token, and takes the softmax of all of
them (rome/compute_v.py at 0874014, memit/compute_z.py at 80426fd); requests come one after the other; keys are
read from whole passes; MEMIT and AlphaEdit solve a system of the size of the layer. Rows, contexts, second moments and
hyperparameters are those of our own editors, so that the updates are the same up to rounding.

What the published code does once per process (the inverse of C) is done before the clock starts. What it does twice
without need is done once: MEMIT's second unembedding of every row, and applying every update twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from editsafety.datasets.request import EditRequest
from editsafety.editing import gradients
from editsafety.editing.keys import by_token
from editsafety.editing.subject import Located, locate, locate_text
from editsafety.editing.targets import KL_PROMPT, TargetHparams
from editsafety.editors.alphaedit import AlphaEdit
from editsafety.editors.memit import Memit
from editsafety.editors.rome_family import RankOneEditor
from editsafety.errors import UsageError
from editsafety.model import trace
from editsafety.model.handle import ModelHandle
from editsafety.model.sites import Site

BATCH = 512  # rows that are run at once where keys are read (rome/repr_tools.py at 0874014)

Spread = Memit | AlphaEdit
Updates = Mapping[str, Tensor]  # by module: what is added to its matrix, `[d_out, d_in]`


@dataclass(frozen=True, eq=False)
class Naive:
    """One of our editors' method, as published. Raises UsageError for a method that is not written out here."""

    editor: RankOneEditor | Spread
    inverses: Mapping[Site, Tensor]

    @classmethod
    def of(cls, editor: object) -> Naive:
        """The same method as `editor`, which must be prepared."""
        if isinstance(editor, RankOneEditor):
            solves = {site: editor.moments.inverse(site, editor.name) for site in editor.sites}
            whole = {site: one.columns(torch.eye(site.d_in)).to(editor.handle.device) for site, one in solves.items()}
            return cls(editor, whole)
        if isinstance(editor, Spread):
            return cls(editor, {})
        raise UsageError(f"{type(editor).__name__} is not written out as published: rome, memit or alphaedit are.")

    def edit(self, requests: Sequence[EditRequest]) -> Updates:
        """The update of every edited module; the model is left as it was."""
        if isinstance(self.editor, RankOneEditor):
            return self._rank_one(self.editor, requests[0])
        return self._spread(self.editor, requests)

    def _rank_one(self, editor: RankOneEditor, request: EditRequest) -> Updates:
        """ROME, eq. 2, with its mixed keys, in one layer."""
        (site,) = editor.sites
        prompts = [locate(editor.handle, request, template) for template in editor.templates()]
        direction = self.inverses[site] @ _read(editor.handle, site.module, prompts)[0].mean(0).double()
        direction = (direction / direction.norm()).float()
        value = descend(editor.handle, site.module, request, editor.templates(), editor.hparams)
        keys, outputs = _read(editor.handle, site.module, prompts[:1])
        left = (value - outputs[0]) / (keys[0] @ direction)
        return {site.module: torch.outer(left, direction)}

    def _spread(self, editor: Spread, requests: Sequence[EditRequest]) -> Updates:
        """MEMIT, algorithm 1, or AlphaEdit, eq. 14, of one batch."""
        handle, groups = editor.handle, editor.groups()
        templates = [template for group in groups for template in group]
        weights = torch.tensor([1 / (len(groups) * len(group)) for group in groups for _ in group])
        block = handle.block(max(editor.hparams.layers))
        wanted = torch.stack([descend(handle, block, one, templates, editor.hparams) for one in requests], 1)
        rows = [[locate(handle, request, template) for template in templates] for request in requests]
        found: dict[str, Tensor] = {}
        with _restored(handle, editor.sites):
            for number, site in enumerate(editor.sites):
                every = _read(handle, site.module, [prompt for row in rows for prompt in row])[0]
                keys = torch.einsum("ntm,t->mn", every.reshape(len(rows), len(templates), -1), weights.to(every))
                now = _read(handle, block, [row[0] for row in rows])[1].T
                residual = (wanted - now) / (len(editor.sites) - number)
                update = _solved(editor, site, keys.double(), residual.double()).float()
                handle.weight(site).add_(update)
                found[site.module] = update
        return found


def descend(
    handle: ModelHandle, module: str, request: EditRequest, templates: Sequence[str], settings: TargetHparams
) -> Tensor:
    """v* `[d]` of one request; see `editing/targets` for the objective."""
    target = handle.target_ids(request.target_new, request.filled)
    prompts = [locate(handle, request, template) for template in templates]
    kl = locate_text(handle, KL_PROMPT, request.subject)
    batch = handle.batch([*((*prompt.ids, *target[:-1]) for prompt in prompts), kl.ids])
    count, width = batch.ids.shape
    rows, places = torch.arange(count), torch.tensor([one.subject for one in (*prompts, kl)])
    labels = torch.full((len(prompts), width), -100, device=handle.device)
    for row, prompt in enumerate(prompts):
        labels[row, len(prompt.ids) - 1 : len(prompt.ids) - 1 + len(target)] = torch.tensor(target)
    counted = labels != -100
    start: Tensor | None = None
    before: Tensor | None = None
    delta = torch.zeros(
        int(handle.model.config.get_text_config().hidden_size), device=handle.device, requires_grad=True
    )
    optimiser = torch.optim.Adam([delta], lr=settings.v_lr)

    def shift(output: Tensor) -> Tensor:
        nonlocal start
        by_row = by_token(output, count, width).clone()
        if start is None:
            start = by_row[0, places[0]].detach().float().clone()
        by_row[rows, places] += delta.to(by_row)
        return by_row.reshape(output.shape)

    with gradients.only(handle.model):
        for step in range(settings.v_num_grad_steps):
            optimiser.zero_grad()
            with trace.watch(handle.model, change={module: shift}):
                scores = torch.log_softmax(torch.as_tensor(handle.run(batch.ids, batch.mask).logits).float(), -1)
            assert start is not None
            beside = scores[-1, places[-1]]
            before = beside.detach().clone() if before is None else before
            picked = scores[:-1].gather(2, labels.clamp(min=0).unsqueeze(2)).squeeze(2)
            nll = -((picked * counted).sum(1) / counted.sum(1)).mean()
            drift = (beside.exp() * (beside - before)).sum()
            loss = nll + settings.kl_factor * drift + settings.v_weight_decay * delta.norm() / start.norm() ** 2
            if not settings.v_stop_loss <= loss.item() < float("inf") or step == settings.v_num_grad_steps - 1:
                break
            loss.backward()
            optimiser.step()
            with torch.no_grad():
                delta *= (settings.clamp_norm_factor * start.norm() / delta.norm()).clamp(max=1.0)
    assert start is not None
    return start + delta.detach()


@torch.no_grad()
def _read(handle: ModelHandle, module: str, prompts: Sequence[Located]) -> tuple[Tensor, Tensor]:
    """Input and output of a module at every subject's last token, `[n, d]`, from whole passes."""
    inputs, outputs = [], []
    for first in range(0, len(prompts), BATCH):
        chunk = prompts[first : first + BATCH]
        batch = handle.batch([prompt.ids for prompt in chunk])
        with trace.watch(handle.model, [module]) as seen:
            handle.run(batch.ids, batch.mask)
        count, width = batch.ids.shape
        rows, places = torch.arange(count), torch.tensor([prompt.subject for prompt in chunk])
        inputs.append(by_token(seen.inputs[module], count, width)[rows, places].float())
        outputs.append(by_token(seen.outputs[module], count, width)[rows, places].float())
    return torch.cat(inputs), torch.cat(outputs)


def _solved(editor: Spread, site: Site, keys: Tensor, residual: Tensor) -> Tensor:
    """One layer's update `[d_out, d_in]`, float64, from a system of d_in equations."""
    solution: Tensor
    if isinstance(editor, AlphaEdit):
        one = torch.eye(site.d_in, dtype=torch.float64, device=keys.device)
        projection = editor.spaces.of(site).project(one).to(one)
        system = projection @ (keys @ keys.T) + editor.hparams.L2 * one
        solution = torch.linalg.solve(system, projection @ keys @ residual.T)
        return solution.T
    assert isinstance(editor, Memit)
    system = editor.hparams.mom2_update_weight * editor.moments.matrix(site, editor.name).to(keys) + keys @ keys.T
    solution = torch.linalg.solve(system, keys)
    return residual @ solution.T


@contextmanager
def _restored(handle: ModelHandle, sites: Sequence[Site]) -> Iterator[None]:
    """Copies of the matrices are kept, and brought back."""
    kept = {site: handle.weight(site).clone() for site in sites}
    try:
        yield
    finally:
        for site, weight in kept.items():
            handle.weight(site).copy_(weight)
