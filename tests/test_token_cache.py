"""The token cache on disk: it contains the tokens of all texts, or does not exist at all."""

import gzip
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from programs import write_rows
from tiny import SPECIAL, render_dialogue
from tiny_data import BOS, EOS, predicted_of, texts_of

from common.errors import UserError
from corpus import token_cache
from corpus.notes import ReadingFlags
from corpus.sources import Split, open_dataset
from corpus.token_cache import cache_dialogues, cache_stories
from data import Rows, train_tokenizer

STORIES = ["Tom has a red ball.", "Zoé saw a fox! 🦊", "The end.", "It was late, so they slept.\n\nThe fox slept too."]
LONG = "Tom has a red ball. " * 9


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(STORIES * 2, 300)


class Counted(Split):
    """A split of stories in memory that counts how often it is read."""

    def __init__(self, stories):
        self.times_read = 0
        super().__init__("stories in memory", lambda wanted, notes: self.read(stories), lambda: repr(stories))

    def read(self, stories):
        self.times_read += 1
        yield from (({"text": story}, f"story {number}") for number, story in enumerate(stories))


def write_stories(path, stories, column="text"):
    write_rows(path, [{column: story} for story in stories])
    return open_dataset(str(path))["train"]


def test_cached_stories_are_between_bos_and_eos(tokenizer, tmp_path, said):
    cache = cache_stories(Counted(STORIES), tokenizer, tmp_path)
    assert texts_of(cache) == [[BOS, *tokenizer.encode(story), EOS] for story in STORIES]
    assert cache.lengths().tolist() == [len(text) for text in texts_of(cache)]
    assert len(said) == 1 and "4 texts" in said[0]


def test_the_sizes_of_cached_stories_are_their_utf_8_bytes(tokenizer, tmp_path, said):
    cache = cache_stories(Counted(STORIES), tokenizer, tmp_path)
    assert cache.sizes.tolist() == [len(story.encode()) for story in STORIES]


def test_a_story_with_a_lone_surrogate_has_the_size_of_its_replacement(tokenizer, tmp_path, said):
    cache = cache_stories(Counted(["a\ud800b"]), tokenizer, tmp_path)
    assert tokenizer.decode(cache.text(0)) == "a\ufffdb"
    assert cache.sizes.tolist() == [len("a\ufffdb".encode())]


def test_the_size_of_text_batches_makes_no_difference(tokenizer, tmp_path, monkeypatch, said):
    stories = [f"{number}. Tom ran." for number in range(40)]
    whole = cache_stories(Counted(stories), tokenizer, tmp_path / "whole")
    monkeypatch.setattr(token_cache, "BATCH_BYTES", 60)
    parts = cache_stories(Counted(stories), tokenizer, tmp_path / "parts")
    assert texts_of(whole) == texts_of(parts) and whole.sizes.tolist() == parts.sizes.tolist()


def test_cached_dialogues_equal_the_rendered_ones(tokenizer, tmp_path, said):
    spoken = [["Hi!", "Hello."], ["Tom ran? " * 9, "No."], ["Hi!", "Hello.", "You?", "Zoé 🦊"]]
    rows = [{"conversation": [{"text": text} for text in texts]} for texts in [*spoken, ["Hi!", "  "], ["Hi!"]]]
    write_rows(tmp_path / "train.jsonl", rows)
    split = open_dataset(str(tmp_path / "train.jsonl"))["train"]
    cache = cache_dialogues(split, tokenizer, tmp_path / "cache", 25)
    roles = ["user", "assistant"] * 2
    rendered = [render_dialogue(tokenizer, list(zip(roles, texts, strict=False)), 25) for texts in spoken]
    assert texts_of(cache) == [ids for ids, _, _ in rendered]
    assert cache.sizes.tolist() == [size for _, _, size in rendered]


@pytest.mark.parametrize(
    "turns",
    [[("assistant", "Hello.")], [("user", "Hi!"), ("assistant", " ")], [("assistant", "Hello."), ("user", "Hi!")]],
)
def test_dialogues_without_anything_to_predict_are_refused(tokenizer, tmp_path, said, turns):
    row = {"conversation": [{"role": role, "text": text} for role, text in turns]}
    (tmp_path / "train.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(UserError) as raised:
        cache_dialogues(open_dataset(str(tmp_path / "train.jsonl"))["train"], tokenizer, tmp_path, 50)
    assert str(tmp_path / "train.jsonl") in str(raised.value)


@pytest.mark.parametrize("limit", [1, 3, 9])
def test_the_cache_respects_a_limit(tokenizer, tmp_path, said, limit):
    cache = cache_stories(Counted(STORIES), tokenizer, tmp_path, limit=limit)
    assert texts_of(cache) == [[BOS, *tokenizer.encode(story), EOS] for story in STORIES[:limit]]


@pytest.mark.parametrize("vocab_size, dtype", [(300, np.uint16), (65_536, np.uint16), (65_537, np.uint32)])
def test_tokens_use_two_bytes_if_they_fit_and_four_if_not(tmp_path, said, vocab_size, dtype):
    last = vocab_size - 1
    stub = SimpleNamespace(special=SPECIAL, vocab_size=vocab_size, fingerprint="stub")
    stub.encode_batch = lambda texts: [[last] for _ in texts]
    cache = cache_stories(Counted(STORIES), stub, tmp_path)
    assert cache.tokens.dtype == dtype and texts_of(cache) == [[BOS, last, EOS]] * len(STORIES)


def test_rows_of_cached_stories_spell_the_stories(tokenizer, tmp_path, said):
    """Everything together, from the stories to the disk and back."""
    cache = cache_stories(Counted(STORIES), tokenizer, tmp_path)
    predicted = predicted_of(Rows(cache, 16, tokenizer.special))
    assert tokenizer.decode(predicted) == "".join(STORIES) and predicted.count(EOS) == len(STORIES)


def test_a_long_story_tokenized_in_pieces_has_the_same_tokens(tokenizer):
    text = "\n\n".join([LONG, "Tom  said:   no!\tYes ?  \n ", LONG]) * 3
    parts = list(token_cache.pieces(text, size=25))
    assert len(parts) > 10 and "".join(parts) == text
    assert [token for part in parts for token in tokenizer.encode(part)] == tokenizer.encode(text)


# Made once, and again if needed ---------------------------------------------------------------------------------------


def test_a_cache_is_made_once_and_used_again(tokenizer, tmp_path, said):
    split = Counted(STORIES)
    first = cache_stories(split, tokenizer, tmp_path)
    second = cache_stories(split, tokenizer, tmp_path)
    assert split.times_read == 1
    assert texts_of(first) == texts_of(second) and first.sizes.tolist() == second.sizes.tolist()
    assert "written to" in said[0] and "from the token cache" in said[1]


def test_if_a_cache_file_cannot_be_opened_nothing_is_left(tokenizer, tmp_path, monkeypatch):
    def refuse(*args):
        raise OSError("too many open files")

    monkeypatch.setattr(token_cache, "open", refuse, raising=False)
    with pytest.raises(OSError, match="too many"):
        cache_stories(Counted(STORIES), tokenizer, tmp_path / "cache")
    assert not [*(tmp_path / "cache").iterdir()]


def test_a_copy_of_the_data_under_another_name_uses_the_same_cache(tokenizer, tmp_path, said):
    for name in ("one.jsonl", "two.jsonl"):
        cache_stories(write_stories(tmp_path / name, STORIES), tokenizer, tmp_path / "cache")
    assert len(list((tmp_path / "cache").iterdir())) == 1


@pytest.mark.parametrize("change", ["tokenizer", "limit", "column", "a story", "a letter", "kind of text"])
def test_any_other_input_makes_another_cache(tokenizer, tmp_path, said, change):
    path = tmp_path / "train.jsonl"
    options = {}
    rows = [{"text": story, "title": "A fox.", "conversation": [{"text": "Hi!"}, {"text": story}]} for story in STORIES]
    write_rows(path, rows)
    make = lambda: cache_stories(open_dataset(str(path))["train"], tokenizer, tmp_path / "cache", **options)
    before = texts_of(make())
    if change == "tokenizer":
        tokenizer = train_tokenizer(STORIES * 2, 290)
    elif change == "limit":
        options["limit"] = 2
    elif change == "column":
        options["how"] = ReadingFlags("title")
    elif change == "a story":
        path.write_text(path.read_text() + '{"text": "The end."}\n')
    elif change == "a letter":
        path.write_text(path.read_text().replace("Tom", "Tim"))
    else:
        make = lambda: cache_dialogues(open_dataset(str(path))["train"], tokenizer, tmp_path / "cache", 90, **options)
    assert texts_of(make()) != before
    assert len(list((tmp_path / "cache").iterdir())) == 2


@pytest.mark.parametrize("share", [0, 0.6])
@pytest.mark.parametrize("name", ["tokens.bin", "lengths.npz", "description.json"])
def test_a_damaged_cache_is_made_again(tokenizer, tmp_path, said, name, share):
    split = Counted(STORIES)
    before = texts_of(cache_stories(split, tokenizer, tmp_path))
    (path,) = tmp_path.glob(f"*/{name}")
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    assert texts_of(cache_stories(split, tokenizer, tmp_path)) == before
    assert split.times_read == 2
    cache_stories(split, tokenizer, tmp_path)
    assert split.times_read == 2 and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("name", ["tokens.bin", "lengths.npz"])
def test_a_cache_with_a_flipped_bit_is_made_again(tokenizer, tmp_path, said, name):
    split = Counted(STORIES)
    before = texts_of(cache_stories(split, tokenizer, tmp_path))
    (path,) = tmp_path.glob(f"*/{name}")
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 2
    path.write_bytes(content)
    assert texts_of(cache_stories(split, tokenizer, tmp_path)) == before
    assert split.times_read == 2


# Whole or not at all --------------------------------------------------------------------------------------------------


def test_a_broken_line_at_the_end_leaves_no_cache(tokenizer, tmp_path, monkeypatch, said):
    monkeypatch.setattr(token_cache, "BATCH_BYTES", 10)  # so that something is written before the error
    split = write_stories(tmp_path / "train.jsonl", STORIES)
    with open(tmp_path / "train.jsonl", "a") as file:
        file.write("broken\n")
    with pytest.raises(UserError, match="line 5"):
        cache_stories(split, tokenizer, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_ctrl_c_leaves_no_cache(tokenizer, tmp_path, monkeypatch, said):
    monkeypatch.setattr(token_cache, "BATCH_BYTES", 10)

    def read(wanted, notes):
        yield {"text": STORIES[0]}, "story 1"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache_stories(Split("stories", read, lambda: "stories"), tokenizer, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_another_run_that_writes_the_same_cache_first_does_no_harm(tokenizer, tmp_path, monkeypatch, said):
    rename = Path.rename

    def faster(self, target):
        shutil.copytree(self, target)  # another run's cache appears at the last moment
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", faster)
    cache = cache_stories(Counted(STORIES), tokenizer, tmp_path)
    assert len(cache) == len(STORIES) and len(list(tmp_path.iterdir())) == 1


def test_the_same_bytes_read_in_another_way_need_another_cache(tmp_path):
    """In a folder of small files each file is a story; in a file alone each line is one; .txt.gz and .csv.gz differ."""
    for name in ("a", "b", "valid"):
        (tmp_path / f"{name}.txt").write_text("Tom ran.\nHe fell.\n")
    (tmp_path / "c.txt").write_text("Mia ran.\n")
    folder = open_dataset(str(tmp_path))["validation"]
    alone = open_dataset(str(tmp_path / "valid.txt"))["train"]
    assert folder.fingerprint() != alone.fingerprint()
    packed = gzip.compress(b"text\nTom ran.\n")
    prints = []
    for name in ("x.txt.gz", "y.csv.gz"):
        (tmp_path / name).write_bytes(packed)
        prints.append(open_dataset(str(tmp_path / name))["train"].fingerprint())
    assert prints[0] != prints[1]
