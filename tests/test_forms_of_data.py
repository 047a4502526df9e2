"""Files in all forms that people use: each is read correctly, or refused with a helpful reason.

There are four tables: stories, dialogues, prompts and refusals.  An entry has a name, the files with their contents,
the right value, and words that must be in the log: what was guessed and what is left out.  Several files are a folder.
"""

import bz2
import codecs
import gzip
import io
import json
import lzma
import os
from dataclasses import dataclass, field

import pytest
from programs import ROOT
from refusals import error_of

from corpus.dialogue_rows import read_dialogues
from corpus.dialogues import join_turns
from corpus.notes import Notes, ReadingFlags
from corpus.sources import open_dataset
from corpus.speakers import read_turns
from corpus.stories import read_stories
from generation.prompt_files import read_prompts

pyarrow = pytest.importorskip("pyarrow")
parquet_files = pytest.importorskip("pyarrow.parquet")

CASES = ROOT.parent / "shared/cases"
SKIP = "--skip_bad_rows"
WHOLE = "is the file complete?"
COLUMN = "--text_column"
QUOTES = "put quotes around texts that contain a comma"


@dataclass
class Case:
    """One form of data.

    files: {name: content}, or (name, content) of one file.  right: the stories, dialogues or prompts.
    log: words that must be in the log; never: words that must not.  how: fields of ReadingFlags.
    """

    name: str
    files: dict | tuple
    right: list
    log: tuple = ()
    validation: list | None = None
    how: dict = field(default_factory=dict)
    never: tuple = ()


def of_cases(cases):
    """Run the test for each case."""
    parameters = [pytest.param(case, id=case.name) for case in cases]
    return pytest.mark.parametrize("case", parameters)


# Contents of files ----------------------------------------------------------------------------------------------------


def lines(*rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def pretty(*values):
    return "".join(json.dumps(value, indent=2, ensure_ascii=False) + "\n" for value in values)


def texts(*stories):
    return [{"text": story} for story in stories]


def turn(role, content, **more):
    return {"role": role, "content": content, **more}


def turns(*words, key="role", text="content", names=("user", "assistant")):
    """Return turns of two speakers who alternate."""
    return [{key: names[number % 2], text: word} for number, word in enumerate(words)]


def messages(*words, **options):
    return {"messages": turns(*words, **options)}


def parquet(**columns):
    file = io.BytesIO()
    parquet_files.write_table(pyarrow.table(columns), file)
    return file.getvalue()


def arrow(**columns):
    """Return an Arrow stream, as `datasets` saves it."""
    rows = pyarrow.table(columns)
    file = io.BytesIO()
    with pyarrow.ipc.new_stream(file, rows.schema) as writer:
        writer.write_table(rows)
    return file.getvalue()


def zst(text):
    return pyarrow.compress(text.encode(), codec="zstd", asbytes=True)


def utf16(text, big_endian=False):
    mark, encoding = (codecs.BOM_UTF16_BE, "utf-16-be") if big_endian else (codecs.BOM_UTF16_LE, "utf-16-le")
    return mark + text.encode(encoding)


def talk(*words, system=None):
    """Return a dialogue in the form that `join_turns` returns."""
    return system, [[*pair] for pair in zip(words[::2], words[1::2], strict=True)]


CAT, DOG, PIG = "Once a cat ran.", "A dog sat.", "A pig ate."
LINES = lines(*texts(CAT, DOG))
HI, WHO = talk("Hi", "Hello!"), talk("Who?", "Pip.")
SAVED = {"dataset_info.json": '{"features": {"text": {"dtype": "string"}}}', "state.json": '{"_split": null}'}
MAC_COPY = b"\0\5\x16\7\0\2\0\0Mac OS X        "
WRAPPED = "Once there was a dog who\nliked to run with the\ncat."
FABLES = (
    "Tom had a ball.\r\nHe lost it.\r\n\r\n \r\nLily saw a frog.\r\nIt sang.\r\n\r\nThe end came.\r\nAll slept.\r\n"
)
THREE_FABLES = ["Tom had a ball.\nHe lost it.", "Lily saw a frog.\nIt sang.", "The end came.\nAll slept."]
ANIMALS = [
    f"Once there was a {animal}." for animal in ("cat", "dog", "pig", "cow", "hen", "fox", "owl", "bee", "ant", "rat")
]
BLANK_LINE = "a story ends at an empty line; --story_ends changes this"

# Reading --------------------------------------------------------------------------------------------------------------


def write(folder, files):
    """Write the files of a case, and return the path to read."""
    one = isinstance(files, tuple)
    for name, content in [files] if one else files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder / files[0] if one else folder


def stories_of(path, part="train", notes=None, **how):
    return list(read_stories(open_dataset(str(path))[part], ReadingFlags(**how), notes=notes))


def dialogues_of(path, part="train", notes=None, **how):
    split = open_dataset(str(path))[part]
    return [join_turns(turns) for turns in read_dialogues(split, ReadingFlags(**how), notes=notes)]


def prompts_of(path):
    """Return the prompts of a file; a list of turns becomes a list of (role, text)."""
    prompts = [prompt.prompt for prompt in read_prompts(path)]
    return [prompt if isinstance(prompt, str) else read_turns(prompt) for prompt in prompts]


def check(case, folder, said, read):
    path = write(folder, case.files)
    notes = Notes()
    assert read(path, notes=notes, **case.how) == case.right
    log = "\n".join([*said, *notes.lines()])
    for word in case.log:
        assert word in log
    for word in case.never:
        assert word not in log
    if case.validation is not None:
        assert read(path, "validation", **case.how) == case.validation
    else:
        assert list(open_dataset(str(path))) == ["train"]


# Stories --------------------------------------------------------------------------------------------------------------


STORIES = [
    # Tables of text
    Case("cells_are_not_converted",
        ("a.csv", "text,stars\nnan,1\nNone,2\nTRUE,3\n007,4\n1e5,5\n3.50,\nN/A,8\n" + "1" * 30 + ",9\n"),
        ["nan", "None", "TRUE", "007", "1e5", "3.50", "N/A", "1" * 30], ("left out: column stars",)),
    Case("excels_semicolons_and_byte_order_mark",
        ("a.csv", '\ufeffNr;Text\r\n1;Once a cat, a big one, ran.\r\n2;"A dog; it sat."\r\n'),
        ["Once a cat, a big one, ran.", "A dog; it sat."], ("separated by semicolons", "column Nr")),
    Case("excels_unicode_text_named_csv", ("a.csv", utf16("id\ttext\r\n007\tTom saw “Zoë”, his friend.\r\n")),
        ["Tom saw “Zoë”, his friend."], ("separated by tabs", "column id")),
    Case("excels_unicode_text_named_txt", ("a.txt", utf16(f"id\ttext\r\n1\t{CAT}\r\n2\t{DOG}\r\n")), [CAT, DOG],
        ("a.txt: contains a table", "column id")),
    Case("excels_first_line", ("a.csv", "sep=;\r\ntext;n\r\nOnce a cat, ran.;1\r\n"), ["Once a cat, ran."],
        ("separated by semicolons",)),
    Case("powershells_utf_16_csv", ("a.csv", utf16('text,source\r\n"Once a cat, ran.",a\r\n')), ["Once a cat, ran."],
        ("column source",)),
    Case("google_sheets_unnamed_column_and_empty_rows",
        ("a.csv", 'Title,Text,\r\nBall,"Tom said,\n\n""Look!""",\r\n,,\r\n,,\r\n'), ['Tom said,\n\n"Look!"'],
        ("column", "Title")),
    Case("names_with_spaces_and_in_capitals", ("a.csv", f"Id, TEXT \n1, {CAT}\n"), [CAT], ("column Id",)),
    Case("pandas_index", ("a.csv", f",text\n0,{CAT}\n1,{DOG}\n"), [CAT, DOG], ("column unnamed 1",)),
    Case("old_macs_line_ends", ("a.csv", f"text,n\r{CAT},1\r{DOG},2\r"), [CAT, DOG]),
    Case("old_macs_line_end_before_one_letter", ("a.csv", "text\ra"), ["a"]),
    Case("suffix_in_capitals", ("S.CSV", f"text\n{CAT}\n"), [CAT]),
    Case("empty_lines_between_rows", ("a.csv", f"\n\ntext,n\n\n{CAT},1\n\n{DOG},2\n"), [CAT, DOG]),
    Case("quotes_inside_a_text", ("a.tsv", 'id\ttext\n1\tTom said, "Go!"\n2\t"""Stop!"" cried Tom."\n'),
        ['Tom said, "Go!"', '"Stop!" cried Tom.'], ("separated by tabs",)),
    Case("other_column", ("a.csv", f"title,story\nCat,{CAT}\n"), [CAT], ("column title",),
        how={"text_column": "Story"}),
    Case("skipping_rows_with_too_many_values", ("a.csv", f"id,text\n1,{CAT}\n2,Once, a dog.\n3,{PIG}\n"), [CAT, PIG],
        ("1 bad row skipped", "line 3"), how={"skip_bad_rows": True}),
    # JSON
    Case("pretty_objects", ("a.jsonl", pretty(*texts("Once a {cat} ran.", 'A "dog".'))),
        ["Once a {cat} ran.", 'A "dog".']),
    Case("pretty_list_in_jsonl", ("a.jsonl", pretty(texts(CAT, DOG))), [CAT, DOG]),
    Case("objects_without_separators", ("a.json", json.dumps({"text": CAT}) + json.dumps({"text": DOG})), [CAT, DOG]),
    Case("lines_in_json", ("a.json", LINES), [CAT, DOG]),
    Case("lines_in_txt", ("a.txt", LINES), [CAT, DOG], ("a.txt: contains JSON",)),
    Case("list_of_texts", ("a.json", json.dumps([CAT, DOG])), [CAT, DOG]),
    Case("texts_in_lines", ("a.NDJSON", lines(CAT, "A dog.\n\nThe end.", "42")), [CAT, "A dog.\n\nThe end.", "42"]),
    Case("wrapper", ("a.json", json.dumps({"version": 1, "data": texts(CAT, DOG)})), [CAT, DOG],
        ('under "data"', "left out: version")),
    Case("wrapper_around_texts", ("a.json", pretty({"stories": [CAT, DOG]})), [CAT, DOG], ('under "stories"',)),
    Case("pandas_by_columns", ("a.json", json.dumps({"text": {"0": CAT, "1": DOG}, "stars": {"0": 5, "1": 4}})),
        [CAT, DOG], ("column stars",)),
    Case("pandas_by_rows", ("a.json", json.dumps({"0": {"text": CAT}, "1": {"text": DOG}})), [CAT, DOG]),
    Case("pandas_split", ("a.json",
        json.dumps({"columns": ["text", "n"], "index": [0, 1], "data": [[CAT, 1], [DOG, 2]]})), [CAT, DOG],
        ("column n",)),
    Case("pandas_table", ("a.json", json.dumps({"schema": {"fields": []}, "data": texts(CAT, DOG)})), [CAT, DOG],
        ("left out: schema",)),
    Case("lists_as_columns", ("a.json", json.dumps({"text": [CAT, DOG], "stars": [5, 4]})), [CAT, DOG],
        ("column stars",)),
    Case("both_splits_in_a_file", ("a.json", pretty({"train": texts(CAT, DOG), "validation": texts(PIG)})), [CAT, DOG],
        validation=[PIG], never=("left out",)),
    Case("splits_of_plain_texts", ("a.json", json.dumps({"train": [CAT, DOG], "test": [PIG]})), [CAT, DOG],
        validation=[PIG]),
    Case("an_empty_split", ("a.json", json.dumps({"train": [CAT, DOG], "validation": [], "test": [PIG]})), [CAT, DOG],
        validation=[PIG]),
    Case("only_an_empty_split", ("a.json", json.dumps({"train": [CAT, DOG], "validation": []})), [CAT, DOG],
        ("left out: validation",)),
    Case("rows_by_number_with_a_null", ("a.json", json.dumps({"0": {"text": CAT}, "1": {"text": None}})), [CAT],
        ("rows without a text (1)",)),
    Case("quotes_far_behind_in_tsv",
        ("a.tsv", "n\ttext\n" + f"1\t{CAT}\n" * 5000 + f'2\t"{DOG}\n3\t{PIG}"\n4\t{CAT}\n'),
        [CAT] * 5000 + [f'"{DOG}', f'{PIG}"', CAT]),
    Case("quoted_cell_far_behind_in_tsv", ("a.tsv", "n\ttext\n" + f"1\t{CAT}\n" * 5000 + f'2\t"{DOG}\tWoof.\n{PIG}"\n'),
        [CAT] * 5000 + [f"{DOG}\tWoof.\n{PIG}"]),
    Case("two_tables_in_a_file", ("a.csv", f"id,text\n1,{CAT}\n\ufeffid,text\n2,{DOG}\n"), [CAT, DOG],
        ("left out: column id; repeated lines of column names (1)",)),
    Case("null_and_nan_are_empty_and_numbers_printed",
        ("a.jsonl", f'{{"text": "{CAT}"}}\n{{"text": null}}\n{{"text": NaN}}\n{{"text": 42}}\n{{"text": 3.50}}\n'),
        [CAT, "42", "3.5"], ("left out: rows without a text (2)",)),
    Case("zero_character_inside_json", ("a.jsonl", lines({"text": "a\0b"}, {"text": "\0\0c"})), ["a\0b", "\0\0c"]),
    Case("byte_order_mark_and_windows_line_ends", ("a.jsonl", "\ufeff" + LINES.replace("\n", "\r\n")), [CAT, DOG]),
    Case("skipping_a_broken_line", ("a.jsonl", '{"text": "\n' + LINES), [CAT, DOG],
        ("1 bad row skipped", "line 1: not JSON"), how={"skip_bad_rows": True}),
    Case("names_in_any_case", ("a.jsonl", lines({" Text": CAT}, {"TEXT": DOG})), [CAT, DOG]),
    # Packed files, other encodings
    Case("gz_of_two_parts_in_capitals",
        ("S.CSV.GZ", gzip.compress(b'Text,Id\n"Once a cat,\nran.",1\n') + gzip.compress(f"{DOG},2\n".encode())),
        ["Once a cat,\nran.", DOG], ("column Id",)),
    Case("zst", ("00.jsonl.zst",
        zst(lines({"text": CAT, "meta": {"set": "x"}})) + zst(lines({"text": DOG, "meta": 1}))), [CAT, DOG],
        ("column meta",)),
    Case("bz2", ("a.ndjson.bz2", bz2.compress(LINES.encode())), [CAT, DOG]),
    Case("xz", ("a.txt.xz", lzma.compress(f"{CAT}\n{DOG}\n".encode())), [CAT, DOG]),
    Case("json_list_in_gz", ("a.json.gz", gzip.compress(pretty(texts(CAT, DOG)).encode())), [CAT, DOG]),
    Case("parquet_in_gz", ("a.parquet.gz", gzip.compress(parquet(text=[CAT, DOG]))), [CAT, DOG]),
    Case("utf_16_lines", ("a.jsonl", utf16(lines(*texts("Zoë — ran", DOG)).replace("\n", "\r\n"))), ["Zoë — ran", DOG]),
    Case("utf_16_big_endian", ("a.txt", utf16(f"Zoë — ran.\r\n{DOG}\r\n", big_endian=True)), ["Zoë — ran.", DOG]),
    Case("utf_32", ("a.txt", codecs.BOM_UTF32_LE + f"{CAT}\n{DOG}\n".encode("utf-32-le")), [CAT, DOG]),
    Case("utf_16_in_gz", ("a.csv.gz", gzip.compress(utf16(f"text\r\n{CAT}\r\n"))), [CAT]),
    # Where a story ends
    Case("empty_lines_separate", ("a.txt", FABLES), THREE_FABLES, (BLANK_LINE,)),
    Case("one_stray_empty_line", ("a.txt", "\n".join([*ANIMALS[:6], "", *ANIMALS[6:], "", ""])), ANIMALS,
        ("ends at the end of its line",)),
    Case("few_empty_lines", ("a.txt", "\n\n".join("\n".join(lines) for lines in (ANIMALS, ANIMALS, ANIMALS))),
        ANIMALS * 3, ("ends at the end of its line",)),
    Case("separator_on_lines", ("a.txt", f"{CAT}\n\nIt was fast.\n<|endoftext|>\n\n{DOG}\n<|endoftext|>\n"),
        [f"{CAT}\n\nIt was fast.", DOG], ("ends at <|endoftext|>",)),
    Case("flag_line", ("a.txt", FABLES), "\n".join(THREE_FABLES).split("\n"), how={"story_ends": "line"}),
    Case("flag_blank_line", ("a.txt", WRAPPED), [WRAPPED], how={"story_ends": "blank_line"}),
    Case("flag_file", ("a.txt", f"The Cat\n\n{CAT}\n\nThe end.\n"), [f"The Cat\n\n{CAT}\n\nThe end."],
        how={"story_ends": "file"}),
    Case("flag_line_reads_json_as_text", ("a.txt", LINES), LINES.splitlines(), how={"story_ends": "line"}),
    Case("flag_line_for_files_of_a_folder",
        {f"{n}.txt": f"{text}\nThe end.\n" for n, text in enumerate((CAT, DOG, PIG))},
        [CAT, "The end.", DOG, "The end.", PIG, "The end."], how={"story_ends": "line"}),
    Case("rows_of_instruct", ("a.parquet",
        parquet(text=["Words: oak", "Story: ", "", CAT, "It ran.", "<|endoftext|>", "Story:", DOG, "<|endoftext|>"])),
        [f"Words: oak\nStory: \n\n{CAT}\nIt ran.", f"Story:\n{DOG}"],
        ("ends a story: the rows before it are joined",)),
    Case("rows_of_instruct_in_csv", ("a.csv", "text\nStory:\nA cat.\n<|endoftext|>\nStory:\nA dog.\n"),
        ["Story:\nA cat.", "Story:\nA dog."], ("the rows before it are joined",)),
    Case("separator_inside_texts_is_text", ("a.jsonl", lines(*texts(f"{CAT}<|endoftext|>", f"{DOG}<|endoftext|>"))),
        [f"{CAT}<|endoftext|>", f"{DOG}<|endoftext|>"], ("inside texts",)),
    Case("small_files_are_stories",
        {"s/1.txt": f"The Cat\n\n{CAT}\n\nThe end.\n", "s/2.txt": f"{DOG}\r\nIt slept.\r\n", "t/3.TXT": PIG,
        "LICENSE.txt": "MIT", "README.TXT": "Stories."}, [f"The Cat\n\n{CAT}\n\nThe end.", f"{DOG}\nIt slept.", PIG],
        ("each .txt file is a story", "left out: LICENSE.txt, README.TXT")),
    Case("each_line_of_two_files_is_a_story", {"a.txt": f"{CAT}\n{DOG}\n", "b.txt": f"{PIG}\n", "notes.docx": b"PK"},
        [CAT, DOG, PIG], ("left out: notes.docx",)),
    Case("each_line_of_large_files_is_a_story",
        {f"{n}.txt": f"{text}\n" + "x" * 20_000 for n, text in enumerate((CAT, DOG, PIG))},
        [CAT, "x" * 20_000, DOG, "x" * 20_000, PIG, "x" * 20_000], ("at the end of its line",)),
    Case("files_with_a_separator_contain_several_stories",
        {f"{n}.txt": f"{text}<|endoftext|>And?" for n, text in enumerate((CAT, DOG, PIG))},
        [CAT, "And?", DOG, "And?", PIG, "And?"]),
    Case("story_with_train_in_its_name", {"The Cat.txt": CAT, "The Dog.txt": DOG, "The Train.txt": PIG},
        [CAT, DOG, PIG]),
    Case("hidden_copies_are_skipped",
        {"train.jsonl": LINES, ".ipynb_checkpoints/train-checkpoint.jsonl": lines({"text": "OLD"}),
        "._train.jsonl": MAC_COPY, ".DS_Store": b"\0\0\0\1Bud1", "__MACOSX/train.jsonl": MAC_COPY}, [CAT, DOG]),
    Case("one_object_per_file",
        {f"{n}.json": pretty({"id": n, "text": text}) for n, text in enumerate((CAT, DOG, PIG))}, [CAT, DOG, PIG],
        ("column id",)),
    Case("file_next_to_train_is_named", {"train.jsonl": LINES, "pirates.jsonl": lines({"text": "Arr!"})}, [CAT, DOG],
        ("left out: pirates.jsonl",)),
    Case("other_kind_is_named", {"a.jsonl": LINES, "b.txt": "Other.\n"}, [CAT, DOG],
        ("left out: b.txt (only .jsonl files are read here)",)),
    Case("dev_is_validation_and_greatest_is_not", {"dev.jsonl": lines({"text": PIG}), "greatest_stories.jsonl": LINES},
        [CAT, DOG], validation=[PIG]),
    Case("eval_is_validation", {"train.csv": f"text\n{CAT}\n", "my-eval.csv": f"text\n{PIG}\n"}, [CAT],
        validation=[PIG]),
    Case("name_that_ends_in_test_is_training", {"taste-test.txt": f"{CAT}\n", "other.txt": f"{DOG}\n"}, [DOG, CAT]),
    Case("tinystories_names", {"TinyStories-train.txt": f"{CAT}\n<|endoftext|>\n{DOG}\n",
        "TinyStories-valid.txt": f"{PIG}\n<|endoftext|>\n"}, [CAT, DOG], validation=[PIG]),
    Case("kaggle", {"train.csv": f"id,text\n1,{CAT}\n", "test.csv": f"id,text\n3,{PIG}\n",
        "sample_submission.csv": "id,score\n3,0\n"}, [CAT], ("left out: sample_submission.csv", "column id"),
        validation=[PIG]),
    Case("clone_of_the_hub", {"data/train-00000-of-00002.parquet": parquet(text=[CAT]),
        "data/train-00001-of-00002.parquet": parquet(text=[DOG]),
        "data/validation-00000-of-00001.parquet": parquet(text=[PIG]), "README.md": "# Tiny",
        "dataset_infos.json": "{}"}, [CAT, DOG], ("left out: dataset_infos.json",), validation=[PIG]),
    Case("save_to_disk", {"data-00000-of-00001.arrow": arrow(text=[CAT, DOG], label=[0, 1]),
        "cache-1a2b.arrow": arrow(text=["OLD"]), **SAVED}, [CAT, DOG],
        ("column label", "dataset_info.json, state.json")),
    Case("save_to_disk_of_splits",
        {"dataset_dict.json": '{"splits": ["train", "validation"]}',
        "train/data-00000-of-00001.arrow": arrow(text=[CAT, DOG]),
        "validation/data-00000-of-00001.arrow": arrow(text=[PIG]),
        **{f"train/{name}": text for name, text in SAVED.items()}}, [CAT, DOG], ("dataset_dict.json",),
        validation=[PIG]),
    Case("metadata_next_to_stories",
        {"stories.json": json.dumps(texts(CAT, DOG)), "info.json": '{"text": "Ten stories."}'}, [CAT, DOG],
        ("left out: info.json",)),
    Case("compressed_copy_is_skipped", {"train.jsonl": LINES, "train.jsonl.gz": gzip.compress(LINES.encode())},
        [CAT, DOG], ("left out: train.jsonl.gz",)),
    # Parquet
    Case("old_names_of_the_hub", {f"data/{name}-00000-of-00001-{code}.parquet": parquet(text=[text])
        for name, code, text in (("train", "a09b74b3ef9c3b56", CAT), ("validation", "869c898b519ad725", PIG))}, [CAT],
        validation=[PIG]),
    Case("words_after_the_split", {"train_data.jsonl": LINES, "val_data.jsonl": lines({"text": PIG})}, [CAT, DOG],
        validation=[PIG]),
    Case("tags_are_not_stories", {"1.json": pretty({"text": CAT, "tags": ["cat"]}), "2.json":
        pretty({"text": DOG, "tags": ["dog"]})}, [CAT, DOG], ("left out: column tags",)),
    Case("small_files_of_json", {f"{n}.txt": lines({"text": text}) for n, text in enumerate((CAT, DOG, PIG))},
        [CAT, DOG, PIG], ("contains JSON",)),
    Case("first_item_without_a_text", ("a.json", json.dumps({"data": [{"text": None}, {"text": CAT}]})), [CAT],
        ("rows without a text (1)",)),
    Case("broken_line_in_a_story", ("a.txt", f"{CAT}\nIt ".encode() + b"\xff\xfe\x81\n<|endoftext|>\n" + DOG.encode()),
        [DOG], ("1 bad row skipped",), how={"skip_bad_rows": True}),
    Case("numbers_among_joined_rows", ("a.jsonl", lines(*texts(CAT), {"text": 5}, *texts("<|endoftext|>", DOG))),
        ["5", CAT, DOG]),
    Case("several_training_files", {"a.jsonl": LINES, "b.jsonl": lines({"text": PIG})}, [CAT, DOG, PIG],
        ("training data: a.jsonl, b.jsonl",)),
    Case("nulls_of_parquet_are_empty", ("a.parquet", parquet(text=[CAT, None, DOG], n=[1, 2, 3])), [CAT, DOG],
        ("left out: column n; rows without a text (1)",)),
]  # fmt: skip


@of_cases(STORIES)
def test_stories_are_read_unchanged(case, tmp_path, said):
    check(case, tmp_path, said, stories_of)


@pytest.mark.skipif(os.name == "nt", reason="on Windows, creating links needs special rights")
def test_a_folder_may_consist_of_links(tmp_path, said):
    files = {"elsewhere/a.jsonl": lines({"text": CAT}), "elsewhere/b.jsonl": lines({"text": DOG}), "blob": LINES}
    write(tmp_path, files)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/train").symlink_to("../elsewhere")
    (tmp_path / "data/valid.jsonl").symlink_to("../blob")
    (tmp_path / "data/train/again").symlink_to("../data")  # a circle
    assert stories_of(tmp_path / "data") == [CAT, DOG]
    assert stories_of(tmp_path / "data", "validation") == [CAT, DOG]


# Dialogues ------------------------------------------------------------------------------------------------------------

ASKED, CALLED = "How warm is it?", {"name": "t", "arguments": "{}"}
BOT_FIRST = turns("Welcome!", "Hi", "Hello!", names=("bot", "user"))
MIA_AND_PIP = lines(
    {"messages": turns("Hi", "Hello!", key="name", names=("Mia", "Pip"))},
    {"messages": turns("Welcome!", "Who?", "Pip.", "Bye", key="name", names=("Pip", "Mia"))},
)
WHO_SPEAKS = lines(
    {"messages": turns("Welcome!", "Hi", "Hello!", key="who", names=("robot", "kid"))},
    {"messages": turns("Who?", "Pip.", key="who", names=("kid", "robot"))},
)
LANGCHAIN = [
    {"type": kind, "data": {"content": words}}
    for kind, words in (("ai", "Welcome!"), ("human", "Hi"), ("ai", "Hello!"))
]
TAKES_TURNS = ("user and assistant take turns",)


def bot_first(key, *names, wrap=lambda name: name):
    """Return lines of two dialogues, the first begun by the assistant."""
    names = [wrap(name) for name in names]
    return lines(
        {"messages": turns("Welcome!", "Hi", "Hello!", key=key, names=names)},
        {"messages": turns("Who?", "Pip.", key=key, names=names[::-1])},
    )


DIALOGUES = [
    # Lists of turns in different layouts
    Case("bare_lists", ("a.jsonl", lines(turns("Hi", "Hello!"), turns("Who?", "Pip."))), [HI, WHO]),
    Case("one_bare_list", ("a.jsonl", lines(turns("Hi", "Hello!"))), [HI]),
    Case("lists_of_texts", ("a.jsonl", lines(["Hi", "Hello!"], ["Who?", "Pip."])), [HI, WHO], TAKES_TURNS),
    Case("one_list_of_texts", ("a.jsonl", lines(["Hi", "Hello!"])), [HI], TAKES_TURNS),
    Case("list_of_lists_of_texts", ("a.json", pretty([["Hi", "Hello!"], ["Who?", "Pip."]])), [HI, WHO], TAKES_TURNS),
    Case("list_of_lists_of_turns", ("a.json", pretty([turns("Hi", "Hello!"), turns("Who?", "Pip.")])), [HI, WHO]),
    Case("one_list_per_file", {f"{name}.json": pretty(turns(name, "Hello!")) for name in ("Hi a", "Hi b")},
        [talk("Hi a", "Hello!"), talk("Hi b", "Hello!")]),
    Case("one_object_per_file",
        {f"{name}.json": pretty({"id": 1, **messages(name, "Hello!")}) for name in ("Hi a", "Hi b")},
        [talk("Hi a", "Hello!"), talk("Hi b", "Hello!")], ("column id",)),
    Case("one_pretty_object", ("a.json", pretty({"model": "x", **messages("Hi", "Hello!", "Who?", "Pip.")})),
        [talk("Hi", "Hello!", "Who?", "Pip.")], ("column model",)),
    Case("wrapper_of_rows", ("a.json", json.dumps({"data": [{"instruction": "Hi", "input": "", "output": "Hello!"}]})),
        [HI], ('under "data"',)),
    Case("wrapper_of_lists", ("a.json", pretty({"conversations": [turns("Hi", "Hello!"), turns("Who?", "Pip.")]})),
        [HI, WHO], ('form "conversations" (role, content)',)),
    Case("wrapper_of_lists_of_texts",
        ("a.json", pretty({"categories": ["x"], "conversations": [["Hi", "Hello!"], ["Who?", "Pip."]]})), [HI, WHO],
        ("left out: categories",)),
    Case("texts_under_data_are_turns",
        ("a.jsonl", lines({"id": 0, "data": ["Hi", "Hello!"]}, {"id": 1, "data": ["Who?", "Pip."]})), [HI, WHO],
        ("column id",)),
    Case("columns_as_lists", ("a.json", json.dumps({"prompt": ["Hi", "Who?"], "response": ["Hello!", "Pip."]})),
        [HI, WHO]),
    Case("turns_in_columns", ("a.jsonl",
        lines({"dialogue_id": 1, "turns": {"speaker": [0, 1], "utterance": ["Hi", "Hello!"]}},
        {"dialogue_id": 2, "turns": {"speaker": [0, 1], "utterance": ["Who?", "Pip."]}})), [HI, WHO],
        ('"1" is the assistant', "column dialogue_id")),
    Case("one_turn_per_row", ("a.csv",
        "dialogue_id,role,text\n1,user,Hi\n1,assistant,Hello!\n2,user,Who?\n2,assistant,Pip.\n"), [HI, WHO],
        ('the same "dialogue_id" are one dialogue',)),
    Case("json_inside_json", ("a.jsonl.zst", zst(lines({"messages": json.dumps(turns("Hi", "Hello, [friend]!"))}))),
        [talk("Hi", "Hello, [friend]!")]),
    Case("pythons_notation_in_cells",
        ("a.csv", ",messages\r\n0,\"[{'role': 'user', 'content': \"\"What's up?\"\"}, "
        "{'role': 'assistant', 'content': 'I said \"\"hi\"\".', 'n': None}]\"\r\n"),
        [talk("What's up?", 'I said "hi".')]),
    Case("numpys_notation_in_cells",
        ("a.csv", "messages\n\"[{'role': 'user', 'content': 'Hi'}\n {'role': 'assistant', 'content': 'Hello!'}]\"\n"),
        [HI]),
    Case("numpys_texts_in_cells", ("a.csv", "conversation\n\"['Hi' 'Hello!' \"\"What's up?\"\"\n 'Pip.']\"\n"),
        [talk("Hi", "Hello!", "What's up?", "Pip.")]),
    Case("save_to_disk", {"data-00000-of-00001.arrow": arrow(id=[1], messages=[turns("Hi", "Hello!")]), **SAVED}, [HI],
        ("column id",)),
    Case("pairs_of_texts", ("a.jsonl",
        lines({"session": 1, "history": [[None, "Welcome!"], ["Hi", "Hello!"]]},
        {"session": 2, "history": [["Who?", "Pip."]]})), [HI, WHO],
        ("assistant turns before the user's first turn (1)",)),
    Case("pairs_of_speaker_and_text",
        ("a.jsonl", lines({"messages": [["system", "Be kind."], ["human", "Hi"], ["ai", "Hello!"]]},
        {"messages": [["human", "Who?"], ["ai", "Pip."]]})), [talk("Hi", "Hello!", system="Be kind."), WHO]),
    Case("one_dialogue_of_pairs_of_speaker_and_text",
        ("a.jsonl", lines({"messages": [["human", "Hi"], ["ai", "Hello!"]]})), [HI]),
    Case("one_dialogue_of_turns_in_columns",
        ("a.jsonl", lines({"conversation": {"role": ["user", "assistant"], "content": ["Hi", "Hello!"]}})), [HI]),
    # Questions and answers
    Case("input_output", ("a.json",
        json.dumps([{"input": "Hi", "output": "Hello!"}, {"input": "Who?", "output": "Pip."}])), [HI, WHO],
        ('"input" (user), "output" (assistant)',)),
    Case("query_response", ("a.jsonl", lines({"query": "Hi", "response": "Hello!"})), [HI]),
    Case("user_assistant_system_message",
        ("a.jsonl", lines({"system_message": "Be kind.", "user": "Hi", "assistant": "Hello!"},
        {"system_message": None, "user": "Who?", "assistant": "Pip."})),
        [talk("Hi", "Hello!", system="Be kind."), WHO], ('"system_message"',)),
    Case("q_a_with_spaces_and_capitals", ("a.csv", "Q , A\nHi, Hello!\nWho?, Pip.\n"), [HI, WHO]),
    Case("human_ai", ("a.csv", 'Human,AI\n"Hi, you",Hello!\n'), [talk("Hi, you", "Hello!")]),
    Case("excels_question_answer", ("a.csv", "\ufeffQuestion ; Answer ;Notes\r\n9/2?;4,5;x\r\nAgent?;007;\r\n"),
        [talk("9/2?", "4,5"), talk("Agent?", "007")], ("separated by semicolons", "column Notes")),
    Case("answers_are_not_converted",
        ("a.csv", "prompt,response\n2 + 2?,4\n5 / 2?,2.5\nName?,Nan\n100000?,1e5\nSo?,true\nAgent?,007\n"),
        [talk(*pair) for pair in (("2 + 2?", "4"), ("5 / 2?", "2.5"), ("Name?", "Nan"), ("100000?", "1e5"),
        ("So?", "true"), ("Agent?", "007"))]),
    Case("spaces_before_quotes", ("a.csv", 'prompt, response\n"Hi", "Hello, friend!"\n'),
        [talk("Hi", "Hello, friend!")]),
    Case("comma_at_the_end_of_each_row", ("a.csv", "prompt,response\nHi,Hello!,\nWho?,Pip.,\n"), [HI, WHO]),
    Case("numbers_of_json", ("a.json",
        json.dumps([{"question": "2 + 2?", "answer": 4}, {"question": "6 / 3?", "answer": 2.0}])),
        [talk("2 + 2?", "4"), talk("6 / 3?", "2.0")]),
    Case("nan_of_json", ("a.jsonl",
        '{"prompt": "Hi", "response": NaN}\n' + lines({"prompt": "Who?", "response": "Pip."})), [WHO],
        ("left out: dialogues without an answer (1)",)),
    Case("numbers_nan_and_null_of_parquet",
        ("a.parquet", parquet(question=["2 + 2?", "0 / 0?", None], answer=[4.0, float("nan"), 1.0])),
        [talk("2 + 2?", "4.0")], ("dialogues without an answer (1); dialogues without a question (1)",)),
    Case("answer_that_is_a_list_of_texts", ("a.jsonl", lines({"prompt": "Sort b, a.", "response": "['a', 'b']"})),
        [talk("Sort b, a.", "['a', 'b']")]),
    Case("answer_that_is_a_list_of_numbers", ("a.csv", 'prompt,response\n"Sort 2, 1.","[1, 2]"\n'),
        [talk("Sort 2, 1.", "[1, 2]")]),
    Case("question_that_is_a_list", ("a.jsonl", lines({"prompt": '["b", "a"]', "response": "Two letters."})),
        [talk('["b", "a"]', "Two letters.")]),
    # Further columns
    Case("context_comes_before",
        ("a.jsonl", lines({"instruction": "Who has it?", "context": "Tim has a hat.", "response": "Tim.",
        "category": "qa"})), [talk("Tim has a hat.\nWho has it?", "Tim.")],
        ('"context"', "left out: column category")),
    Case("context_with_query", ("a.csv", "query,context,response\nWho?,Tim has a hat.,Tim.\nHi,,Hello!\n"),
        [talk("Tim has a hat.\nWho?", "Tim."), HI], ('"context"',)),
    Case("input_comes_after", ("a.csv",
        ",instruction,input,output,text\n0,Name it.,Meow.,A cat.,Below ...\n1,Hi,,Hello!,Below ...\n"),
        [talk("Name it.\nMeow.", "A cat."), HI], ('"input"', "left out: columns text, unnamed 1")),
    Case("history_and_system",
        ("a.json", pretty([{"instruction": "Who?", "input": "One word.", "output": "Pip.", "system": "Be kind.",
        "history": [["Hi", "Hello!"]]}, {"instruction": "Hi", "input": "", "output": "Hello!", "system": "",
        "history": []}])), [talk("Hi", "Hello!", "Who?\nOne word.", "Pip.", system="Be kind."), HI],
        ('"history", "system"',)),
    Case("history_of_objects",
        ("a.jsonl", lines({"prompt": "Hi", "response": "Hello!", "history": []},
        {"prompt": "Who?", "response": "Pip.", "history": turns("Hi", "Hello!")})),
        [HI, talk("Hi", "Hello!", "Who?", "Pip.")], ('"history"',)),
    Case("history_in_cells", ("a.csv",
        "instruction,output,history\nWho?,Pip.,\"[['Hi', \"\"It's me.\"\"]]\"\nHi,Hello!,[]\n"),
        [talk("Hi", "It's me.", "Who?", "Pip."), HI]),
    Case("history_with_the_question", ("a.jsonl", lines({"history": ["Hi", "Hello!", "Who?"], "response": "Pip."})),
        [talk("Hi", "Hello!", "Who?", "Pip.")]),
    Case("nulls_in_further_columns", ("a.jsonl",
        lines({"instruction": "Hi", "input": None, "output": "Hello!", "history": None, "context": None,
        "system": None})), [HI]),
    Case("prompt_and_completion_as_turns",
        ("a.jsonl", lines({"prompt": [turn("system", "Be kind."), turn("user", "Hi")],
        "completion": [turn("assistant", "Hello!")]})), [talk("Hi", "Hello!", system="Be kind.")]),
    Case("messages_next_to_a_prompt",
        ("a.parquet", parquet(prompt=["Hi"], prompt_id=["a1"], messages=[turns("Hi", "Hello!")])), [HI],
        ("left out: columns prompt, prompt_id",)),
    Case("system_instruction",
        ("a.jsonl", lines({"systemInstruction": {"parts": [{"text": "Be kind."}]},
        "contents": [{"role": "user", "parts": [{"text": "Hi"}]}, {"role": "model", "parts": [{"text": "Hello!"}]}]})),
        [talk("Hi", "Hello!", system="Be kind.")]),
    # Odd turns
    Case("tool_turns_and_null",
        ("a.jsonl", lines({"messages": [turn("user", ASKED), turn("assistant", None, tool_calls=[CALLED]),
        turn("tool", "20"), turn("assistant", "20 degrees.")]}, messages("Hi", "Hello!"))),
        [talk(ASKED, "20 degrees."), HI], ("turns of tool (1)", "turns without a text (1)", "tool_calls")),
    Case("function_turns", ("a.jsonl",
        lines({"messages": [turn("user", ASKED, name="Mia"), turn("assistant", None, function_call=CALLED),
        turn("function", "20", name="t"), turn("assistant", "20 degrees.", weight=1)]})), [talk(ASKED, "20 degrees.")],
        ("turns of function (1)", "weight")),
    Case("observations", ("a.json",
        pretty([{"conversations": [{"from": "human", "value": ASKED}, {"from": "function_call", "value": "{}"},
        {"from": "observation", "value": "20"}, {"from": "gpt", "value": "20 degrees."}], "tools": "[]"}])),
        [talk(ASKED, "20 degrees.")], ("turns of function_call (1)", "turns of observation (1)", "column tools")),
    Case("developer", ("a.jsonl", lines({"messages": [turn("developer", "Be kind."), *turns("Hi", "Hello!")]})),
        [talk("Hi", "Hello!", system="Be kind.")]),
    Case("roles_in_any_case_with_spaces",
        ("a.jsonl", lines({"messages": [turn("SYSTEM", "Be kind."), turn("User ", "Hi"), turn("AI", "Hello!"),
        turn(" Human", "Who?"), turn("ASSISTANT\n", "Pip.")]})),
        [talk("Hi", "Hello!", "Who?", "Pip.", system="Be kind.")]),
    Case("lists_of_parts", ("a.jsonl",
        lines({"messages": [turn("user", [{"type": "text", "text": "Hi"}, {"type": "image_url", "image_url": {}}]),
        turn("assistant", [{"type": "output_text", "text": "Hel"}, {"type": "text", "text": "lo!"}])]})),
        [talk("Hi", "Hel\nlo!")], ("parts of a turn of the type image_url (1)",)),
    Case("number_as_content", ("a.jsonl", lines(messages("2 + 2?", 4), messages("6 / 3?", 2.0))),
        [talk("2 + 2?", "4"), talk("6 / 3?", "2.0")]),
    Case("skipping_one_odd_turn",
        ("a.jsonl", lines(messages("Hi", "Hello!"), messages("Hi", {"a": 1}), messages("Who?", "Pip."))), [HI, WHO],
        ("1 bad row skipped", "line 2: turn 2"), how={"skip_bad_rows": True}),
    Case("skipping_a_row_of_parquet",
        ("a.parquet", parquet(messages=[turns("Hi", "Hello!"), turns("Hi", "x", names=("user", "fox"))])), [HI],
        ("1 bad row skipped", "row 2"), how={"skip_bad_rows": True}),
    # Who speaks
    Case("speaker", ("a.jsonl",
        lines({"conversation": [{"speaker": fields["role"], "text": fields["content"]} for fields in BOT_FIRST]})),
        [HI], ("before the user's first turn (1)",)),
    *(Case(f"{key}_says_who_speaks", ("a.jsonl", bot_first(key, "Bot", "Human")), [HI, WHO]) for key in ("role", "from",
        "sender", "author", "Type", "name")),
    Case("author_is_an_object",
        ("a.jsonl", bot_first("author", "assistant", "user", wrap=lambda role: {"role": role, "name": "x"})),
        [HI, WHO]),
    Case("type_next_to_data", ("a.jsonl", lines(LANGCHAIN, LANGCHAIN)), [HI, HI]),
    Case("one_list_with_type_next_to_data", ("a.jsonl", lines(LANGCHAIN)), [HI]),
    Case("one_list_with_names", ("a.json", pretty(turns("Hi", "Hello!", key="name", names=("Mia", "Pip")))), [HI]),
    Case("type_that_says_something_else",
        ("a.jsonl", lines({"messages": [fields | {"type": "message"} for fields in BOT_FIRST]})), [HI],
        ("key of turns type",)),
    Case("numbers_are_names", ("a.jsonl",
        lines({"conversation": turns("Hi", "Hello!", key="speaker", names=(0, 1))},
        {"conversation": turns("Welcome!", "Who?", "Pip.", key="speaker", names=(1, 0))},
        {"conversation": turns("Hi", "Hello!", key="speaker", names=(0, 1))})), [HI, WHO, HI],
        ('"1" is the assistant, and "0", who speaks first, is the user',)),
    Case("names_are_decided_once", ("a.jsonl", MIA_AND_PIP), [HI, WHO],
        ('"pip" is the assistant, and "mia", who speaks first, is the user; --assistant_name changes this',)),
    Case("flag_assistant_name", ("a.jsonl", MIA_AND_PIP), [talk("Welcome!", "Who?", "Pip.", "Bye")],
        how={"assistant_name": "Mia"}),
    Case("who_speaks_in_all_dialogues",
        ("a.jsonl", lines({"messages": turns("Hi", "Hello!", key="name", names=("Mia", "Pip"))},
        {"messages": turns("Who?", "Pip.", key="name", names=("Tom", "Pip"))})), [HI, WHO],
        ('"pip", who speaks in all dialogues, is the assistant',)),
    Case("three_speakers_with_a_name",
        ("a.json", pretty([{"messages": [{"sender": "Mia", "text": "Hi"}, {"sender": "Tom", "text": "Hello"},
        {"sender": "Pip", "text": "Arr!"}]}])), [talk("Hi\nHello", "Arr!")], how={"assistant_name": "pip "}),
    Case("flag_speaker_key", ("a.jsonl", WHO_SPEAKS), [HI, WHO], how={"speaker_key": "who", "assistant_name": "robot"}),
    Case("flag_speaker_key_none",
        ("a.jsonl", lines({"messages": turns("Hi", "Hello!", "Who?", "Pip.", key="mood", names=("glad", "sad"))})),
        [talk("Hi", "Hello!", "Who?", "Pip.")], TAKES_TURNS, how={"speaker_key": "none"}),
    Case("flag_for_another_data_set", ("a.jsonl", lines(messages("Hi", "Hello!"))), [HI],
        ("no speaker here is named Pip",), how={"assistant_name": "Pip"}),
    Case("pairs_with_more_keys", ("a.jsonl", lines({"messages": [{"human": "Hi", "bot": "Hello!", "mood": "glad"}]},
        {"messages": [{"human": "Who?", "bot": "Pip."}]})), [HI, WHO], ("key of turns mood",)),
    Case("context_that_is_a_list", ("a.jsonl", lines(*[{"question": "Hi", "context": ["a"], "answer": "Hello!"}] * 2)),
        [HI, HI], ('"context" that is not text (2)',)),
    Case("column_with_a_number_of_turns", ("a.jsonl", lines({"turns": 2, "question": "Hi", "answer": "Hello!"})), [HI],
        ("column turns",)),
    Case("names_as_in_training", {"train.jsonl": lines(*[{"messages": turns("Hi", "Hello!", key="name",
        names=("Mia", "Pip"))}] * 2), "valid.jsonl": lines(*[{"messages": turns("Welcome!", "Who?", "Pip.", "Bye",
        key="name", names=("Pip", "Mia"))}] * 2)}, [HI, HI], validation=[WHO, WHO]),
    Case("questions_and_answers", ("a.json", json.dumps({"questions": ["Hi", "Who?"], "answers": ["Hello!", "Pip."]})),
        [HI, WHO]),
    Case("merged_cells", ("a.csv", "dialogue_id,role,text\n1,user,Hi\n,bot,Hello!\n2,user,Who?\n,bot,Pip.\n"),
        [HI, WHO], ('a row without "dialogue_id" belongs to the dialogue of the row before it',)),
    Case("merged_cells_in_json", ("a.jsonl", lines({"dialogue_id": 0, **turn("user", "Hi")},
        {"dialogue_id": None, **turn("bot", "Hello!")}, {"dialogue_id": 1, **turn("user", "Who?")},
        {"dialogue_id": None, **turn("bot", "Pip.")})), [HI, WHO], ("belongs to the dialogue of the row before it",)),
    Case("dialogues_by_name", ("a.json", json.dumps({"one": ["Hi", "Hello!"], "two": ["Who?", "Pip."]})), [HI, WHO],
        TAKES_TURNS),
    Case("no_question", ("a.csv", "prompt,response\nHi,Hello!\n,Pip.\nBye,\n"), [HI],
        ("dialogues without a question (1); dialogues without an answer (1)",)),
    Case("no_speaker", ("a.jsonl", lines({"conversation": [{"text": "Hi"}, {"text": "Hello!"}]})), [HI], TAKES_TURNS),
]  # fmt: skip


@of_cases(DIALOGUES)
def test_dialogues_are_read_with_the_right_speakers(case, tmp_path, said):
    check(case, tmp_path, said, dialogues_of)


# Prompts --------------------------------------------------------------------------------------------------------------


PROMPTS = [
    Case("lines_of_txt", ("a.txt", f"\ufeff{CAT}\r\n\r\n\r\n{DOG}\r\n\r\n{{\"prompt\": 1}}\r\n[]\r\n"),
        [CAT, DOG, '{"prompt": 1}', "[]"]),
    Case("json_in_txt", ("a.jsonl.txt", lines({"id": "a", "prompt": CAT}, {"id": "b", "prompt": DOG})), [CAT, DOG],
        ("contains JSON, and is read as JSON",)),
    Case("table_in_txt", ("a.csv.txt", f"id,prompt\na,{CAT}\nb,{DOG}\n"), [CAT, DOG], ("contains a table",)),
    Case("commas_in_txt", ("a.txt", f"Hi, chat, who are you?\n{DOG}\n"), ["Hi, chat, who are you?", DOG]),
    Case("prompts_in_a_column", ("a.json", json.dumps({"prompt": [CAT, DOG]})), [CAT, DOG]),
    Case("prompts_of_pandas", ("a.json", json.dumps({"id": {"0": 7.0, "1": None}, "prompt": {"0": CAT, "1": DOG}})),
        [CAT, DOG]),
    Case("input_next_to_a_prompt", ("a.jsonl", lines({"prompt": "Add:", "input": "2 + 2"})), ["Add:"],
        ('"input" next to a prompt is copied',)),
    Case("prompts_twice", ("a.csv", f"id,prompt\na,{CAT}\nid,prompt\nb,{DOG}\n"), [CAT, DOG],
        ("repeated lines of column names (1)",)),
    Case("separator_in_txt_is_text", ("a.txt", f"{CAT}\nA <|endoftext|> B\n"), [CAT, "A <|endoftext|> B"]),
    Case("utf_16_txt", ("a.txt", utf16(f"{CAT}\r\nZoë ran\r\n\r\n{DOG}\r\n")), [CAT, "Zoë ran", DOG]),
    Case("excels_semicolons", ("a.csv", "\ufeffId;Prompt\r\n01;Once, a cat\r\n02;1e5\r\n03;nan\r\n04;007\r\n"),
        ["Once, a cat", "1e5", "nan", "007"], ("separated by semicolons",)),
    Case("utf_16_csv", ("a.csv", utf16("id\tprompt\r\n1\tOnce, a cat\r\n")), ["Once, a cat"], ("separated by tabs",)),
    Case("quotes_in_tsv", ("a.tsv", 'prompt\twords\nTom said, "Hi"\tTom\n'), ['Tom said, "Hi"']),
    Case("list_in_a_cell_is_text", ("a.csv", 'prompt\n"[1, 2]"\n'), ["[1, 2]"]),
    Case("pretty_objects", ("a.jsonl", pretty({"id": 1, "prompt": CAT}, {"id": 2, "prompt": "A dog\nsat"})),
        [CAT, "A dog\nsat"]),
    Case("one_pretty_object", ("a.json", pretty({"prompt": CAT})), [CAT]),
    Case("wrapper", ("a.json", pretty({"prompts": [CAT, DOG]})), [CAT, DOG], ('under "prompts"',)),
    Case("wrapper_of_objects", ("a.json", json.dumps({"data": [{"Prompt": CAT}, {"Prompt": DOG}]})), [CAT, DOG],
        ('under "data"',)),
    Case("list_of_texts", ("a.json", json.dumps([CAT, DOG])), [CAT, DOG]),
    Case("gz_in_capitals", ("A.JSONL.GZ", gzip.compress(lines({"prompt": CAT}, {"prompt": DOG}).encode())), [CAT, DOG]),
    Case("zst", ("a.txt.zst", zst(f"{CAT}\n{DOG}\n")), [CAT, DOG]),
    Case("parquet", ("a.parquet", parquet(id=["a", "b"], prompt=[CAT, DOG])), [CAT, DOG]),
    Case("dialogues_so_far", ("a.jsonl",
        lines(messages("Hi", "Hello!", "Who?"), {"messages": [turn("User ", [{"type": "text", "text": "Hi"}])]})),
        [[("user", "Hi"), ("assistant", "Hello!"), ("user", "Who?")], [("user", "Hi")]]),
    Case("saved_by_the_chat", ("a.jsonl", lines(messages("Hi", "Hello!", "Who?", "Pip."), messages("Bye", "Bye!"))),
        [[("user", "Hi"), ("assistant", "Hello!"), ("user", "Who?")], [("user", "Bye")]],
        ("last replies, which are written again",)),
    Case("saved_by_the_chat_once", ("a.jsonl", lines(messages("Hi", "Hello!"))), [[("user", "Hi")]],
        ("last replies, which are written again",)),
]  # fmt: skip


@of_cases(PROMPTS)
def test_prompts_are_read_by_the_same_readers(case, tmp_path, said):
    assert prompts_of(write(tmp_path, case.files)) == case.right
    for word in case.log:
        assert word in "\n".join(said)


def test_numbers_of_prompts_keep_their_zeros(tmp_path):
    path = write(tmp_path, ("a.csv", "id,prompt,year\n007,Once,1.50\n"))
    (prompt,) = read_prompts(path)
    assert (prompt.id, prompt.extra) == ("007", {"year": "1.50"})


# Refusals -------------------------------------------------------------------------------------------------------------

WINDOWS = "Zoë said “hi” – and ran.\r\nA dog’s bone.\r\n".encode("cp1252")
CONVERT = ("seems to be Windows-1252", "iconv -f Windows-1252 -t UTF-8")
NO_MARK = ("seems to be UTF-16 without a byte-order mark", "iconv -f UTF-16")


def refused(name, files, *words, read=stories_of, never=(), how=None):
    return pytest.param(read, files, words, never, how or {}, id=name)


REFUSALS = [
    refused("several_answers", ("a.jsonl", lines({"question": "Who?", "answer": ["Bob", "Robert", "Rob"]})),
        "line 1", '"answer" contains', read=dialogues_of),
    refused("who_speaks_beside_a_system_role", ("a.jsonl", lines({"messages": [turn("system", "Be kind."),
        *turns("Hi", "Hello!", "Who?", "Pip.", key="who", names=("kid", "robot"))]})), '"who"', "--speaker_key who",
        read=dialogues_of),
    refused("who_speaks_in_prompts", ("a.jsonl", lines({"messages": turns("Hi", "Hello!", "Who?", key="who",
        names=("kid", "robot"))})), '"who"', 'name the speaker as "role"', read=prompts_of, never=("--speaker_key",)),
    refused("quote_never_closed_with_skipping", ("a.csv", f'id,text\n1,{CAT}\n2,"{DOG}\n3,{PIG}\n'), "line 3",
        "never closed", how={"skip_bad_rows": True}),
    refused("the_first_error_is_named", ("a.csv", f'id,text\n1,a,b\n2,"{DOG}\n3,{PIG}\n'), "line 2", never=(SKIP,)),
    # Tables of text
    refused("comma_without_quotes", ("a.csv", "id,text\n1,Once a cat, ran.\n2,A dog, sat.\n"),
        "line 2: 3 values, but 2 columns", QUOTES, never=(SKIP, WHOLE, COLUMN)),
    refused("comma_in_one_row", ("a.csv", f"id,text\n1,{CAT}\n2,A dog, sat.\n3,{PIG}\n"),
        "line 3: 3 values, but 2 columns", QUOTES, SKIP, never=(WHOLE, COLUMN)),
    refused("comma_in_dialogues", ("a.csv", "prompt,response\nHi there, friend,Hello!\nWho, me,Yes you.\n"),
        "line 2: 3 values, but 2 columns", QUOTES, read=dialogues_of, never=(SKIP, WHOLE)),
    refused("comma_in_one_dialogue", ("a.csv", "prompt,response\nHi,Hello!\nHi, you,Hello!\nWho?,Pip.\n"),
        "line 3: 3 values", QUOTES, SKIP, read=dialogues_of),
    refused("comma_and_a_column_without_a_name", ("a.csv", "prompt,response,\nHi, you,Hello!\nWho?,Pip.,\n"),
        "line 2", QUOTES, read=dialogues_of),
    refused("comma_in_prompts", ("a.csv", "id,prompt\n1,Once a cat\n2,Tom, who ran\n"),
        "line 3: 3 values, but 2 columns", QUOTES, read=prompts_of, never=(SKIP,)),
    refused("row_with_too_few_values", ("a.csv", f"text,author\n{CAT},Mia\n{DOG}\n"),
        "line 3: 1 of 2 values; a value for author is missing", SKIP),
    refused("quote_that_is_never_closed", ("a.csv", f'id,text\n1,"{CAT}"\n2,"{DOG}\n3,{PIG}\n'), "line 3", "quote",
        never=(SKIP, WHOLE)),
    refused("quote_inside_quotes", ("a.csv", 'text,n\n"Tom said, \\"Hi!\\" and ran.",1\n'), "line 2",
        "quote inside quotes", never=(SKIP, WHOLE)),
    refused("one_name_twice", ("a.csv", f"text,label,text\n{CAT},1,{DOG}\n"), 'two columns are named "text"',
        never=(SKIP, COLUMN)),
    refused("one_name_twice_in_other_case", ("a.csv", f"Text,TEXT\n{CAT},{DOG}\n"), "two columns"),
    refused("no_names_of_columns", ("a.csv", f"{CAT}\n{DOG}\n{PIG}\n"),
        "the first line must contain the column names", never=(SKIP, COLUMN)),
    refused("names_only", ("a.csv", "text,id\n"), "no stories in", never=(SKIP, COLUMN, WHOLE)),
    refused("other_names", ("a.csv", f"id,story\n1,{CAT}\n"), "found the columns id, story", "--text_column story",
        never=(SKIP,)),
    refused("title_above_the_names", ("a.csv", f"My stories,,\nid,text,stars\n1,{CAT},5\n"), "1 column (My stories)"),
    # Encodings and packed files
    refused("excel_named_csv", ("a.csv", b"PK\x03\x04" + bytes(26) + b"docProps/app.xml"), "save it as csv",
        never=("unpack",)),
    refused("folder_of_an_archive", {"stories.zip": b"PK\x03\x04"}, "no data", "found: stories.zip"),
    refused("windows_1252_csv", ("a.csv", b'text\r\n"Tom said \x93Hi\x94"\r\nA dog sat.\r\n'), *CONVERT, "line 2",
        never=(SKIP, WHOLE)),
    refused("windows_1252_txt", ("a.txt", WINDOWS), *CONVERT, "line 1", never=(SKIP, WHOLE)),
    refused("windows_1252_dialogues", ("a.jsonl", lines(messages("Hi", "Zoë!")).encode("cp1252")), *CONVERT,
        read=dialogues_of, never=(SKIP, WHOLE)),
    refused("windows_1252_prompts", ("a.txt", WINDOWS), *CONVERT, read=prompts_of, never=(SKIP, WHOLE)),
    refused("utf_16_without_mark", ("a.jsonl", LINES.encode("utf-16-le")), *NO_MARK, "UTF-16LE",
        never=(SKIP, WHOLE)),
    refused("utf_16_without_mark_even_if_rows_may_be_skipped", ("a.txt", f"{CAT}\n{DOG}\n".encode("utf-16-be")),
        *NO_MARK, "UTF-16BE", how={"skip_bad_rows": True}),
    refused("utf_16_without_mark_dialogues", ("a.csv", "prompt,response\nHi,Hello!\n".encode("utf-16-le")),
        *NO_MARK, read=dialogues_of, never=(SKIP,)),
    refused("utf_16_without_mark_prompts", ("a.txt", f"{CAT}\n".encode("utf-16-le")), *NO_MARK, read=prompts_of),
    refused("one_line_that_is_not_utf_8", ("a.txt", f"Zoë ran.\n{CAT}\n".encode() + b"caf\xe9\n"),
        "line 3: not UTF-8", SKIP, never=("1252",)),
    refused("truncated_gz", ("a.jsonl.gz", gzip.compress(LINES.encode())[:-12]), "cannot be decompressed", WHOLE,
        never=(SKIP,)),
    refused("truncated_parquet", ("a.parquet", parquet(text=[CAT])[:-9]), "cannot be read", WHOLE,
        never=(SKIP,)),
    refused("parquet_without_rows", ("a.parquet", parquet(text=pyarrow.array([], pyarrow.string()))),
        "no stories in", never=(SKIP, COLUMN, WHOLE)),
    refused("zip", ("a.zip", b"PK"), "is an archive of files: unpack it", never=(SKIP, WHOLE)),
    refused("zip_named_jsonl", ("a.jsonl", b"PK\x03\x04" + bytes(40)), "is a zip archive", never=(SKIP, WHOLE)),
    refused("tar_in_gz", ("a.txt.gz", gzip.compress(b"a" + bytes(256) + b"ustar" + bytes(40))), "is an archive",
        never=(SKIP,)),
    refused("pointer_of_git_lfs", ("a.csv", "version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 9\n"),
        "git lfs pull", never=(SKIP, COLUMN)),
    refused("nothing", ("a.jsonl", ""), "no stories in", never=(SKIP, COLUMN, WHOLE)),
    # JSON
    refused("broken_line", ("a.jsonl", LINES + '{"text": \n' + LINES), "line 3: not JSON", SKIP, never=(WHOLE,)),
    refused("broken_pretty_object", ("a.json", pretty(texts(CAT, DOG))[:-8]), "not JSON", never=(SKIP,)),
    refused("broken_pretty_prompt", ("a.jsonl", pretty({"prompt": CAT})[:-3]), "not JSON", read=prompts_of,
        never=(SKIP,)),
    # Dialogues
    refused("unknown_key_of_the_speaker", ("a.jsonl", WHO_SPEAKS), '"who", robot or kid',
        "--speaker_key who, and the assistant as --assistant_name", "--speaker_key none", read=dialogues_of,
        never=(SKIP,)),
    refused("true_or_false_says_who_speaks", ("a.jsonl", bot_first("is_user", False, True)),
        '"is_user", false or true', "--speaker_key is_user", read=dialogues_of),
    refused("three_speakers", ("a.json",
        pretty([{"messages": [{"sender": "Mia", "text": "Hi"}, {"sender": "Tom", "text": "Hello"},
        {"sender": "Pip", "text": "Arr!"}]}])), "3 speakers", "--assistant_name", read=dialogues_of,
        never=(SKIP,)),
    refused("name_that_never_speaks", ("a.jsonl", MIA_AND_PIP), "--assistant_name Tom does not speak", "mia, pip",
        read=dialogues_of, how={"assistant_name": "Tom"}),
    refused("speaker_key_that_no_turn_has", ("a.jsonl", lines(messages("Hi", "Hello!"))),
        "no turn has the --speaker_key who", read=dialogues_of, how={"speaker_key": "who"}),
    refused("unknown_role", ("a.jsonl",
        lines({"messages": [turn("narrator", "Night."), *turns("Hi", "Hello!")]}, messages("Who?", "Pip."))),
        "line 1: turn 1", '"narrator"', SKIP, read=dialogues_of),
    refused("two_forms_in_a_file",
        ("a.jsonl", lines(messages("Hi", "Hello!"), {"prompt": "Who?", "response": "Pip."},
        messages("Hi", "Hello!"))), "line 2", '"messages"', SKIP, read=dialogues_of),
    refused("plain_text", ("a.txt", "User: Hi\nBot: Hello!\n"), "plain texts", ".jsonl or .csv", read=dialogues_of,
        never=(SKIP, WHOLE, COLUMN)),
    refused("unknown_columns", ("a.jsonl", lines({"prompt": "Hi", "chosen": "Hello!", "rejected": "Go!"})),
        "prompt, chosen, rejected", read=dialogues_of, never=(SKIP, COLUMN, WHOLE)),
    refused("turns_without_a_dialogue", ("a.jsonl", lines(*turns("Hi", "Hello!"))), "each row is one turn",
        "dialogue_id", read=dialogues_of, never=(SKIP,)),
    refused("two_forms_in_a_folder", {"a.jsonl": lines({"prompt": "Who?", "response": "Pip."}),
        "b.jsonl": lines(messages("Hi", "Hello!"), messages("Hi", "Hello!"))}, "a.jsonl, line 1",
        "--dataset of its own", read=dialogues_of),
    refused("system_answers", ("a.jsonl", lines({"messages": turns("Hi", "Hello!", names=("user", "system"))})),
        "pass --assistant_name system", read=dialogues_of),
    refused("more_questions_than_answers", ("a.json", json.dumps({"questions": ["Hi", "Who?"], "answers": ["Hello!"]})),
        '"questions" contains', read=dialogues_of),
    refused("no_name_of_a_dialogue", ("a.csv", "dialogue_id,role,text\n,user,Hi\n,bot,Hello!\n"), "line 2",
        "no dialogue_id", read=dialogues_of),
    refused("signs_of_other_scripts", ("a.jsonl", lines({"messages": turns("Hi", "Hello!", names=("用户", "助手"))})),
        '"用户"', read=dialogues_of),
    refused("dialogues_as_stories", ("a.jsonl", lines(messages("Hi", "Hello!"))), "train_tinystories_chat_model.py",
        never=(SKIP, COLUMN)),
]  # fmt: skip


@pytest.mark.parametrize(("read", "files", "words", "never", "how"), REFUSALS)
def test_a_refusal_says_what_is_wrong_and_gives_only_useful_advice(read, files, words, never, how, tmp_path):
    options = {} if read is prompts_of else how
    message = error_of(read, write(tmp_path, files), **options)
    for word in words:
        assert word in message
    for word in never:
        assert word not in message


# The shared cases -----------------------------------------------------------------------------------------------------

PETS = ["Once a cat ran.", "A dog sat."]
WELCOME = talk("Hi Pip", "What story do you want?")
CASE = "Once there was a cat.\nIt ran, and ran.\n\nThe end."


@pytest.mark.skipif(not CASES.is_dir(), reason="needs the shared cases next to the repository")
@pytest.mark.parametrize(
    ("name", "read", "right"),
    [
        ("01_barelist/identity.jsonl", dialogues_of,
            [talk("Who are you?", "I am Pip the robot."),
            talk("Hello", "Hi! Do you want a story?", "Yes", "Once there was a cat.")]),
        ("02_data_wrapper/d.json", dialogues_of, [talk("Tell a story of a cat.", "Once a cat ran."), HI]),
        ("02_data_wrapper/list_of_texts.json", stories_of, PETS),
        ("03_input_output/io.json", dialogues_of, [talk("Who has a red hat?", "Tim has."), HI]),
        ("03_input_output/spaces.csv", dialogues_of, [HI, talk("Who?", "Tim.")]),
        ("05_tool_null/developer.jsonl", dialogues_of, [talk("Hi", "Hello!", system="Be kind.")]),
        ("05_tool_null/t.jsonl", dialogues_of, [talk("What is the weather?", "It is sunny."), HI]),
        ("06_content_list/c.jsonl", dialogues_of, [HI]),
        ("07_onefile/conv", dialogues_of, [talk(f"Hi {number}", f"Hello {number}") for number in (1, 2, 3)]),
        ("08_utf16/ps51.jsonl", stories_of, ["Once a cat ran.", "A dog sat — “good”."]),
        ("08_utf16/three.txt", stories_of, [*PETS, "A pig ran."]),
        ("09_pandas_csv/repr.csv", dialogues_of,
            [talk("What's your name?", "I am Pip."), talk("Hi", 'He said "Hello"!')]),
        ("10_blankline/blank.txt", stories_of,
            ['Tom had a red ball.\nHe liked to play.\n"Hi," said Mia.', "Lily saw a frog.\nThe frog was green.",
            "The end came.\nAll slept."]),
        ("14_gz/S.CSV", stories_of, ["Once a cat."]),
        ("14_gz/hidden", stories_of, ["A dog."]),
        ("18_speaker/names.jsonl", dialogues_of, [talk("Hi", "Arr, hello!"), talk("Hi Pip", "Want a story?")]),
        ("18_speaker/speaker.jsonl", dialogues_of, [WELCOME, WELCOME]),
        ("19_context/dolly.jsonl", dialogues_of,
            [talk("Tim has a red hat. Mia has a blue hat.\nWho has the hat?", "Tim.")]),
        ("21_json/pretty.jsonl", stories_of, ["Once a cat ran.", "A dog."]),
        ("23_numbers/float.csv", dialogues_of,
            [talk("What is 2 + 2?", "4"), talk("What is 5 / 2?", "2.5"), talk("What is 10 - 3?", "7")]),
        ("23_numbers/nan.jsonl", dialogues_of, [talk("Bye", "See you")]),
        ("23_numbers/zeros.csv", dialogues_of,
            [talk("What comes after 006?", "007"), talk("What comes after 008?", "009")]),
        ("24_onestory_a_file/s", stories_of, [f"The Cat {number}\n\n{CASE}" for number in (1, 2, 3)]),
        ("26_hf_disk/ds", stories_of, [*PETS, "A pig."]),
    ],
)  # fmt: skip
def test_the_shared_cases_are_read_correctly(name, read, right):
    assert read(CASES / name) == right


@pytest.mark.skipif(not CASES.is_dir(), reason="needs the shared cases next to the repository")
@pytest.mark.parametrize(
    ("name", "read", "words"),
    [
        ("08_utf16/cp1252.csv", stories_of, CONVERT),
        ("12_parquet/empty.parquet", stories_of, ("no stories in",)),
        ("16_csv_comma/d.csv", dialogues_of, ("line 2: 3 values, but 2 columns", QUOTES)),
        ("16_csv_comma/id.csv", stories_of, ("line 2: 3 values, but 2 columns", QUOTES)),
    ],
)
def test_the_shared_cases_are_refused_with_the_reason(name, read, words):
    message = error_of(read, CASES / name)
    for word in words:
        assert word in message
    for advice in (SKIP, WHOLE, COLUMN):
        assert advice not in message


@pytest.mark.skipif(not CASES.is_dir(), reason="needs the shared cases next to the repository")
def test_a_file_next_to_train_is_reported_as_left_out(said):
    folder = CASES / "25_folder/trainplus"
    assert stories_of(folder) == stories_of(folder / "train.jsonl")
    assert any("left out: pirates.jsonl" in line for line in said)


@pytest.mark.skipif(not CASES.is_dir(), reason="needs the shared cases next to the repository")
def test_wrapped_lines_are_one_story_if_the_flag_says_so():
    path = CASES / "10_blankline/wrapped.txt"
    assert len(stories_of(path)) == 3
    assert stories_of(path, story_ends="file") == [path.read_text().strip()]
