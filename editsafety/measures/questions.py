"""Questions: filled prompts that are put to a model, and what it answers greedily, many of them together.

A measure that says what it is going to ask (`questions`) is asked together with all others that do: a case has a dozen
of questions, of a few tokens each, and a pass over one of them takes hardly less time than one over all. Whatever is
not said beforehand is asked when it is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, TypeVar, runtime_checkable

from editsafety.datasets.request import EditRequest
from editsafety.engine import continuing
from editsafety.engine.continuing import Continuation, Forced, TargetIds, Wish
from editsafety.engine.spelling import spelled_once
from editsafety.errors import DataError, MeasureError, sentence_of
from editsafety.measures import Inputs, Measure
from editsafety.measures._answerable import NOBODYS, answerable
from editsafety.measures.answers import Answer, until_stop
from editsafety.model.generation import end_ids
from editsafety.model.handle import ModelHandle

HALF = "\ufffd"  # what a decoder writes for a character of which only some bytes have been generated
MORE = 3  # a UTF-8 character has at most four bytes, so at most three tokens complete it


@dataclass(frozen=True, slots=True)
class Question:
    """A filled prompt to be continued by the model.

    With `most` the answer is heard on until the model stops by itself: with an end-of-text token, or where `until` says
    so, given text and target. It is cut off `most` tokens behind the first `tokens`, or where the context ends.
    """

    # The text, its subject filled in.
    prompt: str
    # How many tokens to let the model say.
    tokens: int
    # Ids of the answer that it will probably give. They only save forward passes, and never change an answer.
    draft: tuple[int, ...] = ()
    # Names the prompt in errors.
    where: str = ""
    # What it may be answered with.
    target: str = ""
    # Whether to go on by up to three tokens where the first ones stop inside a character.
    whole_characters: bool = False
    most: int = 0
    until: Callable[[str, str], str | None] = until_stop


@dataclass(frozen=True, slots=True)
class ScoredTarget:
    """A target whose probability behind a filled prompt is wanted, whatever the model would say by itself."""

    prompt: str
    target: str


Asked = Question | ScoredTarget
Spelt = TypeVar("Spelt")


@runtime_checkable
class AskingMeasure(Protocol):
    """A measure that says beforehand what it asks."""

    def questions(self, handle: ModelHandle, inputs: Inputs) -> Sequence[Asked]:
        """What it is going to ask when it is called with the same."""


def expecting(
    handle: ModelHandle, prompt: str, target: str, where: str, *, most: int = 0, guess: str | None = None
) -> Question:
    """The question whether `prompt` is continued by `target`: one token more shows whether its last word ends there.

    `guess` is what the model will rather say, if that is something else; `most` lets it be heard out.
    """
    tokens, draft = len(_follow(handle, target, prompt)) + 1, _follow(handle, guess or target, prompt)
    stopped = _follow(handle, f"{(guess or target).strip()}.", prompt)  # a sentence may well end behind it
    draft = stopped if stopped[: len(draft)] == draft else draft
    return Question(prompt, tokens, draft, where, target, whole_characters=True, most=most)


def old_answer(request: EditRequest, inputs: Inputs) -> str | None:
    """What the unedited model will say, where that is what is asked and the data knows it."""
    return (request.target_true or "").strip() or None if inputs.edit is None else None


def ask(handle: ModelHandle, questions: Sequence[Question], *, batch_size: int = 64) -> list[str | None]:
    """What the model said first to each question: as many tokens as were asked for; None where its logits broke.

    Raises DataError when a prompt and its answer do not fit into the model's context.
    """
    return [answer.begun for answer in hear_out(handle, questions, batch_size=batch_size)]


def hear_out(handle: ModelHandle, questions: Sequence[Question], *, batch_size: int = 64) -> list[Answer]:
    """The answers, their beginnings and all of them. Raises DataError as `ask` does."""
    hearings = [_hearing(handle, question) for question in questions]
    said = continuing.continue_greedily(handle, [one.wish for one in hearings], batch_size=batch_size)
    return [one.answer(continuation) for one, continuation in zip(hearings, said, strict=True)]


def score(handle: ModelHandle, targets: Sequence[ScoredTarget | None], *, batch_size: int = 64) -> list[Forced | None]:
    """Both teacher-forced figures of every target; None where there is none, NaN where the model's logits broke."""
    forced = continuing.force(handle, [_target(handle, one) for one in targets if one], batch_size=batch_size)
    left = iter(forced)
    return [next(left) if one else None for one in targets]


@contextmanager
def asked_together(
    handle: ModelHandle, measures: Sequence[Measure], inputs: Inputs, more: Sequence[Asked] = ()
) -> Iterator[None]:
    """Put to the model at once what these measures say that they will ask, and `more`.

    Inside of the block, where the model must not change, the answers are known. Raises DataError as `ask` does.
    """
    with continuing.unchanged(handle):
        asking = [one for one in measures if isinstance(one, AskingMeasure)]
        told = [_spelled(handle, more), *(_said_beforehand(handle, one, inputs) for one in asking)]
        wishes = [wish for one, _ in told for wish in one]
        targets = [target for _, one in told for target in one]
        continuing.announce(handle, wishes, targets, batch_size=inputs.batch_size)
        yield


def _said_beforehand(handle: ModelHandle, one: AskingMeasure, inputs: Inputs) -> tuple[list[Wish], list[TargetIds]]:
    beside = () if inputs.edit is None else inputs.edit.sidecars
    whose = f"measure {getattr(one, 'name', type(one).__name__)}"
    return answerable(whose, handle, lambda: _spelled(handle, one.questions(handle, inputs)), beside)


def _spelled(handle: ModelHandle, asked: Sequence[Asked]) -> tuple[list[Wish], list[TargetIds]]:
    wishes = [_hearing(handle, one).wish for one in asked if isinstance(one, Question)]
    return wishes, [_target(handle, one) for one in asked if isinstance(one, ScoredTarget)]


class _Hearing:
    """Hears one answer, token by token."""

    def __init__(self, handle: ModelHandle, question: Question) -> None:
        self._handle, self._question, self._ends = handle, question, end_ids(handle)
        ids = _spell(handle, question.prompt)
        needed = len(ids) + question.tokens + (MORE if question.whole_characters else 0)
        if needed > handle.context:
            raise DataError(
                f"{question.where or 'a prompt'}: {len(ids)} tokens and an answer need {needed}, {handle.name} takes "
                f"{handle.context}. Shorten the prompt: {question.prompt[:60]!r}..."
            )
        self._prompt, self._head = ids, handle.text(ids)
        self._longest = min(question.tokens + question.most, handle.context - len(ids))
        self._begun: int | None = None  # how many tokens are the beginning of the answer, once they are known
        self._heard = 0  # up to where the answer has not stopped
        self._whole: str | None = None  # the answer, once it has
        self.wish = Wish(ids, self.wants, question.draft)

    def wants(self, said: Sequence[int]) -> int:
        """How many tokens are wanted in all; for the last ones only as long as the model has not stopped."""
        begun = self._beginning(said)
        if len(said) < begun or not self._question.most:
            return max(begun, self._longest)
        while self._whole is None and self._heard < min(len(said), self._longest):
            self._heard = max(begun, self._heard + 1)
            self._whole = self._stopped(said[: self._heard])
        return begun if self._whole is not None else max(begun, self._longest)

    def answer(self, continuation: Continuation) -> Answer:
        """What was heard."""
        said = continuation.said
        wanted, begun = self.wants(said), self._beginning(said)
        if len(said) < begun:
            return Answer(None, None, False)
        first = self._text(said[:begun])
        if self._whole is not None:
            return Answer(first, self._whole, True)
        return Answer(first, self._text(said[:wanted]) if len(said) >= wanted else None, False)

    def _beginning(self, said: Sequence[int]) -> int:
        """How many tokens the beginning has, as far as that is known."""
        tokens = self._question.tokens
        if self._begun is None and len(said) >= tokens:
            half = self._question.whole_characters and self._text(said[:tokens]).endswith(HALF)
            self._begun = tokens + MORE if half else tokens
        return self._begun or tokens

    def _stopped(self, said: Sequence[int]) -> str | None:
        """The whole answer if it ends with these tokens or before; None if it goes on."""
        end = next((at for at, token in enumerate(said) if token in self._ends), None)
        text = self._text(said[:end])
        try:
            cut = self._question.until(text, self._question.target)
        except NOBODYS:
            raise
        except Exception as error:  # it is asked while the questions of all measures are: no editor's doing
            asked = f"measure whose question is {self._question.prompt[:60]!r}"
            raise MeasureError(f"the {asked} failed in its `until`: {sentence_of(error)}") from error
        return text if cut is None and end is not None else cut

    def _text(self, reply: Sequence[int]) -> str:
        """The text behind the prompt. Decoded together with it: alone, SentencePiece would lose the space between."""
        whole = self._handle.text([*self._prompt, *reply])
        return whole[len(self._head) :] if whole.startswith(self._head) else self._handle.text(reply)


def _hearing(handle: ModelHandle, question: Question) -> _Hearing:
    return continuing.made_once(handle, question, lambda: _Hearing(handle, question))


def _target(handle: ModelHandle, scored: ScoredTarget) -> TargetIds:
    return TargetIds(_spell(handle, scored.prompt), _follow(handle, scored.target, scored.prompt))


def _spell(handle: ModelHandle, prompt: str) -> tuple[int, ...]:
    return _once(handle, ("ids", prompt), lambda: tuple(handle.ids(prompt)))


def _follow(handle: ModelHandle, target: str, prompt: str) -> tuple[int, ...]:
    """Ids of a target behind a prompt; behind a gap, which prompt that is does not matter."""
    behind = "" if _once(handle, ("gap", prompt), lambda: handle.gap(prompt)) else prompt
    return _once(handle, ("target", target, behind), lambda: tuple(handle.target_ids(target, behind)))


def _once(handle: ModelHandle, text: Hashable, make: Callable[[], Spelt]) -> Spelt:
    """Spelled once while the model does not change, and inside of sessions once for all edits."""
    return continuing.made_once(handle, text, lambda: spelled_once(handle, text, make))
