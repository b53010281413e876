"""Alike: neighbours for requests that come without any, taken from the other requests of their relation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from editsafety.datasets.request import EditRequest, Neighbour

MOST = 4  # neighbours of a request


def with_neighbours(requests: Sequence[EditRequest]) -> tuple[EditRequest, ...]:
    """The requests, with neighbours where none has any: facts of the same relation that do not name the subject.

    Those with the same true answer come first, then those that follow in the order of the requests. Of a request
    without a relation nothing is known that is alike.
    """
    if any(request.neighbours for request in requests):
        return tuple(requests)
    groups: dict[str, list[EditRequest]] = {}
    for request in requests:
        if request.relation and request.target_true:  # one without would be alike to any other
            groups.setdefault(request.relation, []).append(request)
    return tuple(replace(one, neighbours=_neighbours(one, groups.get(one.relation, []))) for one in requests)


def _neighbours(request: EditRequest, alike: Sequence[EditRequest]) -> tuple[Neighbour, ...]:
    at = alike.index(request) if request in alike else 0
    others = [other for other in (*alike[at:], *alike[:at]) if request.subject not in other.filled]
    others.sort(key=lambda other: other.target_true != request.target_true)
    return tuple(Neighbour(other.filled, other.target_true or "") for other in others[:MOST])
