"""Offers: the requests that a model is asked, out of a data set: in an order made for it, of facts that it knows.

An edit away from a fact that a model never had measures something else than one that replaces what it knows. So on real
models the requests that ship are those whose true answer the unedited model gives. Which these are is found out once,
before the cases of a run are laid out, and kept in its store. No torch here: somebody else asks the model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from editsafety import datasets
from editsafety.datasets.reading import Sifted
from editsafety.datasets.request import EditRequest
from editsafety.names import slug
from editsafety.numbers import many
from editsafety.progress import Progress
from editsafety.runs.facts import Known
from editsafety.runs.first_tokens import begins_with_one_token, one_token_first, tokenizer_of
from editsafety.runs.settings import Settings
from editsafety.runs.store import Store

HARDEDIT, ORDINARY = "hardedit", "english/normal"  # what real models are asked; which is which, their tokenizer decides
AT_ONCE = 64  # requests that a model is asked at most before it is looked whether there are enough
FEWEST = 8  # and at least
PER_FACT = 4  # for each known fact that is still wanted: a small model knows one request in three

# Whether a model, by its name, gives the true answer of each request.
Ask = Callable[[str, Sequence[EditRequest]], Sequence[bool]]


@dataclass(frozen=True)
class Offer:
    """The requests of one stream for one model."""

    requests: tuple[EditRequest, ...]
    # What of the data set is not among them, in words.
    sentences: tuple[str, ...] = ()


def is_real(model: str) -> bool:
    """Whether a model has seen the world, as far as its name tells: it is neither a pocket model nor a random one."""
    return not model.startswith(("pocket-", "random:"))


def leaves_unknown_out(settings: Settings, model: str) -> bool:
    """Whether a run is about known facts only.

    So it is where that was asked for, and on a real model with the requests that ship. Who names requests gets those.
    """
    ours = not settings.hard and not settings.normal and is_real(model)
    return settings.known or (ours and not settings.all_facts)


def offer(settings: Settings, model: str, spec: str, known: Known | None = None) -> Offer:
    """The first requests of a data set for a model, `settings.limit` of them; with `known`, of those that it knows.

    Raises DataError and UsageError as `datasets.read_requests`.
    """
    if spec not in (HARDEDIT, ORDINARY) and known is None:
        found = _read(settings, spec, settings.limit)
        return Offer(found.requests, found.sentences)
    rows, sentences = _in_order(settings, model, spec)
    if known is None:
        return Offer(rows[: settings.limit], sentences)
    kept, asked = _kept(rows, known, settings.limit)
    return Offer(kept, (*sentences, _told(kept, asked)))


def find_known(
    settings: Settings, model: str, specs: Sequence[str], store: Store, ask: Ask, progress: Progress | None = None
) -> Known:
    """Ask a model about the requests of data sets, a few at a time, until it has given enough true answers of each.

    What was found out before in this run is not asked again; every few answers are kept in the store.
    """
    shown = progress or Progress.quiet()
    known = store.fact(Known, slug(model)) or Known(slug(model))
    for spec in specs:
        rows, _ = _in_order(settings, model, spec)
        unasked = [row for row in rows if row.target_true is not None and row.digest() not in known.answers]
        if not unasked or _is_enough(rows, known, settings.limit):
            continue
        ask(model, [])  # so that the time it takes to load it is not taken for that of the first answers
        # With a limit what counts is how many are known: nobody can tell how many that asks for.
        total = len(unasked) if settings.limit is None else settings.limit
        with shown.task(f"facts of {spec} that {slug(model)} knows", total) as task:
            while unasked and not _is_enough(rows, known, settings.limit):
                count = _count_to_ask(rows, known, settings.limit)
                few, unasked = unasked[:count], unasked[count:]
                answers = dict(zip((row.digest() for row in few), ask(model, few), strict=True))
                known = replace(known, answers={**known.answers, **answers})
                store.note(known)
                kept, asked = _kept(rows, known, settings.limit)
                further = len(few) if settings.limit is None else len(kept) - task.done
                task.step(f"{len(kept)} of {asked} known", further)
    store.note(known)
    return known


def _count_to_ask(rows: Sequence[EditRequest], known: Known, limit: int | None) -> int:
    """How many requests to ask next: more where more known facts are wanted still."""
    if limit is None:
        return AT_ONCE
    return min(AT_ONCE, max(FEWEST, PER_FACT * (limit - len(_kept(rows, known, limit)[0]))))


def _read(settings: Settings, spec: str, limit: int | None = None) -> Sifted:
    return datasets.read_requests(spec, limit, skip_bad_rows=settings.skip_bad_rows, offline=settings.offline)


def _in_order(settings: Settings, model: str, spec: str) -> tuple[tuple[EditRequest, ...], tuple[str, ...]]:
    """All requests of a data set, and what is not among them, in words.

    Of HardEdit the hard ones for this model come first; of the ordinary ones those that are hard for it are left out.
    """
    found = _read(settings, spec)
    tokenizer = None
    if spec in (HARDEDIT, ORDINARY):
        tokenizer = tokenizer_of(model, revision=settings.revision, offline=settings.offline)
    if tokenizer is None:
        return found.requests, found.sentences
    if spec == HARDEDIT:
        return one_token_first(found.requests, tokenizer), found.sentences
    rows = tuple(row for row in found.requests if not begins_with_one_token(row, tokenizer))
    if len(rows) == len(found.requests):
        return rows, found.sentences
    left = many(len(found.requests) - len(rows), "request")
    why = "left out: they begin with a subject of one token for this model, as hard ones do"
    return rows, (*found.sentences, f"{left} of {len(found.requests)} {why}")


def _kept(rows: Sequence[EditRequest], known: Known, limit: int | None) -> tuple[tuple[EditRequest, ...], int]:
    """The first requests whose true answer is given, and how many were asked until then.

    One without a true answer cannot be asked, and is kept.
    """
    kept: list[EditRequest] = []
    asked = 0
    for row in rows:
        if len(kept) == limit:
            break
        answer = known.answers.get(row.digest())
        asked += answer is not None
        if answer or row.target_true is None:
            kept.append(row)
    return tuple(kept), asked


def _is_enough(rows: Sequence[EditRequest], known: Known, limit: int | None) -> bool:
    return limit is not None and len(_kept(rows, known, limit)[0]) == limit


def _told(kept: Sequence[EditRequest], asked: int) -> str:
    """How many of how many, in words."""
    given = sum(row.target_true is not None for row in kept)
    rest = "" if given == asked else f"; the other {asked - given} are not edited (--all-facts keeps them)"
    return f"the unedited model gives the true answer of {given} of the {asked} requests that it was asked{rest}"
