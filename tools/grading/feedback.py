"""Feedback for each student: a page, and a results.json for Gradescope, with nothing of other students.

    feedback/anna/feedback.html     # the report of anna's runs, with what to do about each finding
    feedback/anna/results.json      # the same findings, and the points of the rubric

In reading order: `ADVICE`; `write_feedback`; `folder_name`, the name of a student's folder; `results`, for Gradescope.
"""

import re
import unicodedata
from dataclasses import replace
from pathlib import Path

from pages.report import Entry, cut, write_report

from common.files import write_json
from grading.findings import Flag
from grading.leaderboard import runs_by_person

AGAIN = "Hand in the output folder again as a .zip or .tar.gz, and check first that it opens and holds all its files."
UNCHANGED = (
    "Hand in all files of one run, as the program wrote them. If you no longer have them, tell your instructor what "
    "happened to them."
)
EXPLAIN = "Tell your instructor how the files came about, and who worked on them."
NORMAL = "If it happened as the question says, this is normal: tell your instructor."
ADVICE = {  # {words in a finding: what to do}; the first that match count
    "^not finished": "Resume the run with --resume_from_checkpoint latest, and hand in the folder when it has ended.",
    "^a pilot run": "Start the run again without --pilot_run, into another --output_dir.",
    "^only a console log": "Hand in the output folder of the run, too, not only its log.",
    "these are copies of one run|does this; is that the reason": EXPLAIN,
    "recomputed validation loss": "Hand in best_model.pth and bpe_tokenizer_tinystories.pkl again, unchanged.",
    "does not fit the course's model.py": EXPLAIN,
    "could not be recomputed": "Add bpe_tokenizer_tinystories.pkl to the folder; use the --dataset of the assignment.",
    "was the run killed|was the run resumed|was the computer's clock": NORMAL,
    "not handed in": "Look for it in the output folder of the run, and hand in the whole folder, without checkpoints.",
    "skipped \\(": "Pack the output folder itself, without links, other archives, or two files with one name.",
    "contains more than|is larger than": "Hand in only the output folder of the run, without checkpoints.",
    "damaged|cannot be (read|used)|is empty|not a (model|weights) file|in the middle of a line|no run found": AGAIN,
    "": UNCHANGED,
}  # fmt: skip


def advice_for(text: str) -> str:
    """Return what to do about a finding with this text."""
    return next(advice for words, advice in ADVICE.items() if re.search(words, text))


def write_feedback(entries: list[Entry], folder: str | Path) -> None:
    """Write the files of all students, each into a folder of its own; other files in the folder stay."""
    taken = set()
    for person, runs in runs_by_person(entries).items():
        place = Path(folder) / folder_name(person, taken)
        place.mkdir(parents=True, exist_ok=True)
        own = [for_student(entry) for entry in runs]
        write_report(own, place / "feedback.html", f"Feedback for {person}")
        write_json(place / "results.json", results(own))


def for_student(entry: Entry) -> Entry:
    """Return an entry whose findings name no other student, and have advice."""
    flags = []
    for flag in entry.flags:
        text = flag.for_student or flag.text
        flags.append(Flag(flag.kind, text, fix=advice_for(text)))
    return replace(entry, flags=flags)


# Folders --------------------------------------------------------------------------------------------------------------

RESERVED = re.compile(r"(con|prn|aux|nul|(com|lpt)[0-9¹²³])(\..*)?", re.IGNORECASE)  # names of devices on Windows
LONGEST_NAME = 60  # characters, of at most 4 bytes each; a file system takes 255 bytes


def folder_name(person: str, taken: set[str]) -> str:
    """Return the name of a student's folder, which every file system accepts, and add it to taken.

    No two students get the same folder, even where upper and lower case are the same.
    """
    plain = unicodedata.normalize("NFC", person)
    name = re.sub(r"[^\w .@+()-]", "_", plain)[:LONGEST_NAME].strip(" .") or "_"
    if RESERVED.fullmatch(name):
        name = f"_{name}"
    free = name
    number = 2
    while free.casefold() in taken:
        free = f"{name} ({number})"
        number += 1
    taken.add(free.casefold())
    return free


# Gradescope -----------------------------------------------------------------------------------------------------------


def results(runs: list[Entry]) -> dict:
    """Return the results.json of a student: the points of the run that has the most, and the findings of all runs.

    The form is that of Gradescope's autograder.  A finding is a test that gives no points.
    """
    best = max(runs, key=lambda entry: entry.total[1])
    tests = []
    for what, got, of in best.points:
        test = {"name": what, "score": got, "max_score": of, "status": "passed" if got >= of else "failed"}
        tests.append(test)
    for entry in runs:
        for flag in entry.flags:
            text = f"{cut(flag.text, 1000)}\nWhat to do: {flag.fix}"
            test = {"name": f"{cut(entry.name, 100)}: {flag.kind}", "score": 0, "max_score": 0, "output": text}
            if flag.kind == "problem":
                test["status"] = "failed"
            tests.append(test)
    return {
        "score": best.total[1],
        "output": summary(runs, best),
        "output_format": "text",
        "test_name_format": "text",
        "test_output_format": "text",
        "tests": tests,
    }


def summary(runs: list[Entry], best: Entry) -> str:
    problems = sum(entry.problems for entry in runs)
    questions = sum(entry.questions for entry in runs)
    text = f"Problems: {problems:,}. Questions: {questions:,}."
    if best.points and len(runs) > 1:
        text += f" The points are those of {cut(best.name, 100)}."
    return text
