"""Feedback: each student gets a page and a results.json with their own findings, and nothing of other students."""

import json
import re
import shutil
from pathlib import Path

import grade_runs
import pytest
from grading.copies import pairs
from grading.feedback import AGAIN, EXPLAIN, NORMAL, UNCHANGED, advice_for, folder_name, results, write_feedback
from grading.findings import Flag, problem, question
from grading.verify import NOT_RECOMPUTED
from pages.report import Entry
from pages_seen import Seen
from programs import ROOT, main, write_rows
from refusals import error_of

GOLDEN = ROOT / "tests/golden"


def make_entry(person="anna", name=None, flags=(), points=()):
    facts = {"state": "finished", "sample": f"a story by {person}"}
    return Entry(name or person, facts, list(flags), points=list(points), person=person)


def written(folder, entries):
    """Write the feedback, and return {student's folder: (text of the page, results.json)}."""
    write_feedback(entries, folder)
    found = {}
    for place in Path(folder).iterdir():
        page = Seen((place / "feedback.html").read_text(encoding="utf-8"))
        assert {path.name for path in place.iterdir()} == {"feedback.html", "results.json"}
        found[place.name] = "\n".join(page.texts), json.loads((place / "results.json").read_text(encoding="utf-8"))
    return found


# A class --------------------------------------------------------------------------------------------------------------

NAMES = ("zoe_quux", "milo_brandt", "tara_wynn", "otto_kepler")


@pytest.fixture(scope="module")
def feedback(tmp_path_factory):
    """Return the feedback on a run, a copy of it, its console log, and another run in two folders."""
    folder = tmp_path_factory.mktemp("class")
    shutil.copytree(GOLDEN / "story", folder / "in" / NAMES[0])
    shutil.copytree(GOLDEN / "story", folder / "in" / NAMES[1])
    (folder / "in" / NAMES[1] / "summary.json").unlink()
    shutil.copy(GOLDEN / "logs/finished.console.log", folder / "in" / f"{NAMES[2]}.log")
    for part in ("one", "two"):
        shutil.copytree(GOLDEN / "early", folder / "in" / NAMES[3] / f"{part}_of_otto")
    write_rows(folder / "held_by_me/train.jsonl", [{"text": f"Text {n}."} for n in range(9)])
    rubric = "[[criterion]]\nwhat = 'no problem found'\nfact = 'problems'\nbelow = 1\npoints = 30\n"
    (folder / "rubric.toml").write_text(rubric)
    flags = [folder / "in", "--rubric", folder / "rubric.toml", "--feedback", folder / "out", "--processes", 1]
    flags += ["--verify", "--dataset", folder / "held_by_me", "--cache_dir", folder / "cache"]
    main(grade_runs, *flags, "--tokenizer_path", GOLDEN / "bpe_tokenizer_tinystories.pkl")
    return folder / "out"


@pytest.mark.parametrize("name", NAMES)
def test_nothing_of_another_student_is_in_a_student_s_files(feedback, name):
    assert sorted(path.name for path in feedback.iterdir()) == sorted(NAMES)
    own_run = json.loads((GOLDEN / "early/summary.json").read_text())["run_id"]
    other_run = json.loads((GOLDEN / "story/summary.json").read_text())["run_id"]
    foreign = [other for other in NAMES if other != name]
    foreign += ["of_otto", own_run] if name != NAMES[3] else [other_run]
    foreign += ["held_by_me", str(feedback.parent)]  # the instructor's
    for path in (feedback / name).iterdir():
        text = path.read_text(encoding="utf-8")
        assert name in text
        for word in foreign:
            assert word not in text, path


def test_the_page_has_the_findings_with_what_to_do(feedback):
    text = "\n".join(Seen((feedback / NAMES[1] / "feedback.html").read_text(encoding="utf-8")).texts)
    assert f"Feedback for {NAMES[1]}" in text and "1 submission, 1 with problems" in text
    assert "summary.json was not handed in" in text and "Look for it in the output folder" in text
    assert "as other submissions: these are copies of one run" in text and EXPLAIN in text
    assert "the run was evaluated on other texts" in text and "What to do:" in text


def test_the_results_have_points_and_findings(feedback):
    found = json.loads((feedback / NAMES[2] / "results.json").read_text(encoding="utf-8"))
    first, *others = found["tests"]
    assert found["score"] == 0 and first == {
        "name": "no problem found", "score": 0, "max_score": 30, "status": "failed",
    }  # fmt: skip
    assert [test["name"] for test in others] == [f"{NAMES[2]}: problem"] * 2
    assert others[0]["output"].startswith("only a console log was handed in") and "What to do: " in others[0]["output"]
    found = json.loads((feedback / NAMES[3] / "results.json").read_text(encoding="utf-8"))
    assert found["score"] == 30 and found["tests"][0]["status"] == "passed"
    assert f"The points are those of {NAMES[3]}/one_of_otto." in found["output"]


# What to do -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("finding", "advice"),
    [
        ("not finished: the records end at step 12 of 30 (SIGTERM)", "Resume the run"),
        ("a pilot run, not a full run, according to args.json", "Start the run again without --pilot_run"),
        ("summary.json was not handed in", "Look for it in the output folder"),
        ("only a console log was handed in: there are no other records to compare it with", "Hand in the output"),
        ("the validation loss at step 4 is 1.2 in train.log but 1.3 in metrics.jsonl", UNCHANGED),
        ("summary.json: best_val_loss is missing, but metrics.jsonl gives 1.3", UNCHANGED),
        ("train.log is missing the validation loss of step 4, which metrics.jsonl has", UNCHANGED),
        ("best_model.pth records no validation loss at step 3, but metrics.jsonl has 1.3", UNCHANGED),
        ("train.log and metrics.jsonl have different run ids: they come from different runs", UNCHANGED),
        ("metrics.jsonl, step 4: the perplexity 3 is not e^loss (the loss is 2)", UNCHANGED),
        ("metrics.jsonl: the step field goes back from 4 to 0, with no resume in between", UNCHANGED),
        ("the log: the step field goes back from 4 to 2, with no resume in between: was the run resumed, and only its "
         "stdout saved?", NORMAL),
        ("the log: the time field goes back from 10 to 9, with no resume in between: was the computer's clock changed, "
         "for example at the end of summer time?", NORMAL),
        ("train.log does not contain the command that started the run", UNCHANGED),
        ("between step 1 and step 2, 3 s pass in the log, but 30 s in metrics.jsonl", UNCHANGED),
        ("9 tokens/s at step 2 is too fast: with this model, 1 x T4 can reach at most 3", UNCHANGED),
        ("the same run id as another submission: these are copies of one run", EXPLAIN),
        ("the same weights as another submission: the same seed on the same kind of machine does this; is that the "
         "reason?", EXPLAIN),
        ("best_model.pth comes from an evaluation at step 3 that is not in metrics.jsonl: was the run killed after it "
         "saved that model and before its next checkpoint?", NORMAL),
        (NOT_RECOMPUTED, "Add bpe_tokenizer_tinystories.pkl"),
        ("best_model.pth: the recomputed validation loss is 2.0, but the run claims 1.0", "Hand in best_model.pth"),
        ("anna.zip: damaged, truncated, or of another file type; the readable part was read", AGAIN),
        ("best_model.pth is damaged or not a model file of this course", AGAIN),
        ("metrics.jsonl ends in the middle of a line", AGAIN),
        ("no run found: it has neither the records nor the log of a run", AGAIN),
        ("cannot be read: the process that read it died; was it out of memory?", AGAIN),
        ("inner.zip: skipped (an archive inside the archive)", "Pack the output folder itself"),
        ("anna.zip: it contains more than 20,000 files; the rest was not read", "Hand in only the output folder"),
        ("its records have values that no run writes (TypeError)", UNCHANGED),
    ],
)  # fmt: skip
def test_each_finding_has_advice_that_fits(finding, advice):
    assert advice_for(finding).startswith(advice)


def test_a_finding_about_copies_counts_the_others_but_does_not_name_them():
    traces = {
        person: {"person": {person}, "run id": {"same"}, "timestamps": set(), "validation curve": set(),
                 "weights": {"w"}, "speeds": set()}
        for person in ("anna", "ben: these", "cy")
    }  # fmt: skip
    (flag,) = pairs(traces)["anna"]
    assert "ben: these, cy" in flag.text
    assert flag.for_student == "the same run id as other submissions: these are copies of one run"
    del traces["cy"]
    traces["anna"]["run id"] = set()
    (flag,) = pairs(traces)["anna"]
    assert flag.for_student.startswith("the same weights as another submission: the same seed")


# Files ----------------------------------------------------------------------------------------------------------------


def test_students_whose_names_look_alike_get_folders_of_their_own(tmp_path):
    names = [
        "Anna",
        "anna",
        "a/b",
        "a\\b",
        "..",
        "CON",
        "con.txt",
        "x" * 300,
        "x" * 301,
        "anna (2)",
        "Zoë",
        "Zoe\u0308",
    ]
    taken = set()
    folders = [folder_name(name, taken) for name in names]
    assert len({folder.casefold() for folder in folders}) == len(names) == len(taken)
    assert folders[:3] == ["Anna", "anna (2)", "a_b"] and folders[10] == "Zoë"
    for folder in folders:
        assert not re.search(r'[/\\:*?"<>|\0]', folder) and folder not in (".", "..", "con.txt", "CON")
        assert len(folder.encode()) < 250 and folder == folder.strip(" .")


def test_submissions_whose_names_differ_only_in_spaces_are_two_students(tmp_path):
    for name in ("a b", "a  b", "a b.log"):
        (tmp_path / name).mkdir()
    assert len(grade_runs.find(tmp_path)) == 3
    assert all("  " not in name for name in grade_runs.find(tmp_path))


def test_only_the_files_of_students_are_replaced(tmp_path):
    written(tmp_path, [make_entry(flags=[problem("one")])])
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "anna/comment.txt").write_text("mine")
    write_feedback([make_entry(flags=[problem("two")])], tmp_path)
    assert (tmp_path / "notes.txt").read_text() == (tmp_path / "anna/comment.txt").read_text() == "mine"
    page = (tmp_path / "anna/feedback.html").read_text(encoding="utf-8")
    assert "two" in page and "</b> <bdi>one" not in page


def test_a_name_or_finding_is_never_markup(tmp_path):
    bad = "<script>alert(1)</script>\u202e\x1b"
    ((_, found),) = written(tmp_path, [make_entry(bad, flags=[question(bad)])]).values()
    (place,) = tmp_path.iterdir()
    page = (place / "feedback.html").read_text(encoding="utf-8")
    assert Seen(page).elements.count("script") == 1 and "\u202e" not in page
    assert found["output_format"] == found["test_output_format"] == found["test_name_format"] == "text"
    assert "\u202e" not in found["tests"][0]["output"] and "\x1b" not in found["tests"][0]["name"]


def test_results_have_a_score_with_and_without_a_rubric():
    plain = results([make_entry(flags=[Flag("question", "is it?", fix="Look.")])])
    assert plain["score"] == 0
    assert plain["tests"] == [
        {"name": "anna: question", "score": 0, "max_score": 0, "output": "is it?\nWhat to do: Look."}
    ]
    low = make_entry(name="anna/one", points=[("a", 0, 10), ("b", 1, 1)])
    high = make_entry(name="anna/two", points=[("a", 10, 10), ("b", 0, 1)])
    found = results([low, high])
    assert found["score"] == 10 and found["output"].endswith("The points are those of anna/two.")
    assert [(test["score"], test["max_score"], test["status"]) for test in found["tests"]] == [
        (10, 10, "passed"), (0, 1, "failed"),
    ]  # fmt: skip


def test_a_folder_that_cannot_be_used_is_refused(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "file").touch()
    for name, said in (
        ("file", "is a file; name a folder"),
        ("in", "is in the folder of"),
        ("in/out", "is in the folder"),
    ):
        flags = [str(tmp_path / "in"), "--feedback", str(tmp_path / name)]
        assert said in error_of(grade_runs.parse_args, flags)
