"""Laid out: a plan as a message, so that the process of a lab runs what was planned, whatever becomes of the files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from editsafety.datasets.request import EditRequest
from editsafety.runs.case import Case
from editsafety.runs.plan import RunPlan
from editsafety.runs.schedule import Schedule
from editsafety.runs.settings import Settings

_LISTS = ("cases", "controls", "courses")


def as_message(plan: RunPlan) -> dict[str, Any]:
    """The plan in plain values; each request once, however many cases ask it."""
    requests: dict[str, EditRequest] = {}
    lists = {name: [_case(case, requests) for case in getattr(plan, name)] for name in _LISTS}
    return {
        "settings": asdict(plan.settings),
        "requests": {digest: request.as_json() for digest, request in requests.items()},
        "texts": {model: list(texts) for model, texts in plan.texts.items()},
        "sources": dict(plan.sources),
        **lists,
    }


def from_message(message: Mapping[str, Any]) -> RunPlan:
    """The inverse of `as_message`."""
    requests = {digest: EditRequest.from_json(row) for digest, row in message["requests"].items()}
    lists: dict[str, Any] = {name: tuple(_planned(row, requests) for row in message[name]) for name in _LISTS}
    return RunPlan(
        settings=Settings.stored(message["settings"], "the settings of this run"),
        texts={model: tuple(texts) for model, texts in message["texts"].items()},
        sources=message["sources"],
        **lists,
    )


def _case(case: Case, requests: dict[str, EditRequest]) -> dict[str, Any]:
    digests = [request.digest() for request in case.requests]
    requests.update(zip(digests, case.requests, strict=True))
    named = {name: getattr(case, name) for name in ("model", "editor", "stream", "control", "probed")}
    return {**named, "requests": digests, "schedule": case.schedule.as_json()}


def _planned(row: Mapping[str, Any], requests: Mapping[str, EditRequest]) -> Case:
    asked = tuple(requests[digest] for digest in row["requests"])
    return Case(**{**row, "requests": asked, "schedule": Schedule.from_json(row["schedule"])})
