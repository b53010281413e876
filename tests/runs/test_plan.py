"""RunPlan: which cases a run has, from options and data alone; the same options, the same cases with the same names."""

from dataclasses import replace
from pathlib import Path

import pytest

from editsafety.datasets.reading import Sifted
from editsafety.errors import UsageError
from editsafety.names import label, slug
from editsafety.runs import plan as module
from editsafety.runs.facts import Wanted
from editsafety.runs.plan import RunPlan, courses_of, spread, streams, text_source
from editsafety.runs.probes import FAMILIES
from editsafety.runs.schedule import Schedule
from editsafety.runs.settings import Settings
from tests import builders

ROWS = {
    "h": tuple(builders.request("hard", i) for i in range(5)),
    "n": tuple(builders.request("normal", i) for i in range(4)),
}


@pytest.fixture(autouse=True)
def data(monkeypatch, tmp_path):
    """Two data sets, `h` and `n`, and texts."""
    rows = dict(ROWS)
    texts = {"t": ["One text.", "Another text."]}
    monkeypatch.setattr(
        module.datasets, "read_requests", lambda spec, limit=None, **_: Sifted(tuple(rows[spec][:limit]))
    )
    monkeypatch.setattr(module.hyperparameters, "find", lambda folder, slug: tmp_path / "gpt2-xl.yaml")
    monkeypatch.setattr(module.datasets, "texts", lambda spec, limit=None, **_: tuple(texts[spec][:limit]))
    return {"rows": rows, "texts": texts}


def settings(**more):
    given = {"models": ("m",), "editors": ("rome", "ft"), "hard": "h", "normal": "n", "texts_from": "t"}
    return Settings(**{**given, **more})


def test_every_editor_gets_every_request_of_every_stream_and_ids_never_change():
    plan = RunPlan.of(settings())
    ids = [case.id for case in plan.cases]
    assert len(ids) == 2 * (5 + 4)
    assert ids[:6] == [*(f"m-rome-hardcf-{i:04d}" for i in range(5)), "m-rome-normal-0000"]
    assert ids == [case.id for case in RunPlan.of(settings()).cases]
    assert [case.id for case in plan.cases if case.block == ("m", "rome") and case.stream == "hard"] == sorted(ids)[
        9:14
    ]
    assert plan.blocks == (("m", "rome"), ("m", "ft"))


def test_every_editor_gets_a_course_along_every_schedule_over_the_first_requests_of_every_stream():
    plan = RunPlan.of(settings(edits=3, every=2, size=(3, 1, 2)))
    assert [case.id for case in plan.courses[:4]] == [
        "m-rome-hard-sequential", "m-rome-hard-batch", "m-rome-hard-batch-sequential", "m-rome-normal-sequential",
    ]  # fmt: skip
    assert len(plan.courses) == 2 * 2 * 3
    assert {case.requests for case in plan.courses} == {ROWS["h"][:3], ROWS["n"][:3]}
    assert [case.schedule for case in plan.courses[:3]] == [
        Schedule("sequential", every=2), Schedule("batch", (3, 1, 2)), Schedule("batch-sequential", (2,), every=2),
    ]  # fmt: skip
    assert plan.every == (*plan.cases, *plan.controls, *plan.courses)
    assert plan.case("m-ft-normal-batch").is_course


def test_batches_on_top_of_each_other_have_the_only_size_or_the_second_and_are_measured_when_one_is_done():
    def batches(**more):
        return list(courses_of(settings(**more), "m", "rome", "hard", ROWS["h"]))[-1].schedule

    assert batches(size=(50,), every=10) == Schedule("batch-sequential", (50,), every=50)
    assert batches(size=(1, 10, 50), every=20) == Schedule("batch-sequential", (10,), every=20)
    assert list(courses_of(settings(), "m", "rome", "hard", ())) == []


def test_abilities_after_single_edits_are_measured_on_a_few_of_each_editor_and_stream_from_all_over():
    plan = RunPlan.of(settings(singles=2))
    assert [case.id for case in plan.spread()] == [
        "m-rome-hardcf-0000", "m-rome-hardcf-0002", "m-rome-normal-0000", "m-rome-normal-0002",
        "m-ft-hardcf-0000", "m-ft-hardcf-0002", "m-ft-normal-0000", "m-ft-normal-0002",
    ]  # fmt: skip
    assert RunPlan.of(settings(singles=99)).spread() == list(plan.cases)


@pytest.mark.parametrize(
    ("rows", "most", "found"),
    [("abcdef", 3, "ace"), ("abcdefg", 3, "ace"), ("abc", 9, "abc"), ("", 3, ""), ("ab", 0, "")],
)
def test_a_few_rows_are_taken_evenly_from_all_over(rows, most, found):
    assert "".join(spread(rows, most)) == found


def test_a_session_is_about_the_cases_that_were_selected_in_plan_order_probed_where_that_was_asked():
    plan = RunPlan.of(settings())
    asked = Wanted(("m-rome-hard-batch", "m-ft-normal-0001", "m-rome-hardcf-0003", "gone"), ("m-ft-normal-0001",))
    found = plan.wanted(asked)
    assert [(case.id, case.probed) for case in found] == [
        ("m-rome-hardcf-0003", False), ("m-ft-normal-0001", True), ("m-rome-hard-batch", False),
    ]  # fmt: skip
    assert plan.wanted(Wanted()) == []


def test_the_abilities_are_those_asked_for_else_those_made_for_the_model():
    def probes(model, *asked):
        return builders.plan([], probe=asked).probes(model)

    assert probes("pocket-neo")[0] == "pocket-world/abilities/reasoning"
    assert len(probes("pocket-neo")) == 8
    assert probes("gpt2-xl") == ()
    assert probes("gpt2-xl", "gsm8k") == probes("pocket-neo", "gsm8k") == ("gsm8k",)
    assert probes("gpt2-xl", "gsm8k", "english") == (
        "gsm8k", *(f"english/abilities/{name}" for name in FAMILIES),
    )  # fmt: skip
    assert probes("pocket-neo", "none") == ()
    assert probes("pocket-neo", "nli", "mine.jsonl") == ("pocket-world/abilities/nli", "mine.jsonl")
    assert probes("gpt2-xl", "nli", "rte:nli") == ("english/abilities/nli", "rte:nli")
    assert probes("gpt2-xl", "pocket-world/abilities/lambada") == ("pocket-world/abilities/lambada",)
    with pytest.raises(UsageError, match="asks about pocket-world, which gpt2-xl knows nothing of"):
        probes("org/gpt2-xl", "lambada")


def test_names_given_twice_count_once():
    assert RunPlan.of(settings(editors=("rome", "ft", "rome"), models=("m", "m"))).cases == RunPlan.of(settings()).cases


def test_controls_are_the_first_hard_requests_and_noop_needs_one():
    plan = RunPlan.of(settings(controls=2))
    found = [(case.editor, case.control, case.request.id) for case in plan.controls]
    assert found == [
        ("rome", "COLLAPSE", "hardcf-0000"), ("rome", "COLLAPSE", "hardcf-0001"),
        ("c_rome", "PASS", "hardcf-0000"), ("c_rome", "PASS", "hardcf-0001"), ("noop", "NO-OP", "hardcf-0000"),
    ]  # fmt: skip


def test_without_hard_requests_there_are_no_controls():
    assert RunPlan.of(settings(hard="")).controls == ()


def test_what_rome_comes_to_on_a_model_that_nobody_knows_is_tried_and_not_demanded(monkeypatch, tmp_path):
    file = tmp_path / "rome.yaml"
    monkeypatch.setattr(module.hyperparameters, "find", lambda _, slug: file if slug == "pocket-neo" else None)
    known, unknown = (RunPlan.of(settings(models=(model,))).controls for model in ("pocket-neo", "some/new-model"))
    assert (
        [case.editor for case in unknown] == [case.editor for case in known] == [*["rome"] * 3, *["c_rome"] * 3, "noop"]
    )
    assert [case.tentative for case in known] == [False] * 7
    assert [case.tentative for case in unknown] == [True] * 6 + [False]  # what changes nothing changes nothing anywhere


@pytest.mark.parametrize(("file", "known"), [("gpt2-xl.yaml", True), ("smollm2-135m.yaml", False), (None, False)])
def test_numbers_that_were_found_by_calibration_do_not_tell_what_rome_does_to_a_model(monkeypatch, file, known):
    found = None if file is None else Path(file)
    monkeypatch.setattr(module.hyperparameters, "find", lambda folder, slug: found)
    assert module.is_known("some/model") is known


def test_a_control_and_a_case_of_the_same_editor_and_request_are_one_result():
    plan = RunPlan.of(settings())
    assert plan.controls[0].id == plan.cases[0].id


def test_an_editor_that_takes_the_name_of_a_control_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("class rome: ...")
    with pytest.raises(UsageError, match=r"two cases are called m-rome-hardcf-0000: mine.py:rome on m and rome on m"):
        RunPlan.of(settings(editors=("mine.py:rome",)))


def test_two_requests_with_one_name_are_refused_with_both_places(data):
    twin = replace(ROWS["h"][0], source="other.jsonl:9")
    data["rows"]["n"] = (twin,)
    with pytest.raises(UsageError, match=r"two cases are called m-rome-hardcf-0000: hardcf.jsonl:1 and other.jsonl:9"):
        RunPlan.of(settings())


def test_a_request_that_is_given_as_hard_and_as_normal_is_refused_as_that(data):
    data["rows"]["n"] = (ROWS["h"][0],)
    said = "two cases are called m-rome-hardcf-0000: hardcf.jsonl:1 as hard and hardcf.jsonl:1 as normal"
    with pytest.raises(UsageError, match=said):
        RunPlan.of(settings())


def test_two_models_with_one_short_name_are_refused():
    with pytest.raises(
        UsageError, match="two cases are called gpt2-rome-hardcf-0000: rome on a/gpt2 and rome on b/gpt2"
    ):
        RunPlan.of(settings(models=("a/gpt2", "b/gpt2")))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"models": ()}, "no model was given"),
        ({"editors": ()}, "no editor was given"),
        ({"known": True, "all_facts": True}, "--known and --all-facts were both given"),
        ({"hparams": ("memit=x.yaml",)}, "no editor 'memit' in this run"),
        ({"hparams": ("nowhere.yaml",)}, "there is no such file"),
    ],
)
def test_what_cannot_be_meant_is_refused(more, said):
    with pytest.raises(UsageError, match=said):
        RunPlan.of(settings(**more))


def test_hyperparameters_are_found_for_all_for_one_and_by_class(tmp_path):
    path = tmp_path / "h.yaml"
    path.write_text("lr: 1")
    assert settings(hparams=(str(path),)).hparams_of("ft") == path
    assert settings(hparams=(f"rome={path}",)).hparams_of("rome") == path
    assert settings(hparams=(f"rome={path}",)).hparams_of("ft") is None
    assert settings(hparams=(str(path),)).hparams_of("c_rome") is None
    assert settings(hparams=(f"Mine={path}",)).hparams_of("some/file.py:Mine") == path


def test_the_digest_changes_with_all_that_is_run(tmp_path, data):
    editor, hparams = tmp_path / "mine.py", tmp_path / "h.yaml"
    editor.write_text("class Mine: ...")
    hparams.write_text("lr: 1")
    given = settings(editors=(f"{editor}:Mine",), hparams=(f"Mine={hparams}",))
    digests = [RunPlan.of(given).digest()]
    assert RunPlan.of(given).digest() == digests[0]
    digests.append(RunPlan.of(replace(given, seed=1)).digest())
    digests.append(RunPlan.of(replace(given, limit=3)).digest())
    editor.write_text("class Mine: pass")
    digests.append(RunPlan.of(given).digest())
    hparams.write_text("lr: 2")
    digests.append(RunPlan.of(given).digest())
    data["rows"]["h"] = (replace(ROWS["h"][0], target_new="guard"), *ROWS["h"][1:])
    digests.append(RunPlan.of(given).digest())
    data["texts"]["t"][1] = "Another text!"
    digests.append(RunPlan.of(given).digest())
    assert len(set(digests)) == len(digests)


@pytest.mark.parametrize(
    ("model", "short"),
    [
        ("pocket-neo", "pocket-neo"), ("openai-community/gpt2-xl", "gpt2-xl"), ("random:gpt2-xl", "gpt2-xl"),
        ("some/folder/", "folder"), ("EleutherAI/gpt-j-6B", "gpt-j-6b"), ("my model (1)", "my-model-1"),
        ("..", "model"), ("a/..", "model"), ("a::set-env", "a-set-env"),
    ],
)  # fmt: skip
def test_a_model_s_short_name_fits_into_ids_and_file_names(model, short):
    assert slug(model) == short


def test_an_editor_s_short_name_is_its_class_or_its_name():
    assert [label("rome"), label("a/b.py:Mine")] == ["rome", "Mine"]


def test_what_ships_is_taken_where_no_data_is_named():
    bare = Settings(models=(), editors=())
    assert streams(bare, "pocket-unheard-of") == {"hard": "pocket-neo/hardcf", "normal": "pocket-world/normal"}
    assert streams(bare, "random:gpt2") == {"hard": "", "normal": "pocket-world/normal"}
    for model in ("meta-llama/Llama-2-7b-hf", "gpt2-xl", "./my-gpt-neo", "in-memory"):
        assert streams(bare, model) == {"hard": "hardedit", "normal": "english/normal"}
    assert streams(settings(hard=""), "gpt2-xl") == {"hard": "", "normal": "n"}, "who gives requests gets no others"
    assert streams(settings(hard=""), "pocket-neo") == {"hard": "", "normal": "n"}


def test_perplexity_is_measured_on_the_english_texts_unless_the_model_is_a_pocket_one_or_others_are_given():
    bare = Settings(models=(), editors=())
    assert [text_source(bare, m) for m in ("pocket-neo", "random:gpt2", "gpt2-xl", "./a/folder")] == [
        "pocket-world/texts", "english/texts", "english/texts", "english/texts",
    ]  # fmt: skip
    assert text_source(settings(), "gpt2-xl") == "t"
    assert text_source(replace(bare, texts_from="me_ppl_50"), "pocket-neo") == "me_ppl_50"


def test_hard_cases_that_ship_for_a_model_are_found(tmp_path, monkeypatch):
    (tmp_path / "pocket-x").mkdir()
    (tmp_path / "pocket-x" / "hardcf.jsonl").write_text("")
    monkeypatch.setattr(module, "shipped", lambda room: tmp_path)
    assert streams(Settings(models=(), editors=()), "pocket-x")["hard"] == "pocket-x/hardcf"


def test_a_case_is_found_by_its_id():
    plan = RunPlan.of(settings())
    assert plan.case("m-ft-normal-0003").editor == "ft"
    with pytest.raises(KeyError, match="m-ft-normal-9999"):
        plan.case("m-ft-normal-9999")


def test_what_a_report_says_about_a_plan_is_plain_values():
    about = RunPlan.of(settings()).about()
    assert about["data"] == {"m hard": "h", "m normal": "n", "m texts": "t"}
    assert about["settings"]["editors"] == ("rome", "ft")


def test_a_device_map_counts_by_what_it_says_and_not_by_the_file_that_it_is_in(tmp_path, data):
    def digest(device_map):
        return RunPlan.of(settings(device_map=device_map)).digest()

    one, other = tmp_path / "one.json", tmp_path / "other.json"
    one.write_text('{"": "cpu"}')
    other.write_text('{"": "cpu"}')
    first = digest(str(one))
    assert digest(str(other)) == digest('{"": "cpu"}') == first
    other.write_text('{"": 0}')
    assert len({first, digest(str(other)), digest("auto"), digest(None)}) == 4
    assert digest('{"a": "cpu", ' + ", ".join(f'"layer {i}": 0' for i in range(100)) + "}") != first  # no file's name


def test_the_digest_is_that_of_every_case_by_itself_however_many_share_a_request():
    """Against each case asked alone, as plans of older runs were."""
    plan = RunPlan.of(settings(known=False))
    alone = {case.id: case.digest() for case in plan.every}
    assert dict(plan.digests) == {case.id: alone[case.id] for case in plan.cases}
    assert dict(plan._digests_of(plan.every)) == alone
    assert len({*alone.values()}) == len({(case.schedule, case.requests) for case in plan.every})


def test_an_expression_is_a_case_like_any_other_and_its_files_belong_to_the_digest(tmp_path):
    place, numbers = tmp_path / "mine.py", tmp_path / "h.yaml"
    place.write_text("class Mine: ...")
    numbers.write_text("rect_keep: 1")
    given = settings(editors=(f"rect({place}:Mine)",), hparams=(f"{place}:Mine={numbers}",), limit=1)
    with pytest.raises(UsageError, match="no editor"):
        RunPlan.of(given)
    given = replace(given, hparams=(f"rect(Mine)={numbers}",))
    plan = RunPlan.of(given)
    assert [case.id for case in plan.cases] == ["m-rect.Mine-hardcf-0000", "m-rect.Mine-normal-0000"]
    assert given.hparams_of(given.editors[0]) == numbers
    digests = [plan.digest()]
    place.write_text("class Mine: pass")
    digests.append(RunPlan.of(given).digest())
    given = replace(given, hparams=(f"rect({place}:Mine)={numbers}",))
    assert given.hparams_of(given.editors[0]) == numbers
    digests.append(RunPlan.of(given).digest())
    numbers.write_text("rect_keep: 0.2")
    digests.append(RunPlan.of(given).digest())
    assert len(set(digests)) == len(digests)


def test_names_of_editors_that_cannot_be_meant_are_refused_before_any_data_is_read():
    for editor, said in (
        ("rect", r"as in rect\(memit\)"),
        ("rekt(ft)", "did you mean 'rect'"),
        ("rect(ft", "not closed"),
    ):
        with pytest.raises(UsageError, match=said):
            RunPlan.of(settings(editors=(editor,)))
