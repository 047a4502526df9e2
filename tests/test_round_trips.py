"""Round trips: any text, in any format that programs write, is read back unchanged."""

import csv
import gzip
import io
import itertools
import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from common.text import without_surrogates
from corpus.dialogue_rows import ANSWERS, LISTS, QUESTIONS, read_dialogues
from corpus.dialogues import join_turns
from corpus.notes import Notes
from corpus.readers import Wanted, read_rows
from corpus.sources import open_dataset
from corpus.stories import holds_story, read_stories
from generation.prompt_files import read_prompts

pyarrow = pytest.importorskip("pyarrow")
parquet_files = pytest.importorskip("pyarrow.parquet")

examine = settings(max_examples=40, deadline=None)
FIRST = "This text has only letters, so that the file is not taken for UTF-16 where others are zeros."

# Texts that are hard for tables: with many quotes, delimiters, line ends and zeros.
signs = st.sampled_from(list("ab \"',;\t\n\r\0\\|[]{}<>=#07.e\ufeff\x85\u2028é猫🦊"))
number_like = st.sampled_from(
    ["4", "007", "1.50", "1e5", "true", "nan", "NaN", "None", "null", "", " ", "9" * 30, "-0"]
)
encodable = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
cells = st.text(signs, max_size=12) | number_like | encodable
# Texts that are not empty when stripped, some with lone surrogates; and texts that UTF-8 can encode.
any_texts = (st.text(signs, max_size=12) | number_like | st.text(max_size=20)).filter(str.strip)
writable = any_texts.map(without_surrogates)


def read(name, content):
    """Return the rows that `read_rows` finds in a file with this content."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(content)
        wanted = Wanted(lambda value: holds_story(value, "text"))
        return [row for row, _ in read_rows(path, wanted, Notes())]


def read_with(function, name, content):
    """Return what a function reads from a file with this name and content."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(content)
        return function(path)


def stories_of(path):
    return list(read_stories(open_dataset(str(path))["train"]))


def dialogues_of(path):
    return [join_turns(turns) for turns in read_dialogues(open_dataset(str(path))["train"])]


def prompts_of(path):
    return [prompt.prompt for prompt in read_prompts(path)]


def csv_of(rows, delimiter=",", quoting=csv.QUOTE_MINIMAL, line_end="\r\n"):
    file = io.StringIO()
    writer = csv.writer(file, delimiter=delimiter, quoting=quoting, lineterminator=line_end)
    writer.writerows(rows)
    return file.getvalue()


def as_stories(texts):
    return [without_surrogates(text.strip()) for text in texts]


# Tables of text -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "quoting", [csv.QUOTE_ALL, csv.QUOTE_MINIMAL, csv.QUOTE_NONNUMERIC], ids=["all", "minimal", "texts"]
)
@pytest.mark.parametrize("delimiter", [",", ";", "\t"], ids=["comma", "semicolon", "tab"])
@given(rows=st.lists(st.lists(cells, min_size=3, max_size=3), max_size=4))
@examine
def test_cells_of_a_table_are_read_back_unchanged(delimiter, quoting, rows):
    rows = [[FIRST, "007", ""], *rows]
    names = ["text", "Number", "third one"]
    # If lines end in \n, Python 3.11 writes \r without quotes, which nobody could read back.
    line_end = "\r\n" if quoting == csv.QUOTE_MINIMAL else "\n"
    found = read("a.csv", csv_of([names, *rows], delimiter, quoting, line_end).encode())
    filled = [row for row in rows if any(cell.strip() for cell in row)]  # empty rows are skipped
    assert found == [dict(zip(names, row, strict=True)) for row in filled]


@given(texts=st.lists(cells, max_size=4), encoding=st.sampled_from(["utf-8-sig", "utf-16", "utf-32"]))
@examine
def test_a_table_of_one_column_is_read_back_in_any_encoding_with_a_byte_order_mark(texts, encoding):
    found = read("a.csv", csv_of([["text"], [FIRST], *([text] for text in texts)]).encode(encoding))
    assert found == [{"text": text} for text in (FIRST, *texts) if text.strip()]


# JSON -----------------------------------------------------------------------------------------------------------------

LAYOUTS = {
    "lines": lambda rows: "".join(json.dumps(row) + "\n" for row in rows),
    "lines_not_escaped": lambda rows: "".join(json.dumps(row, ensure_ascii=False) + "\r\n" for row in rows),
    "list": json.dumps,
    "pretty_list": lambda rows: json.dumps(rows, indent=2, ensure_ascii=False),
    "pretty_objects": lambda rows: "".join(json.dumps(row, indent=1) + "\n" for row in rows),
    "wrapper": lambda rows: json.dumps({"version": 1, "data": rows}),
    "pretty_wrapper": lambda rows: json.dumps({"rows": rows}, indent="\t"),
    "table_of_columns": lambda rows: json.dumps({name: [row[name] for row in rows] for name in rows[0]}),
}
values = writable | st.integers() | st.floats(allow_nan=False) | st.none() | st.booleans() | st.lists(st.integers())


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".ndjson.gz"])
@pytest.mark.parametrize("layout", LAYOUTS)
@given(st.lists(st.fixed_dictionaries({"text": writable, "other": values}), min_size=1, max_size=4))
@settings(max_examples=20, deadline=None)
def test_rows_of_json_are_the_same_in_every_layout(layout, suffix, rows):
    content = LAYOUTS[layout](rows).encode()
    if suffix.endswith(".gz"):
        content = gzip.compress(content)
    assert read(f"a{suffix}", content) == rows


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "table_of_columns"])
@given(st.lists(writable, min_size=1, max_size=4))
@settings(max_examples=20, deadline=None)
def test_bare_texts_are_rows_in_every_layout(layout, texts):
    assert read("a.json", LAYOUTS[layout](texts).encode()) == texts


@given(st.lists(any_texts, min_size=1, max_size=4), st.sampled_from([".json", ".jsonl.gz", ".parquet", ".csv", ".tsv"]))
@examine
def test_stories_are_read_back_stripped(texts, suffix):
    texts = [FIRST, *texts]
    if suffix in (".csv", ".tsv", ".parquet"):
        texts = [without_surrogates(text) for text in texts]
    rows = [{"text": text} for text in texts]
    if suffix == ".parquet":
        content = parquet_of(rows)
    elif suffix in (".csv", ".tsv"):
        content = csv_of([["text", "n"], *([text, 1] for text in texts)], "\t" if suffix == ".tsv" else ",").encode()
    else:
        content = json.dumps(rows).encode()
        content = gzip.compress(content) if suffix.endswith(".gz") else content
    assert read_with(stories_of, f"a{suffix}", content) == as_stories(texts)


@given(st.lists(any_texts, min_size=1, max_size=4), st.sampled_from([".json", ".parquet", ".csv"]))
@examine
def test_prompts_are_read_back_unchanged(texts, suffix):
    texts = [FIRST, *(without_surrogates(text) for text in texts)]
    rows = [{"prompt": text} for text in texts]
    if suffix == ".parquet":
        content = parquet_of(rows)
    elif suffix == ".csv":
        content = csv_of([["prompt"], *([text] for text in texts)]).encode()
    else:
        content = json.dumps(rows).encode()
    assert read_with(prompts_of, f"a{suffix}", content) == texts


# Parquet --------------------------------------------------------------------------------------------------------------


def parquet_of(rows):
    file = io.BytesIO()
    parquet_files.write_table(pyarrow.Table.from_pylist(rows), file)
    return file.getvalue()


@given(
    st.lists(st.fixed_dictionaries({"text": encodable | st.none(), "n": st.integers(-9, 9) | st.none()}), min_size=1)
)
@examine
def test_rows_of_parquet_are_read_back_unchanged(rows):
    assert read("a.parquet", parquet_of(rows)) == rows


# Plain text -----------------------------------------------------------------------------------------------------------


one_line = writable.filter(lambda text: "\n" not in text and "\r" not in text)


@given(st.lists(one_line, min_size=1, max_size=5), st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]))
@examine
def test_lines_of_prompts_are_read_back_stripped(texts, encoding):
    texts = [FIRST, *texts]
    content = "\r\n".join(texts).encode(encoding)
    assert read_with(prompts_of, "a.txt", content) == [text.strip() for text in texts]


# Dialogues ------------------------------------------------------------------------------------------------------------

words = writable.map(str.strip)
pairs = st.lists(st.lists(words, min_size=2, max_size=2), min_size=1, max_size=3)
SUFFIXES = [".jsonl", ".csv", ".parquet"]


def table_of(rows, suffix):
    """Return rows as the content of a file with this suffix; lists in the cells of csv are JSON."""
    if suffix == ".parquet":
        return parquet_of(rows)
    if suffix == ".jsonl":
        return "".join(json.dumps(row) + "\n" for row in rows).encode()
    in_cells = [[cell if isinstance(cell, str) else json.dumps(cell) for cell in row.values()] for row in rows]
    return csv_of([list(rows[0]), *in_cells]).encode()


def in_turns(pairs, role, text):
    """Return the turns of question and answer pairs."""
    return [
        {role: speaker, text: words}
        for pair in pairs
        for speaker, words in zip(("user", "assistant"), pair, strict=True)
    ]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("name", LISTS)
@given(
    dialogues=st.lists(pairs, min_size=2, max_size=3), keys=st.sampled_from([("role", "content"), ("from", "value")])
)
@settings(max_examples=10, deadline=None)
def test_dialogues_are_read_back_under_every_known_column_name(name, suffix, dialogues, keys):
    content = table_of([{"id": "x", name: in_turns(dialogue, *keys)} for dialogue in dialogues], suffix)
    assert read_with(dialogues_of, f"a{suffix}", content) == [(None, dialogue) for dialogue in dialogues]


@given(st.lists(pairs, min_size=2, max_size=3))
@examine
def test_lists_of_turns_in_python_s_notation_are_read_back(dialogues):
    rows = [[FIRST, repr(in_turns(dialogue, "role", "content"))] for dialogue in dialogues]
    content = csv_of([["title", "messages"], *rows]).encode()
    assert read_with(dialogues_of, "a.csv", content) == [(None, dialogue) for dialogue in dialogues]


FORMS = list(itertools.product(QUESTIONS, ANSWERS))


@pytest.mark.parametrize("suffix", SUFFIXES)
@given(st.sampled_from(FORMS), pairs)
@example(("input", "output"), [["Sort b, a.", "['a', 'b']"]])
@examine
def test_questions_and_answers_are_read_back(suffix, form, pairs):
    pairs = [["Hi", FIRST], *pairs]
    content = table_of([dict(zip(form, pair, strict=True)) for pair in pairs], suffix)
    assert read_with(dialogues_of, f"a{suffix}", content) == [(None, [pair]) for pair in pairs]


@pytest.mark.parametrize("suffix", SUFFIXES)
@given(st.sampled_from(FORMS), pairs)
@examine
def test_questions_and_answers_that_do_not_look_like_lists_are_read_back(suffix, form, pairs):
    pairs = [["Hi", FIRST], *([f"Q{question}", f"A{answer}"] for question, answer in pairs)]
    content = table_of([dict(zip(form, pair, strict=True)) for pair in pairs], suffix)
    assert read_with(dialogues_of, f"a{suffix}", content) == [(None, [pair]) for pair in pairs]
