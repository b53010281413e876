"""Second moments for an editor: from which texts, when made, where found."""

import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from editsafety import tensor_files
from editsafety.artifacts import ArtifactStore
from editsafety.editing import own_text
from editsafety.editing.covariance import collect, collect_rows
from editsafety.editing.moments import CorpusHparams, Mom2Hparams, SecondMoments, read_texts
from editsafety.edits.edit import Edit
from editsafety.edits.session import EditSession
from editsafety.errors import DataError, NotPreparedError, UsageError
from editsafety.model.handle import ModelHandle
from editsafety.model.loading import ModelSpec
from editsafety.progress import Progress
from tests import tiny


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "texts.txt"
    path.write_text("\n\n".join(tiny.SENTENCES), encoding="utf-8")
    return path


def moments(handle: ModelHandle, folder: Path, corpus: Path | str) -> SecondMoments:
    return SecondMoments(handle, ArtifactStore(folder / "store"), Mom2Hparams(mom2_corpus=str(corpus)))


def test_prepared_moments_are_those_of_the_users_texts(tmp_path: Path, corpus: Path) -> None:
    handle = tiny.handle("gpt2")
    sites = [handle.mlp_out(0), handle.mlp_out(1)]
    found = moments(handle, tmp_path, corpus)
    assert found.missing(sites) == f"the second moment of the input of {sites[0].module}, {sites[1].module}"
    found.prepare(sites)
    assert found.missing(sites) is None
    expected = collect(handle, sites, tiny.SENTENCES, 640)
    for site in sites:
        assert torch.equal(found.of(site, "rome").matrix, expected[site.module].matrix)


def test_what_one_process_prepared_another_finds(tmp_path: Path, corpus: Path) -> None:
    handle = tiny.handle("gpt2")
    moments(handle, tmp_path, corpus).prepare([handle.mlp_out(0)])
    assert moments(tiny.handle("gpt2"), tmp_path, corpus).missing([handle.mlp_out(0)]) is None


def test_another_text_in_the_same_file_is_another_corpus(tmp_path: Path, corpus: Path) -> None:
    handle = tiny.handle("gpt2")
    moments(handle, tmp_path, corpus).prepare([handle.mlp_out(0)])
    corpus.write_text(corpus.read_text() + "\nOne more sentence.")
    assert moments(handle, tmp_path, corpus).missing([handle.mlp_out(0)]) is not None


def test_asking_before_preparing_names_the_command(tmp_path: Path, corpus: Path) -> None:
    handle = tiny.handle("gpt2")
    with pytest.raises(NotPreparedError, match="editsafety prepare --model tiny-gpt2 --editor rome"):
        moments(handle, tmp_path, corpus).inverse(handle.mlp_out(0), "rome")


def test_a_model_without_texts_writes_some_itself_and_says_so_in_one_line(tmp_path: Path) -> None:
    handle, shown = tiny.handle("gpt2"), io.StringIO()
    found = moments(handle, tmp_path, "")
    sites = [handle.mlp_out(0), handle.mlp_out(2)]
    found.prepare(sites, Progress(shown))
    texts = own_text.write(tiny.handle("gpt2"), range(3))  # 640 tokens, ten for each of 64 dimensions, are three texts
    for site in sites:
        assert found.of(site, "rome").tokens == 720
        torch.testing.assert_close(
            found.of(site, "rome").matrix, collect_rows(handle, [site], texts)[site.module].matrix
        )
    lines = [line for line in shown.getvalue().splitlines() if "no texts were given" in line]
    assert lines == [
        f"tiny-gpt2: no texts were given for second moments of {sites[0].module}, {sites[1].module}, so the model "
        "writes 640 tokens itself, once; `editsafety prepare --corpus FILE` takes texts"
    ]
    assert found.origin(sites[0])["corpus"] == "text of the model itself, seed 0, recipe 1"


def test_what_the_user_prepared_comes_before_text_of_the_model_and_goes_when_that_is_asked_for(
    tmp_path: Path, corpus: Path
) -> None:
    handle = tiny.handle("gpt2")
    site = handle.mlp_out(1)

    def matrix() -> torch.Tensor:
        return moments(handle, tmp_path, "").of(site, "rome").matrix

    moments(handle, tmp_path, "").prepare([site])
    own = matrix()
    moments(handle, tmp_path, "").prepare([site], corpus=corpus)
    assert torch.equal(matrix(), collect(handle, [site], tiny.SENTENCES, 640)[site.module].matrix)
    moments(handle, tmp_path, "").prepare([site], corpus=Path("self"))
    assert torch.equal(matrix(), own)


def test_text_of_the_model_can_be_asked_for_by_name_on_a_model_that_has_others(tmp_path: Path) -> None:
    handle = tiny.handle("gpt2")
    handle.spec = ModelSpec("random:tiny")
    shown = io.StringIO()
    found = moments(handle, tmp_path, "self")
    found.prepare([handle.mlp_out(0)], Progress(shown))
    assert found.origin(handle.mlp_out(0))["corpus"] == "text of the model itself, seed 0, recipe 1"
    assert "no texts were given" not in shown.getvalue()


def test_an_artifact_says_what_it_was_made_from(tmp_path: Path, corpus: Path) -> None:
    handle = tiny.handle("gpt2")
    for given, said in ((None, "text of the model itself, seed 0, recipe 1"), (corpus, sha256(corpus))):
        moments(handle, tmp_path, "").prepare([handle.mlp_out(0)], corpus=given)
        notes = [tensor_files.load(path)[1]["notes"] for path in (tmp_path / "store").glob("covariance-*")]
        assert said in [note["texts"] for note in notes]
        assert all(note["tokens"] >= 240 for note in notes)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_random_model_reads_the_texts_of_the_small_world(tmp_path: Path) -> None:
    handle = tiny.handle("gpt2")
    handle.spec = ModelSpec("random:tiny")
    found = moments(handle, tmp_path, "")
    found.prepare([handle.mlp_out(0)])
    assert found.of(handle.mlp_out(0), "rome").tokens >= 640


def test_moments_are_never_made_from_an_edited_model(tmp_path: Path, corpus: Path) -> None:
    handle = tiny.handle("gpt2")
    with EditSession(handle) as session:
        session.apply(Edit("test", (), handle.identity, (tiny.low_rank(handle.mlp_out(0)),)))
        with pytest.raises(UsageError, match="carries an edit"):
            moments(handle, tmp_path, corpus).prepare([handle.mlp_out(1)])


def test_published_statistics_are_imported(tmp_path: Path) -> None:
    handle = tiny.handle("gpt2")
    site = handle.mlp_out(1)
    keys = np.random.default_rng(0).normal(size=(300, site.d_in)).astype(np.float32)
    folder = tmp_path / "stats"
    folder.mkdir()
    arrays = {"mom2.mom2": keys.T @ keys, "mom2.count": np.array(300)}
    np.savez(folder / f"{site.module}_float32_mom2_300.npz", **arrays)
    found = moments(handle, tmp_path, folder)
    assert found.missing([site]) is not None
    found.prepare([site])
    np.testing.assert_allclose(found.of(site, "rome").matrix.numpy(), keys.T @ keys / 300, rtol=1e-5)


def test_a_corpus_that_is_not_there_is_refused(tmp_path: Path) -> None:
    handle = tiny.handle("gpt2")
    with pytest.raises(UsageError, match=r"nowhere\.txt does not exist"):
        moments(handle, tmp_path, "nowhere.txt").missing([handle.mlp_out(0)])


def test_json_lines_give_their_field_text(tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text("\n".join(json.dumps({"text": text}) for text in ("one", "two\nlines")) + "\n")
    assert read_texts(path) == ["one", "two\nlines"]


@pytest.mark.parametrize(("line", "sentence"), [("{", "not a JSON object"), ('{"txt": "x"}', "needs a field 'text'")])
def test_a_bad_line_is_named_by_file_and_number(tmp_path: Path, line: str, sentence: str) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text('{"text": "good"}\n' + line)
    with pytest.raises(DataError, match=rf"texts.jsonl:2: {sentence}"):
        read_texts(path)


def test_every_ridge_has_a_factor_of_its_own_and_damping_is_in_all_of_them(tmp_path: Path, corpus: Path) -> None:
    handle = tiny.handle("gpt2")
    site = handle.mlp_out(0)
    settings = Mom2Hparams(mom2_corpus=str(corpus), mom2_damping=0.5)
    found = SecondMoments(handle, ArtifactStore(tmp_path / "store"), settings)
    found.prepare([site])
    plain = found.of(site, "memit").matrix.double()
    damped = plain + 0.5 * plain.diagonal().mean() * torch.eye(site.d_in)
    torch.testing.assert_close(found.matrix(site, "memit"), damped)
    eye = torch.eye(site.d_in, dtype=torch.float64)
    for ridge in (0.0, 2.0):
        solved = found.inverse(site, "memit", ridge).columns((damped + ridge * eye).float())
        torch.testing.assert_close(solved, eye, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "source"), [("pocket-neo", ""), ("random:some/folder", ""), ("gpt2", "self"), ("my-pocket-neo", "self")]
)
def test_only_models_of_the_small_world_have_texts_of_their_own(tmp_path: Path, name: str, source: str) -> None:
    handle = ModelHandle.of(tiny.model("gpt2"), tiny.tokenizer(), name=name)
    moments = SecondMoments(handle, ArtifactStore(tmp_path), CorpusHparams())
    assert moments._source() == source
    named = SecondMoments(handle, ArtifactStore(tmp_path), CorpusHparams(mom2_corpus="mine.txt"))
    assert named._source() == "mine.txt"
