"""The two small networks of SERAC and how they are trained: one says whether a text asks for a stored fact, the other
answers from the stored fact.

Both are causal transformers (transformers' Llama, a few layers) over the edited model's own vocabulary, so that what is
said at a position depends on the text up to it and on nothing else.

scope   a vector for every position of a text. Text x up to token t asks for what memory prompt m asks for when
        exp(-||f(x)_t - f(m)_end||^2) > 0.5 (SERAC, section 3.2, the variant with embeddings). Trained on the questions
        of training requests: 1 where a question about the fact ends; 0 at every other token of it, and everywhere in
        questions about other subjects, about other relations of the subject, and in texts.
answer  what comes next in `prompt, BEGIN, target, END, text`: a word of the vocabulary, or, by attention over the
        fact, the token behind the one attended to (a pointer-generator, arXiv 1704.04368), because answers are
        nearly always copies and copying is slow to learn from nothing. Trained on targets behind questions in scope.

Subjects are exchanged for words drawn from the vocabulary and targets for other targets or words, so that the networks
learn to compare and to copy rather than to remember the training facts.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from editsafety.datasets.request import EditRequest
from editsafety.errors import EditorError
from editsafety.model.handle import ModelHandle
from editsafety.progress import Progress

BEGIN, END = 0, 1  # ids of ours, behind the vocabulary
OWN = 2
RECIPE = 1  # raised when networks made by older code are of no use any more
TINY = 1e-6
WORDS = 3  # a drawn subject or target has at most so many words
LONGEST = 24  # tokens of a text that asks for nothing


@dataclass(frozen=True, slots=True)
class NetShape:
    """The size of a network."""

    # The vocabulary of the edited model.
    words: int
    # Of its states.
    width: int
    # How many.
    layers: int
    # Of attention in each layer.
    heads: int


class Net(nn.Module):
    """A small causal transformer with one projection of its states and a gate.

    `fold[token]` is the id by which a token is read (see `folding`).
    """

    def __init__(self, shape: NetShape) -> None:
        super().__init__()
        from transformers import LlamaConfig, LlamaModel

        self.shape = shape
        config = LlamaConfig(
            vocab_size=shape.words + OWN,
            hidden_size=shape.width,
            intermediate_size=2 * shape.width,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            attn_implementation="sdpa",
        )
        self.body: nn.Module = LlamaModel(config)
        self.head = nn.Linear(shape.width, shape.width, bias=False)
        self.gate = nn.Linear(shape.width, 1)
        self.fold: Tensor
        self.register_buffer("fold", torch.arange(shape.words + OWN))

    def vectors(self, rows: Tensor) -> Tensor:
        """Projected states of right-padded ids `[batch, seq]`: `[batch, seq, width]`."""
        return torch.as_tensor(self.head(self._states(rows)))

    def says(self, rows: Tensor, facts: Tensor, at: Tensor, positions: Tensor) -> Tensor:
        """Log-probabilities of the token behind `positions[i]` of row `at[i]`, `[n, words]`.

        The first `facts[r]` tokens of row r are the fact that may be copied from.
        """
        states, words = self._states(rows), self.shape.words
        asking = states[at, positions]
        scores = torch.einsum("nw,nsw->ns", self.head(asking), states[at, :-1]) / self.shape.width**0.5
        behind = torch.arange(1, rows.shape[1], device=rows.device) < facts[at][:, None]
        weights = scores.masked_fill(~behind, -torch.inf).softmax(-1)
        copied = weights.new_zeros(len(at), words + OWN).scatter_add(1, rows[at, 1:], weights)[:, :words]
        embedding: Any = self.body.get_submodule("embed_tokens")
        own, share = (asking @ embedding.weight[:words].T).softmax(-1), torch.sigmoid(self.gate(asking))
        return torch.log(share * own + (1 - share) * copied + TINY / words)

    def _states(self, rows: Tensor) -> Tensor:
        return torch.as_tensor(self.body(input_ids=self.fold[rows], use_cache=False).last_hidden_state)

    @classmethod
    def of(cls, shape: NetShape, tensors: Mapping[str, Tensor]) -> Net:
        """The network with these weights, not trainable. Raises EditorError when they are another network's."""
        with torch.random.fork_rng([]):  # its first values are thrown away; nobody else's numbers may depend on them
            net = cls(shape)
        try:
            net.load_state_dict(dict(tensors))
        except RuntimeError as error:  # says which parameters are missing, too many or of another shape
            raise EditorError(
                f"a stored network of serac is another one: {' '.join(str(error).split())}. "
                "Delete it from the artifact folder and prepare again."
            ) from error
        return net.requires_grad_(False).eval()


def folding(handle: ModelHandle, words: int) -> Tensor:
    """For every id the one that its text has behind a space, where that is a single token: `[words + OWN]`.

    A subject that begins a prompt and the same one inside a rephrasing are different tokens, and which belong together
    is nothing that a few thousand training texts could teach for every name.
    """
    found = torch.arange(words + OWN)
    special = set(handle.tokenizer.all_special_ids)
    for token in range(min(words, len(handle.tokenizer))):
        text = handle.text([token]).strip()
        if token in special or not text or "\ufffd" in text:
            continue
        spaced = handle.ids(f"x {text}", special=False)[len(handle.ids("x", special=False)) :]
        if len(spaced) == 1 and spaced[0] < words:
            found[token] = spaced[0]
    return found


def padded(rows: Sequence[Sequence[int]], fill: int) -> Tensor:
    """Rows of ids as `[n, longest]`, filled up on the right."""
    found = torch.full((len(rows), max(map(len, rows), default=0)), fill, dtype=torch.long)
    for i, row in enumerate(rows):
        found[i, : len(row)] = torch.tensor(row, dtype=torch.long)
    return found


@dataclass(frozen=True, slots=True)
class Asking:
    """One training example as text: a fact in memory, a question for it, and a text that does not ask for it."""

    prompt: str
    target: str
    question: str
    other: str


class Examples:
    """Training examples, drawn with a seed from requests and texts."""

    def __init__(
        self, handle: ModelHandle, requests: Sequence[EditRequest], texts: Sequence[str], rng: random.Random
    ) -> None:
        self.handle = handle
        self.requests = requests
        self.texts = texts
        self.rng = rng

    @cached_property
    def vocabulary(self) -> list[str]:
        """The tokens that are words by themselves."""
        words = (self.handle.text([token]) for token in range(len(self.handle.tokenizer)))
        return sorted({word.strip() for word in words if len(word.strip()) > 2 and word.strip().isalpha()})

    def draw(self) -> Asking:
        """One example."""
        rng, request = self.rng, self.rng.choice(self.requests)
        subject = self._subject(request)
        prompt = request.prompt.replace("{}", subject)
        question = rng.choice([prompt, *self._about(request, subject)])
        target = rng.choice([request.target_new, rng.choice(self.requests).target_new, self._words(WORDS)])
        return Asking(prompt, target, self._behind(question), self._behind(self._other(request, subject)))

    def _about(self, request: EditRequest, subject: str) -> list[str]:
        """The rephrasings with another subject, where they hold the subject literally."""
        return [text.replace(request.subject, subject) for text in request.rephrasings if request.subject in text]

    def _other(self, request: EditRequest, subject: str) -> str:
        """A text that does not ask for the request's fact about `subject`."""
        rng, stranger = self.rng, self.rng.choice(self.requests)
        kind = rng.choice(["subject", "subject", "relation", "neighbour", "text"])
        if kind == "relation" and stranger.relation != request.relation:
            return rng.choice([stranger.prompt.replace("{}", subject), *self._about(stranger, subject)])
        if kind == "neighbour" and request.neighbours:
            return rng.choice(request.neighbours).prompt
        if kind == "text" and self.texts:
            return rng.choice(self.texts)
        other = self._subject(stranger)
        if rng.random() < 0.5 and " " in subject:  # a name that shares a word
            first, *rest = subject.split()
            other = " ".join([self._words(1), *rest]) if rng.random() < 0.5 else f"{first} {self._words(1)}"
        if other == subject:
            return stranger.filled if stranger.subject != subject else self._words(WORDS)
        return rng.choice([request.prompt.replace("{}", other), *self._about(request, other)])

    def _subject(self, request: EditRequest) -> str:
        return request.subject if self.rng.random() < 0.4 else self._words(WORDS).title()

    def _words(self, most: int) -> str:
        return " ".join(self.rng.choice(self.vocabulary) for _ in range(self.rng.randint(1, most)))

    def _behind(self, text: str) -> str:
        """Every other time, behind a text that has nothing to do with it."""
        if not self.texts or self.rng.random() < 0.5:
            return text
        return f"{' '.join(self.rng.choice(self.texts).split()[: self.rng.randint(2, 10)])} {text}"


def train(
    shape: NetShape,
    draw: Callable[[], Asking],
    handle: ModelHandle,
    *,
    steps: int,
    batch_size: int,
    lr: float,
    progress: Progress,
) -> tuple[Net, Net, dict[str, float]]:
    """(scope, answer, notes) trained side by side by Adam with a rate that falls to zero. Draws from torch's numbers.

    Notes: the mean loss of each over the last tenth of the steps.
    """
    nets = Net(shape), Net(shape)
    for net in nets:
        for parameter in net.parameters():
            if parameter.ndim == 2:
                nn.init.normal_(parameter, std=shape.width**-0.5)
        net.fold.copy_(folding(handle, shape.words))
        net.to(handle.device)
    optimiser = torch.optim.Adam([p for net in nets for p in net.parameters()], lr=lr, betas=(0.9, 0.98))
    rate = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda at: min((at + 1) / (0.05 * steps + 1), 1 - at / steps))
    last: list[tuple[float, float]] = []
    with torch.enable_grad(), progress.task(f"serac of {handle.name}", steps) as task:
        for step in range(steps):
            examples = [draw() for _ in range(batch_size)]
            losses = scope_loss(nets[0], handle, examples), answer_loss(nets[1], handle, examples)
            optimiser.zero_grad()
            torch.autograd.backward(losses)
            nn.utils.clip_grad_norm_([p for net in nets for p in net.parameters()], 1.0)
            optimiser.step()
            rate.step()
            pair = (losses[0].item(), losses[1].item())
            last = [*last, pair] if step >= steps - max(1, steps // 10) else []
            task.step(f"loss {pair[0]:.3f} + {pair[1]:.3f}")
    scope, answer = (sum(pair[i] for pair in last) / len(last) for i in (0, 1))
    return (*nets, {"scope_loss": scope, "answer_loss": answer})


def scope_loss(net: Net, handle: ModelHandle, examples: Sequence[Asking]) -> Tensor:
    """Binary cross entropy of every position of every text against every memory of the batch, per example.

    Where a question ends it weighs twice, because one such position stands against hundreds of others. Where the prompt
    itself ends nothing is to be learned.
    """
    prompts = [handle.ids(example.prompt) for example in examples]
    asked = [handle.ids(example.question) for example in examples]
    others = [handle.ids(example.other)[:LONGEST] for example in examples]
    rows = padded([*prompts, *asked, *others], 0).to(handle.device)
    states = net.vectors(rows)
    n = len(examples)
    lengths = torch.tensor([len(row) for row in (*prompts, *asked, *others)], device=rows.device)
    memories = states[torch.arange(n), lengths[:n] - 1]
    distances = (states[:, :, None] - memories).square().sum(-1)  # texts x positions x memories
    each = torch.arange(n, device=rows.device)
    own = torch.zeros_like(distances, dtype=torch.bool)
    own[each, lengths[:n] - 1, each] = True
    near = distances[n + each, lengths[n : 2 * n] - 1, each]
    own[n + each, lengths[n : 2 * n] - 1, each] = True
    real = torch.arange(rows.shape[1], device=rows.device) < lengths[:, None]
    wrong = real[:, :, None] & ~own
    repelled = -torch.log(-torch.expm1(-distances[wrong]) + TINY)
    return 2 * near.mean() + repelled.sum() / n


def answer_loss(net: Net, handle: ModelHandle, examples: Sequence[Asking]) -> Tensor:
    """Cross entropy of the target's tokens behind memory and question, mean over tokens; nats."""
    rows, facts, places = [], [], []
    for i, example in enumerate(examples):
        target = handle.target_ids(example.target, example.question)
        fact = remembered(net.shape, handle.ids(example.prompt), target)
        head = [*fact, *handle.ids(example.question)]
        rows.append([*head, *target[:-1]])
        facts.append(len(fact))
        places += [(i, len(head) - 1 + at, token) for at, token in enumerate(target)]
    device = handle.device
    at, positions, tokens = (torch.tensor(column, device=device) for column in zip(*places, strict=True))
    said = net.says(padded(rows, 0).to(device), torch.tensor(facts, device=device), at, positions)
    return nn.functional.nll_loss(said, tokens)


def remembered(shape: NetShape, prompt: Sequence[int], target: Sequence[int]) -> list[int]:
    """How a fact is written in front of a text."""
    return [*prompt, shape.words + BEGIN, *target, shape.words + END]
