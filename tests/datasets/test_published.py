"""The loaders on the published files themselves, where they are at hand; figures counted without the loaders."""

from __future__ import annotations

import collections
import json
from pathlib import Path

import pytest

from editsafety import datasets
from editsafety.datasets import fetch

PLACES = {
    "me_ppl_50": "me-ppl/ME-PPL_50.json",
    "me_ppl_1k": "me-ppl/ME-PPL_1k.json",
    "me_ppl_10k": "me-ppl/ME-PPL.json",
    "qaedit_1k": "qaedit/QAEdit_inter_1k.json",
    "zsre_3k": "zsre/zsre_3k.json",
    "wikibigedit_3k": "wikibigedit/wikibigedit_3k.json",
}


@pytest.mark.parametrize("name", fetch.SOURCES)
def test_the_pinned_checksums_are_those_of_the_files(name: str, shared_data: Path) -> None:
    path = shared_data / PLACES[name]
    assert fetch.digest(path) == fetch.SOURCES[name].sha256
    assert path.stat().st_size == fetch.SOURCES[name].size


def test_me_ppl_has_the_published_composition(shared_data: Path) -> None:
    path = shared_data / PLACES["me_ppl_10k"]
    texts = datasets.texts(f"me_ppl:{path}")
    corpora = collections.Counter(row["Corpus"] for row in json.loads(path.read_text()))
    assert corpora == {
        "OpenWebText": 5000, "C4": 2500, "Wikipedia": 1000, "cc_news": 700, "Roots": 500, "Gutenberg": 250,
        "BookCorpus": 50,
    }  # fmt: skip
    words = sorted(len(text.split()) for text in texts)
    assert (len(texts), len(set(texts))) == (10_000, 9_933)
    assert (words[0], words[5000], words[-1]) == (11, 20, 480)


def test_the_sizes_of_me_ppl_are_nested(shared_data: Path) -> None:
    small, middle, large = (
        set(datasets.texts(f"me_ppl:{shared_data / PLACES[name]}")) for name in ("me_ppl_50", "me_ppl_1k", "me_ppl_10k")
    )
    assert (len(small), len(middle)) == (50, 998)
    assert small < middle < large


def test_all_of_counterfact_is_read_in_the_flat_layout(shared_data: Path) -> None:
    path = shared_data / "counterfact" / "counterfact_all_21919_flat.json"
    requests = datasets.requests(f"counterfact:{path}")
    rows = json.loads(path.read_text())
    assert len(requests) == len({request.id for request in requests}) == 21_919
    assert [request.filled for request in requests] == [row["prompt"] for row in rows]
    assert all(len(request.rephrasings) == len(request.neighbours) == 1 for request in requests)
    by_id = {request.id: request for request in requests}
    listed = json.loads((path.parent / "single_gpt2_token_first_subject_case_ids.json").read_text())
    assert len(listed) == 79
    assert all(by_id[f"counterfact-{case}"].subject_first for case in listed)


def test_a_thousand_of_counterfact_are_read_in_the_original_layout(shared_data: Path) -> None:
    folder = shared_data / "counterfact"
    requests = datasets.requests(f"counterfact:{folder / 'counterfact_full_format_subset.json'}")
    assert len(requests) == 1000
    assert sum(len(request.rephrasings) for request in requests) == 2000
    flat = {
        request.id: request
        for request in datasets.requests(f"counterfact:{folder / 'counterfact_all_21919_flat.json'}")
    }
    for request in requests:
        twin = flat[request.id]
        assert (request.filled, request.target_new, request.target_true) == (
            twin.filled,
            twin.target_new,
            twin.target_true,
        )


def test_zsre_and_wikibigedit_and_qaedit_are_read_whole(shared_data: Path) -> None:
    zsre = datasets.requests(f"zsre:{shared_data / PLACES['zsre_3k']}")
    wiki = datasets.requests(f"wikibigedit:{shared_data / PLACES['wikibigedit_3k']}")
    qaedit = datasets.requests(f"qaedit:{shared_data / PLACES['qaedit_1k']}")
    assert (len(zsre), len(wiki), len(qaedit)) == (3000, 3000, 1000)
    assert zsre[0].prompt == "Which river system contains {}?"
    assert all(request.target_new == request.target_new.strip() for request in (*zsre, *wiki, *qaedit))
    assert {len(request.neighbours) for request in qaedit} == {5}
