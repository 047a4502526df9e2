"""Sources of stories and dialogues: every kind of file gives the same rows, and errors are one line."""

import gzip
import importlib
import sys
from unittest import mock

import pytest
from programs import ROOT, run, write_table
from refusals import error_of

from common.errors import UserError
from corpus.notes import Notes, ReadingFlags
from corpus.sources import file_split, open_dataset
from corpus.stories import read_stories

datasets = pytest.importorskip("datasets")
huggingface_hub = pytest.importorskip("huggingface_hub")

SHARED = ROOT.parent / "shared"
STORIES = ["Tom has a red ball.", 'Zoé said: "Hello, fox!" 🦊', "It was late, so they slept. The end."]
LONG_STORIES = ["One day, Tom ran.\nHe fell.\n\nHe cried.", 'Zoé said:\n"Hello, fox!" 🦊', "The end."]
SEPARATOR = "<|endoftext|>"
HUB_NAME = "somebody/stories"
LOCAL_ADVICE = "sample_data/stories"
SKIP = ReadingFlags(skip_bad_rows=True)


@pytest.fixture(autouse=True)
def own_library_cache(tmp_path_factory, monkeypatch):
    """Use a separate cache: `datasets` leaves lock files in its cache, even for local files."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("library")))


def write(path, stories, column="text"):
    """Write stories in the format of the path's suffix, and return the path."""
    if path.suffix != ".txt":
        return write_table(path, [{"number": number, column: story} for number, story in enumerate(stories)])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(story + "\n" for story in stories).encode())
    return path


def stories_of(path, split="train", **options):
    return list(read_stories(open_dataset(str(path))[split], **options))


# Files ----------------------------------------------------------------------------------------------------------------

SUFFIXES = [".jsonl", ".json", ".txt", ".csv", ".parquet"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_kind_of_file_gives_the_same_stories(tmp_path, suffix):
    path = write(tmp_path / f"stories{suffix}", STORIES)
    assert stories_of(path) == STORIES
    assert list(open_dataset(str(path))) == ["train"]


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".parquet"])
def test_stories_of_several_lines_stay_whole(tmp_path, suffix):
    assert stories_of(write(tmp_path / f"stories{suffix}", LONG_STORIES)) == LONG_STORIES


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_split_can_be_read_again(tmp_path, suffix):
    split = open_dataset(str(write(tmp_path / f"stories{suffix}", STORIES)))["train"]
    assert list(read_stories(split)) == list(read_stories(split)) == STORIES


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_empty_stories_are_skipped(tmp_path, suffix):
    path = write(tmp_path / f"stories{suffix}", [STORIES[0], "", STORIES[1], "   ", STORIES[2], ""])
    assert stories_of(path) == STORIES


def test_a_missing_value_counts_as_an_empty_story(tmp_path):
    assert stories_of(write(tmp_path / "stories.parquet", [STORIES[0], None, *STORIES[1:]])) == STORIES


def test_a_json_file_may_contain_one_object_per_line(tmp_path):
    assert stories_of(write(tmp_path / "stories.jsonl", STORIES).rename(tmp_path / "stories.json")) == STORIES


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(f"\n{SEPARATOR}\n".join(LONG_STORIES), id="on lines of their own"),
        pytest.param(SEPARATOR.join(LONG_STORIES), id="inside lines"),
        pytest.param(f"\n{SEPARATOR}\n".join(LONG_STORIES) + f"\n{SEPARATOR}\n", id="after the last story"),
        pytest.param(f"{SEPARATOR}{SEPARATOR} \n ".join(["", *LONG_STORIES, ""]), id="with nothing between"),
    ],
)
def test_stories_in_a_text_file_are_split_at_the_separator(tmp_path, text):
    (tmp_path / "stories.txt").write_bytes(text.encode())
    assert stories_of(tmp_path / "stories.txt") == LONG_STORIES


def test_a_line_may_contain_several_stories(tmp_path):
    (tmp_path / "stories.txt").write_text(f"one{SEPARATOR}two{SEPARATOR}three\nmore{SEPARATOR}four{SEPARATOR}")
    assert stories_of(tmp_path / "stories.txt") == ["one", "two", "three\nmore", "four"]


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".txt", ".csv"])
def test_a_byte_order_mark_windows_line_ends_and_empty_lines_change_nothing(tmp_path, suffix):
    path = write(tmp_path / f"stories{suffix}", STORIES)
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\xef\xbb\xbf" + b"\r\n".join([*lines[:2], b"", b"", *lines[2:], b"", b""]))
    assert stories_of(path) == STORIES


def test_windows_line_ends_inside_a_story_become_newlines(tmp_path):
    text = f"\n{SEPARATOR}\n".join(LONG_STORIES)
    (tmp_path / "stories.txt").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert stories_of(tmp_path / "stories.txt") == LONG_STORIES


def test_stories_are_stripped_only_at_their_ends(tmp_path):
    assert stories_of(write(tmp_path / "stories.jsonl", ["\n  Tom  ran.\n\nThe end. \n"])) == ["Tom  ran.\n\nThe end."]


def test_a_story_in_a_csv_file_may_be_any_word(tmp_path):
    words = ["Tom ran.", "NA", "null", "None", "nan"]
    assert stories_of(write(tmp_path / "stories.csv", words)) == words


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".parquet"])
def test_another_column_can_be_named(tmp_path, suffix):
    assert stories_of(write(tmp_path / f"stories{suffix}", STORIES, "story"), how=ReadingFlags("story")) == STORIES


@pytest.mark.parametrize("limit, count", [(1, 1), (2, 2), (3, 3), (9, 3), (None, 3)])
def test_a_limit_counts_only_stories_that_are_not_empty(tmp_path, limit, count):
    path = write(tmp_path / "stories.jsonl", ["", STORIES[0], " ", *STORIES[1:]])
    assert stories_of(path, limit=limit) == STORIES[:count]


def test_no_row_is_read_beyond_a_limit(tmp_path):
    path = write(tmp_path / "stories.jsonl", STORIES)
    path.write_bytes(path.read_bytes() + b"broken\n")
    assert stories_of(path, limit=3) == STORIES


def test_text_files_need_no_library(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for suffix in (".jsonl", ".json", ".txt", ".csv"):
        path = write(tmp_path / f"stories{suffix}", STORIES)
        (tmp_path / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        assert stories_of(path) == stories_of(f"{path}.gz") == STORIES
    (tmp_path / "stories.parquet").write_bytes(b"PAR1")
    (tmp_path / "stories.txt.zst").write_bytes(b"\x28\xb5\x2f\xfd")
    for name in ("stories.parquet", "stories.txt.zst"):
        message = error_of(stories_of, tmp_path / name)
        assert "install" in message and "datasets" in message


# Folders --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(  # each name and each kind of file
    ("name", "suffix"),
    [("validation", ".jsonl"), ("valid", ".json"), ("val", ".txt"), ("test", ".csv"), ("validation", ".parquet")],
)
def test_a_folder_has_a_training_and_a_validation_file(tmp_path, suffix, name):
    write(tmp_path / f"train{suffix}", STORIES)
    write(tmp_path / f"{name}{suffix}", STORIES[:1])
    assert list(open_dataset(str(tmp_path))) == ["train", "validation"]
    assert stories_of(tmp_path) == STORIES and stories_of(tmp_path, "validation") == STORIES[:1]


def test_a_test_split_is_ignored_if_there_is_a_validation_split(tmp_path):
    for name in ("train", "test", "validation"):
        write(tmp_path / f"{name}.jsonl", [name])
    assert stories_of(tmp_path) == ["train"] and stories_of(tmp_path, "validation") == ["validation"]


@pytest.mark.parametrize(
    "train, validation",
    [
        ("data/train-00000-of-00001.parquet", "data/validation-00000-of-00001.parquet"),
        ("train/part.jsonl", "valid/part.jsonl"),
        ("stories.jsonl", "validation.jsonl"),
        ("TinyStories-train.txt", "TinyStories-valid.txt"),  # the original files of TinyStories
        ("TinyStoriesV2-GPT4-train.txt", "TinyStoriesV2-GPT4-valid.txt"),
    ],
)
def test_a_folder_may_have_a_layout_of_the_hub(tmp_path, train, validation):
    write(tmp_path / train, STORIES)
    write(tmp_path / validation, STORIES[:1])
    assert stories_of(tmp_path) == STORIES
    assert stories_of(tmp_path, "validation") == STORIES[:1]


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_the_parts_of_a_split_are_read_in_order(tmp_path, suffix):
    for number, story in enumerate(STORIES):
        write(tmp_path / "data" / f"train-0000{number}-of-00003{suffix}", [story])
    assert stories_of(tmp_path) == STORIES


@pytest.mark.parametrize("name", ["stories.jsonl", "any.txt", "deep/er/any.csv", "values.jsonl", "tests.jsonl"])
def test_a_folder_may_contain_one_file_of_any_name(tmp_path, name):
    write(tmp_path / name, STORIES)
    assert stories_of(tmp_path) == STORIES


def test_other_files_in_a_folder_are_skipped(tmp_path):
    write(tmp_path / "train.jsonl", STORIES)
    for name in ("README.md", "LICENSE", "dataset_infos.yaml", "train.jsonl.bak"):
        (tmp_path / name).write_text("not a story")
    assert stories_of(tmp_path) == STORIES


@pytest.mark.parametrize("name", ["train.jsonl", "stories.jsonl", "stories.parquet"])
def test_a_readme_next_to_the_stories_is_not_read_as_stories(tmp_path, name):
    write(tmp_path / "README.txt", ["This is no story."])
    write(tmp_path / name, STORIES)
    assert stories_of(tmp_path) == STORIES


# Errors in the data ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["nowhere.jsonl", "nowhere.parquet", "no/such/stories", "nowhere/stories.txt"])
def test_a_missing_path_is_refused(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    for path in (name, str(tmp_path / name)):
        message = error_of(open_dataset, path)
        assert f"no file or folder {path}" in message and "--dataset" in message


def test_an_empty_folder_is_refused(tmp_path):
    message = error_of(open_dataset, str(tmp_path))
    assert str(tmp_path) in message and "train.jsonl" in message


def test_a_folder_without_training_data_is_refused(tmp_path):
    write(tmp_path / "validation.jsonl", STORIES)
    write(tmp_path / "test.jsonl", STORIES)
    message = error_of(open_dataset, str(tmp_path))
    assert str(tmp_path) in message and "train" in message and "validation" in message


@pytest.mark.parametrize("name", ["stories.doc", "stories"])
def test_an_unknown_kind_of_file_is_refused(tmp_path, name):
    (tmp_path / name).write_text("Tom ran.")
    message = error_of(open_dataset, str(tmp_path / name))
    assert str(tmp_path / name) in message and ".jsonl .ndjson .json .csv .tsv .txt .parquet" in message


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_empty_file_is_refused(tmp_path, suffix):
    (tmp_path / f"stories{suffix}").write_bytes(b"")
    assert str(tmp_path / f"stories{suffix}") in error_of(stories_of, tmp_path / f"stories{suffix}")


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".txt"])
def test_a_file_of_empty_stories_is_refused(tmp_path, suffix):
    path = write(tmp_path / f"stories{suffix}", ["", "  "])
    assert f"no stories in {path}" in (message := error_of(stories_of, path)) and "--dataset" in message


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".parquet"])
def test_a_wrong_column_is_refused_and_the_existing_columns_are_named(tmp_path, suffix):
    message = error_of(stories_of, path := write(tmp_path / f"stories{suffix}", STORIES, "story"))
    place = " 2" if suffix == ".csv" else " 1"
    for part in (str(path), place, "number, story", '"text"', "--text_column story"):
        assert part in message


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet"])  # in a csv file everything is text
def test_a_column_of_numbers_is_refused(tmp_path, suffix):
    message = error_of(stories_of, path := write(tmp_path / f"stories{suffix}", [7, 8]))
    for part in (str(path), " 1", '"text"', "7", "not text"):
        assert part in message


@pytest.mark.parametrize(
    "name, content, part",
    [
        pytest.param("a.jsonl", b'{"text": "Tom ran."}\n\n{"text": Tom}\n', "line 3: not JSON", id="broken line"),
        pytest.param("a.json", b'{"text": "Tom ran."}\n{"text": "To', "line 2: not JSON", id="cut off"),
        pytest.param("a.json", b'[{"text": "Tom ran."},\n{"text": Tom}]', "line 2", id="broken list"),
        pytest.param("a.jsonl", b'{"text": "Zoe"}\n{"text": "Zo\xe9"}\n', "line 2: not UTF-8", id="jsonl, latin 1"),
        pytest.param("a.txt", b"Tom ran.\n\nZo\xe9 ran.\n", "line 3: not UTF-8", id="txt, latin 1"),
        pytest.param("a.json", b'[{"text": "Zo\xe9"}]', "not UTF-8", id="json, latin 1"),
        pytest.param("a.csv", b"text\nZo\xe9\n", "line 2: not UTF-8", id="csv, latin 1"),
        pytest.param("a.json", b'[{"text": "Tom ran."}, 5]', "item 2: found a number", id="a number in a list"),
        pytest.param("a.jsonl", b'{"text": "Tom ran."}\n["Zoe"]\n', "line 2: found a list", id="list in a line"),
        pytest.param("a.jsonl", b"[" * 100_000, "line 1: not JSON", id="too deep"),
        pytest.param("a.parquet", b"no parquet " * 20, "", id="broken parquet"),
        pytest.param("a.parquet", b"PAR1 no parquet PAR1", "", id="broken parquet's inside"),
        pytest.param("a.csv", b'text\n"Tom ran.\nZoe', "", id="broken csv"),
    ],
)
def test_broken_data_is_refused_with_its_place(tmp_path, name, content, part):
    (tmp_path / name).write_bytes(content)
    message = error_of(stories_of, tmp_path / name)
    assert str(tmp_path / name) in message and part in message.removeprefix(str(tmp_path / name))


def test_a_truncated_parquet_file_is_refused(tmp_path):
    path = write(tmp_path / "stories.parquet", STORIES)
    path.write_bytes(path.read_bytes()[:-100])
    assert str(path) in error_of(stories_of, path)


# The hub --------------------------------------------------------------------------------------------------------------


class Hub:
    """A fake hub with `splits`; it raises `error` if that is set, and records requests in `calls`."""

    def __init__(self):
        self.splits = {"train": STORIES}
        self.error = None
        self.calls = []

    def dataset_info(self, name, **options):
        self.calls.append((name, options))
        if self.error:
            raise self.error
        return mock.Mock(sha="0123abc")

    def load_dataset(self, name, **options):
        self.calls.append((name, options))
        return {
            part: datasets.Dataset.from_list([{"text": story} for story in stories])
            for part, stories in self.splits.items()
        }


@pytest.fixture
def hub(monkeypatch):
    hub = Hub()
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", hub.dataset_info)
    monkeypatch.setattr(datasets, "load_dataset", hub.load_dataset)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    return hub


@pytest.mark.parametrize("name", ["validation", "valid", "val", "test"])
def test_the_splits_of_a_hub_data_set_are_found(hub, name):
    hub.splits = {"train": STORIES, name: STORIES[:1]}
    assert stories_of(HUB_NAME) == STORIES
    assert stories_of(HUB_NAME, "validation") == STORIES[:1]


def test_a_hub_data_set_without_a_train_split_is_refused(hub):
    hub.splits = {"everything": STORIES}
    message = error_of(open_dataset, HUB_NAME)
    assert HUB_NAME in message and "train" in message and "everything" in message


@pytest.mark.parametrize("streaming", [True, False])
def test_a_hub_data_set_is_streamed_on_request(hub, streaming):
    open_dataset(HUB_NAME, streaming=streaming)
    name, options = hub.calls[-1]
    assert name == HUB_NAME and options["streaming"] is streaming and options["revision"] == "0123abc"


def test_code_of_a_hub_data_set_is_never_trusted(hub):
    open_dataset(HUB_NAME)
    assert hub.calls and not any("trust_remote_code" in options for _, options in hub.calls)


def test_offline_the_hub_is_not_contacted(hub, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    hub.error = ConnectionError("the hub was asked")
    assert stories_of(HUB_NAME) == STORIES
    assert hub.calls[-1][1]["streaming"] is False  # downloaded data is read from the disk


def test_the_splits_of_a_hub_data_set_have_their_own_fingerprints(hub):
    """Otherwise they would share one token cache, and validation would use the training stories."""
    hub.splits = {"train": STORIES, "validation": STORIES[:1]}
    splits = open_dataset(HUB_NAME)
    assert splits["train"].fingerprint() != splits["validation"].fingerprint()
    assert splits["train"].fingerprint() == open_dataset(HUB_NAME)["train"].fingerprint()


def network_errors():
    """Return errors of an unreachable hub; the HTTP library depends on the version of huggingface_hub."""
    errors = [ConnectionError("refused"), TimeoutError("timed out"), OSError("no route\nto host"), ConnectionError()]
    for library in ("httpx", "httpx2", "requests"):
        try:
            errors.append(importlib.import_module(library).ReadTimeout("timed out"))
        except ImportError:
            continue
    errors.append(huggingface_hub.errors.HfHubHTTPError("500 Server Error\nRequest ID: 1", response=mock.Mock()))
    return errors


@pytest.mark.parametrize("error", network_errors(), ids=repr)
def test_an_unreachable_hub_is_named_together_with_a_local_alternative(hub, error):
    hub.error = error
    message = error_of(open_dataset, HUB_NAME)
    assert HUB_NAME in message and f"--dataset {LOCAL_ADVICE}" in message


def test_a_name_that_the_hub_does_not_know_is_refused(hub):
    hub.error = huggingface_hub.errors.RepositoryNotFoundError("404 Client Error\nNot Found", response=mock.Mock())
    message = error_of(open_dataset, HUB_NAME)
    assert f"no data set {HUB_NAME}" in message and LOCAL_ADVICE in message


def test_an_impossible_data_set_name_is_refused(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    assert "no data set a story?" in error_of(open_dataset, "a story?")


def test_a_hub_that_stops_answering_is_refused(hub, monkeypatch):
    class Breaking:
        def iter(self, batch_size):
            yield {"text": STORIES}
            raise ConnectionError("reset\nby peer")

    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **kwargs: {"train": Breaking()})
    assert f"{HUB_NAME}, after row 3" in error_of(stories_of, HUB_NAME)


# The program ----------------------------------------------------------------------------------------------------------


def test_step_1_ends_with_one_line_if_the_hub_is_unreachable(tmp_path):
    (tmp_path / "work").mkdir()
    online = dict.fromkeys(("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "http_proxy", "HTTP_PROXY"), "")
    away = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "home")}
    done = run(tmp_path / "work", "train_bpe_tokenizer_hf", status=2, environment=online | away)
    (line,) = done.stderr.splitlines()
    assert done.stdout == "" and line.startswith("error: ") and f"--dataset {LOCAL_ADVICE}" in line
    assert list((tmp_path / "work").iterdir()) == []


@pytest.mark.parametrize("name", ["stories.parquet", "stories.jsonl"])
def test_step_1_ends_with_one_line_if_the_data_is_broken(tmp_path, name):
    (tmp_path / name).write_bytes(b"text\nZo\xe9\n")
    environment = {"HF_HOME": str(tmp_path / "home")}
    done = run(tmp_path, "train_bpe_tokenizer_hf", "--dataset", name, status=2, environment=environment)
    (line,) = done.stderr.splitlines()
    assert done.stdout == "" and line.startswith(f"error: {name}")
    assert not list(tmp_path.glob("*.pkl*"))


@pytest.mark.skipif(not (SHARED / "tinystories").is_dir(), reason="needs TinyStories next to the repository")
def test_the_shared_part_of_tinystories_has_850_and_75_stories():
    assert len(stories_of(SHARED / "tinystories")) == 850
    assert len(stories_of(SHARED / "tinystories", "validation")) == 75


# Unusable rows --------------------------------------------------------------------------------------------------------


def test_bad_rows_can_be_skipped_and_are_counted(tmp_path):
    rows = ['{"text": "one"}', '{"text": "tw', '{"story": "three"}', '{"text": null}', "7", '{"text": "six"}', ""]
    (tmp_path / "a.jsonl").write_bytes("\n".join(rows).encode() + b'\n{"text": "caf\xe9"}\n{"text": "eight"}')
    notes = Notes()
    assert list(read_stories(file_split(tmp_path / "a.jsonl"), SKIP, notes=notes)) == ["one", "six", "eight"]
    assert notes.lines()[-2:] == ["left out: rows without a text (1)", notes.bad_summary()]
    assert "4 bad rows" in notes.bad_summary() and "a.jsonl, line 2: not JSON" in notes.bad_summary()


def test_lines_that_are_not_utf_8_can_be_skipped(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"one\ntw\xff\nthree\n")
    with pytest.raises(UserError, match="line 2: not UTF-8"):
        list(read_stories(file_split(tmp_path / "a.txt")))
    notes = Notes()
    assert list(read_stories(file_split(tmp_path / "a.txt"), SKIP, notes=notes)) == ["one", "three"]
    assert notes.bad_rows == 1


def test_a_file_with_only_bad_rows_is_refused(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": \n' * 3)
    with pytest.raises(UserError, match="no stories in .*; 3 bad rows skipped; the first: .*line 1"):
        list(read_stories(file_split(tmp_path / "a.jsonl"), SKIP))
