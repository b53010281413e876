"""The HTML page of a report, and how a test reads it."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

from editsafety import reporting
from editsafety.judging.report import RunReport
from editsafety.reporting import ReportPlace

PLACE = ReportPlace("suites", Path("reports/a-run"), 41.2)


CLOSED_BY_THEMSELVES = {"meta", "path", "circle", "rect", "input"}


def page(report: RunReport) -> str:
    return reporting.load("html")(report, PLACE)


class Read(HTMLParser):
    """Every element in order with its attributes, and the text inside of those that are asked for."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.inside: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[list[str], str]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in CLOSED_BY_THEMSELVES:
            self.inside.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in CLOSED_BY_THEMSELVES:
            assert self.inside.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        names = [tag for tag, _ in self.inside]
        names += [f".{look}" for _, known in self.inside for look in (known.get("class") or "").split()]
        self.texts.append(([*names, *(f"#{known['id']}" for _, known in self.inside if "id" in known)], data))

    def text(self, of: str) -> str:
        """What stands inside of all elements of a `tag`, `.class` or `#id`."""
        return " ".join(" ".join(data for inside, data in self.texts if of in inside).split())

    def every(self, tag: str, look: str = "") -> list[dict[str, str | None]]:
        found = [known for name, known in self.elements if name == tag]
        return [known for known in found if not look or look in (known.get("class") or "").split()]


def embedded(text: str) -> dict[str, object]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found
    body: dict[str, object] = json.loads(found[1])
    return body


def points(path: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"[ML]([\d.]+) ([\d.]+)", path)]
