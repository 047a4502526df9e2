"""Step 1 as a program: a foreign tokenizer with a large vocabulary, --inspect, flags that exclude each other."""

import json

import numpy as np
import pytest
from foreign_tokenizers import LLAMA3, others, saved
from programs import TINY, main, run, write_data

import train_bpe_tokenizer_hf
from common.errors import UserError
from corpus.other_tokenizers import BYTES
from data import load_tokenizer


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """Return (a folder with data and a wrapped tokenizer of more than 65,535 tokens, the finished step 1)."""
    folder = tmp_path_factory.mktemp("large")
    write_data(folder)
    backend = others(LLAMA3)
    content = json.loads(backend.to_str())["model"]
    letters = [letter for letter in BYTES if letter.isalpha()]
    pairs = [(one, other) for one in content["vocab"] for other in letters if one + other not in content["vocab"]]
    made = {one + other: (one, other) for one, other in pairs}
    vocabulary = content["vocab"] | {token: 400 + number for number, token in enumerate([*made][: 70_000 - 400])}
    merges = content["merges"] + [list(made[token]) for token in [*made][: 70_000 - 400]]
    (folder / "others").mkdir()
    saved(folder / "others", others(LLAMA3, special=()), model_vocab=vocabulary, model_merges=merges)
    done = run(folder, "train_bpe_tokenizer_hf", "--from_pretrained", "others", "--dataset", "stories")
    return folder, done


def test_a_vocabulary_above_65535_works_in_training_and_generation(large):
    folder, done = large
    assert "vocabulary: 70,007 tokens" in done.stdout and "<system> 70006" in done.stdout
    assert "bytes per token: " in done.stdout and not done.stderr
    flags = ["--dataset", "stories", "--cache_dir", "cache", *TINY, "--epochs", "1", "--hidden_size", "8"]
    flags += ["--max_train_samples", "9", "--max_eval_samples", "3"]
    assert "loss" in run(folder, "train_tinystories_model", *flags).stdout
    (description,) = {json.loads(path.read_text())["dtype"] for path in folder.glob("cache/*/description.json")}
    assert description == "uint32"
    tokens = [np.memmap(path, np.uint32, "r") for path in folder.glob("cache/*/tokens.bin")]
    assert {70_002, 70_003} <= set(np.concatenate(tokens).tolist())  # <bos>, <eos>
    text = run(folder, "generate_tinystories_text", "--prompt", "Tom <|endoftext|>", "--max_new_tokens", 9).stdout
    assert text.startswith("Tom <|endoftext|>")


def test_inspect_shows_the_tokens_of_a_text_and_writes_nothing(large):
    folder, _ = large
    before = sorted(folder.iterdir())
    out = run(folder, "train_bpe_tokenizer_hf", "--inspect", "a fox \U0001f98a").stdout.splitlines()
    tokenizer = load_tokenizer(folder / "bpe_tokenizer_tinystories.pkl")
    assert [int(line.split()[0]) for line in out[:-1]] == tokenizer.encode("a fox \U0001f98a")
    assert "".join(line.split("  ")[-1] for line in out[:-1]).replace(" ", "") == "a fox \U0001f98a".encode().hex()
    assert out[0].split()[1] == "'a'" and "' fox'" in out[1]
    assert out[-1].startswith(f"{len(out) - 1} tokens, 10 bytes: ")
    assert run(folder, "train_bpe_tokenizer_hf", "--inspect", "a fox", "--from_pretrained", "others").stdout
    assert run(folder, "train_bpe_tokenizer_hf", "--inspect", "").stdout == "0 tokens, 0 bytes\n"
    assert sorted(folder.iterdir()) == before


def test_if_the_file_cannot_be_written_no_training_starts(large, tmp_path, monkeypatch):
    learned = []
    monkeypatch.setattr(train_bpe_tokenizer_hf, "learn", learned.append)
    (tmp_path / "file").touch()
    flags = ["--dataset", "stories", "--output", tmp_path / "file" / "t.pkl"]
    with pytest.raises(UserError, match="--output: cannot create a file in .*file"):
        main(train_bpe_tokenizer_hf, *flags, folder=large[0])
    assert not learned


def test_a_missing_output_folder_is_created(large, tmp_path):
    main(train_bpe_tokenizer_hf, "--from_pretrained", "others", "--output", tmp_path / "a/b/t.pkl", folder=large[0])
    assert load_tokenizer(tmp_path / "a/b/t.pkl").vocab_size == 70_007


@pytest.mark.parametrize(
    "flags",
    [
        ["--inspect", "a", "--vocab_size", "300"], ["--inspect", "a", "--dataset", "stories"],
        ["--from_pretrained", "others", "--sample", "3"], ["--inspect", "a", "--output", "nowhere.pkl"],
        ["--from_pretrained", "others"], ["--from_pretrained", "stories", "--output", "other.pkl"],
    ],
)  # fmt: skip
def test_flags_that_exclude_each_other_are_refused_in_one_line(large, monkeypatch, flags):
    folder, _ = large
    before = sorted(folder.iterdir())
    monkeypatch.chdir(folder)
    monkeypatch.setattr("sys.argv", ["step 1", *flags])
    with pytest.raises(UserError) as raised:
        train_bpe_tokenizer_hf.main()
    assert "\n" not in str(raised.value) and raised.value.status == 2
    assert sorted(folder.iterdir()) == before
