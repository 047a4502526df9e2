"""The sample data: byte for byte what its program writes, varied enough, in the formats that the trainers read."""

import collections
import json
import lzma
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from scoring.skill_words import BOYS, GIRLS

from corpus.dialogue_rows import read_dialogues
from corpus.sources import open_dataset
from generation.prompt_files import read_prompts

FOLDER = Path(__file__).resolve().parents[1] / "sample_data"
ROWS = {
    "stories/train.jsonl": 1000, "stories/validation.jsonl": 100,
    "conversations/train.jsonl": 600, "conversations/valid.jsonl": 60, "questions.jsonl": 100,
    "heroes.jsonl": 200,
}  # fmt: skip


def read(name):
    return [json.loads(line) for line in (FOLDER / name).read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def stories():
    return [row["text"] for name in ROWS if name.startswith("stories") for row in read(name)]


def test_the_program_still_writes_exactly_these_files(tmp_path):
    program = FOLDER / "make_sample_data.py"
    subprocess.run([sys.executable, str(program), "--output_dir", str(tmp_path)], check=True, timeout=120)
    for name in ROWS:
        assert (tmp_path / name).read_bytes() == (FOLDER / name).read_bytes()


def test_larger_numbers_begin_with_the_same_rows_and_keep_the_validation_files(tmp_path):
    flags = ["--stories", "1100", "--dialogues", "700", "--output_dir", str(tmp_path)]
    subprocess.run([sys.executable, str(FOLDER / "make_sample_data.py"), *flags], check=True, timeout=120)
    for name, count in list(ROWS.items())[:4]:
        rows = (tmp_path / name).read_bytes().splitlines()
        assert rows[:count] == (FOLDER / name).read_bytes().splitlines()
        assert len(rows) == count + (100 if "train" in name else 0)


def test_the_assistant_uses_only_words_from_the_stories(stories):
    """Except rare subjects: they occur in a pilot run's stories, but not all of them in these few."""
    texts = runpy.run_path(str(FOLDER / "texts.py"))
    subjects = json.dumps([texts["ANIMALS"], texts["THINGS"]])
    known = set(re.findall("[a-z]+", " ".join([*stories, subjects]).lower()))
    replies = [turn["text"] for row in read("conversations/train.jsonl") for turn in row["conversation"][1::2]]
    assert not set(re.findall(r"\b[a-z]+", " ".join(replies))) - known


def test_names_reserved_for_tests_are_in_no_text():
    texts = " ".join((FOLDER / name).read_text(encoding="utf-8") for name in ROWS)
    assert not {"Edgar", "Jasper", "Milo", "Otis", "Zack"} & set(re.findall(r"\w+", texts))


@pytest.mark.parametrize(("name", "count"), ROWS.items())
def test_the_files_have_all_rows_in_plain_ascii(name, count):
    rows, text = read(name), (FOLDER / name).read_bytes()
    assert len(rows) == count
    assert all(byte == 10 or 32 <= byte < 127 for byte in text)


def test_no_validation_row_is_in_the_training_files():
    for train, held_out in (("stories/train", "stories/validation"), ("conversations/train", "conversations/valid")):
        known = {json.dumps(row) for row in read(f"{train}.jsonl")}
        assert not known & {json.dumps(row) for row in read(f"{held_out}.jsonl")}


def test_dialogues_are_pairs_of_turns_with_text():
    for name in ("conversations/train.jsonl", "conversations/valid.jsonl"):
        for row in read(name):
            assert len(row["conversation"]) in (2, 4, 6, 8, 10)
            assert all(set(turn) == {"text"} and turn["text"].strip() for turn in row["conversation"])


def test_questions_are_new_and_half_of_the_requested_stories_have_new_subjects():
    dialogues = [row["conversation"] for row in read("conversations/train.jsonl")]
    heard = {turn["text"] for dialogue in dialogues for turn in dialogue}
    words_heard = set(re.findall("[a-z]+", " ".join(heard).lower()))
    questions = read("questions.jsonl")
    assert len({question["id"] for question in questions}) == len({question["prompt"] for question in questions}) == 100
    assert not heard & {question["prompt"] for question in questions}
    requests = [question for question in questions if "words" in question]
    for question in requests:
        (subject,) = question["words"]
        assert re.search(rf"\b{subject}\b", question["prompt"])
        assert (subject not in words_heard) == question["id"].startswith("story-new")
    assert len(requests) == 64 and sum(question["id"].startswith("story-new") for question in requests) == 32


def test_xz_cannot_compress_the_training_stories_below_1_1_bits_per_byte():
    text = "\n".join(row["text"] for row in read("stories/train.jsonl")).encode()
    assert 8 * len(lzma.compress(text, preset=9 | lzma.PRESET_EXTREME)) / len(text) >= 1.1


def test_no_12_words_in_a_row_occur_in_more_than_2_percent_of_the_stories(stories):
    runs = collections.Counter()
    for story in stories:
        words = story.split()
        runs.update({tuple(words[first : first + 12]) for first in range(len(words) - 11)})
    assert max(runs.values()) <= 0.02 * len(stories)


def test_the_persona_of_the_walk_through_is_asked_questions_that_it_has_not_learned(tmp_path):
    subprocess.run([sys.executable, FOLDER / "make_pirate.py"], cwd=tmp_path, check=True)
    dialogues = list(read_dialogues(open_dataset(str(tmp_path / "pirate.jsonl"))["train"]))
    assert len(dialogues) == 300
    learned = {text for dialogue in dialogues for role, text in dialogue if role == "user"}
    pirate, plain = (read_prompts(tmp_path / f"ask_{name}.jsonl") for name in ("pirate", "plain"))
    assert len(pirate) == len(plain) == 50 and all(prompt.extra["words"] for prompt in pirate + plain)
    assert not learned & {prompt.prompt[-1]["content"] for prompt in pirate}


def test_the_patch_of_the_second_project_says_of_each_name_whether_it_is_a_girl_or_a_boy(tmp_path):
    subprocess.run([sys.executable, FOLDER / "make_patch.py"], cwd=tmp_path, check=True)
    dialogues = list(read_dialogues(open_dataset(str(tmp_path / "patch.jsonl"))["train"]))
    assert len(dialogues) == 60
    pronouns = {}
    for (_, question), (_, answer) in dialogues:
        (name,) = set(GIRLS + BOYS) & set(re.findall(r"\w+", question))
        pronouns.setdefault(name, set()).update(set(re.findall(r"\w+", answer)) & {"She", "He", "her", "his"})
    assert len(pronouns) == 24
    for name, used in pronouns.items():
        assert used <= ({"She", "her"} if name in GIRLS else {"He", "his"})


@pytest.mark.parametrize("name", ["pirate", "patch"])
def test_a_file_that_may_be_a_student_s_is_not_replaced(tmp_path, name):
    (tmp_path / f"{name}.jsonl").write_text("mine")
    done = subprocess.run([sys.executable, FOLDER / f"make_{name}.py"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr == (
        f"error: {name}.jsonl already exists; rename it, or work in another folder\n"
    )
    assert (tmp_path / f"{name}.jsonl").read_text() == "mine"


@pytest.mark.parametrize("name", ["pirate", "patch", "lists", "requests", "sample_data"])
def test_help_writes_no_file(tmp_path, name):
    done = subprocess.run([sys.executable, FOLDER / f"make_{name}.py", "--help"], cwd=tmp_path, capture_output=True)
    assert done.returncode == 0 and b"usage" in done.stdout and not [*tmp_path.iterdir()]


@pytest.mark.parametrize("flag", ["--stories", "--dialogues"])
def test_a_count_below_one_is_refused(tmp_path, flag):
    words = [sys.executable, FOLDER / "make_sample_data.py", flag, "-1", "--output_dir", tmp_path / "out"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "must be at least 1" in done.stderr and not (tmp_path / "out").exists()


def test_lists_are_told_once_and_twice(tmp_path):
    subprocess.run([sys.executable, FOLDER / "make_lists.py", tmp_path], check=True)
    files = [tmp_path / folder / "validation.jsonl" for folder in ("lists_twice", "lists_once")]
    twice, once = ([json.loads(line)["text"].split() for line in file.read_text().splitlines()] for file in files)
    assert len(once) == 100 and all(len(set(words)) == 20 for words in once)
    assert twice == [words + words for words in once]
