"""The tokenizer: every text comes back unchanged, no text has special tokens, and a tokenizer file runs no code."""

import json
import pickle
import pickletools
from pathlib import Path

import pytest
import tokenizers
from hostile import Planted
from hypothesis import example, given, settings
from hypothesis import strategies as st
from refusals import error_of
from tokenizers import decoders, models, pre_tokenizers, processors

from data import SPECIAL_TOKENS, Tokenizer, load_tokenizer, train_tokenizer

SHARED = Path(__file__).parents[2] / "shared"
STORIES = [
    "Once upon a time there was a little fox. 🦊 The fox was very little.",
    'Once upon a time Zoé said: "I don\'t know!"\n\nThe fox did not know.',
    "שלום, the little fox said. مرحبا, Zoé said. The fox was 3 years old.",
]
LOOK_ALIKES = [*SPECIAL_TOKENS, "a<eos>b", "<eos><eos>", "hello <user>, I am the <assistant>", "<|endoftext|>"]
ANY_TEXT = st.text(max_size=60) | st.text(alphabet="é🦊\0\r\n שa<eos>", max_size=30)

examine = settings(max_examples=150, deadline=None)


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(STORIES, 400)


@pytest.fixture
def saved(tokenizer, tmp_path):
    """Return the path of a tokenizer file as step 1 writes it."""
    tokenizer.save(tmp_path / "saved.pkl")
    return tmp_path / "saved.pkl"


def write_json_tokenizer(path, tokenizer, **changes):
    """Write a `tokenizer.json` with some changed entries."""
    path.write_text(json.dumps(json.loads(tokenizer.backend.to_str()) | changes), encoding="utf-8")
    return path


def error_of_loading(path):
    message = error_of(load_tokenizer, path)
    assert str(path) in message
    return message


# Texts ----------------------------------------------------------------------------------------------------------------


@examine
@given(text=ANY_TEXT)
@example("\0 nul \0")
@example("one\r\ntwo\n\n\tthree  \r")
@example("🦊 👩‍👩‍👧 🇫🇷 e\u0301 ﬁ \ufeff \ufffd \u2028")
@example("שלום עולם \u202emرحبا\u202c")
@example("  leading and trailing  ")
def test_every_text_comes_back_unchanged(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize(
    "text, cleaned",
    [
        ("\ud800", "\ufffd"),
        ("a\udfffb", "a\ufffdb"),
        ("\udc00\ud800", "\ufffd\ufffd"),
        ("fox \ud83d fox", "fox \ufffd fox"),
        ("\ud83e\udd8a", "🦊"),  # a surrogate pair is one character
    ],
)
def test_lone_surrogates_become_replacement_characters(tokenizer, text, cleaned):
    assert tokenizer.decode(tokenizer.encode(text)) == cleaned
    assert tokenizer.encode_batch(["fox", text]) == [tokenizer.encode("fox"), tokenizer.encode(cleaned)]


def test_stories_with_lone_surrogates_can_be_trained_on():
    with_surrogates, cleaned = ["a \ud800 fox"] * 3, ["a \ufffd fox"] * 3
    assert train_tokenizer(with_surrogates, 300).fingerprint == train_tokenizer(cleaned, 300).fingerprint


def test_a_batch_gives_the_same_ids_as_its_texts_one_by_one(tokenizer):
    texts = ["", *STORIES, *LOOK_ALIKES]
    assert tokenizer.encode_batch(texts) == [tokenizer.encode(text) for text in texts]


@pytest.mark.parametrize("text", LOOK_ALIKES)
def test_typed_special_tokens_stay_plain_text(tokenizer, text):
    ids = tokenizer.encode(text)
    assert not set(ids) & set(tokenizer.special.values())
    assert tokenizer.decode(ids) == text


def test_look_alikes_in_the_training_stories_are_learned_as_plain_text():
    tokenizer = train_tokenizer(["<eos> <user> hello <assistant>"] * 9, 400)
    ids = tokenizer.encode("hello <user><eos>")
    assert not set(ids) & set(tokenizer.special.values()) and tokenizer.decode(ids) == "hello <user><eos>"


def test_special_tokens_have_the_ids_0_to_6_in_a_fixed_order(tokenizer):
    names = ["<pad>", "<unk>", "<bos>", "<eos>", "<user>", "<assistant>", "<system>"]
    assert names == SPECIAL_TOKENS
    assert tokenizer.special == {name: number for number, name in enumerate(names)}


def test_decoding_omits_special_tokens(tokenizer):
    special, ids = tokenizer.special, tokenizer.encode("little fox")
    assert tokenizer.decode([special["<bos>"], *ids, special["<eos>"], special["<pad>"]]) == "little fox"


def test_nothing_is_added_around_a_text(tokenizer):
    assert tokenizer.encode("") == []
    assert json.loads(tokenizer.backend.to_str())["post_processor"] is None
    assert tokenizer.backend.encode("fox").ids == tokenizer.encode("fox")


# Streaming ------------------------------------------------------------------------------------------------------------


@examine
@given(text=ANY_TEXT)
@example("\ufffd")
@example("a\ufffd\ufffdb🦊")
@example("🦊🦊 שלום")
def test_streamed_pieces_join_to_the_text(tokenizer, text):
    assert "".join(tokenizer.stream(tokenizer.encode(text))) == text


@examine
@given(text=ANY_TEXT.filter(lambda text: "\ufffd" not in text))
@example("👩‍👩‍👧é🦊")
def test_no_streamed_piece_contains_a_broken_character(tokenizer, text):
    assert not any("\ufffd" in piece for piece in tokenizer.stream(tokenizer.encode(text)))


@examine
@given(ids=st.lists(st.integers(0, 320), max_size=20))
def test_streamed_pieces_of_any_ids_join_to_the_decoded_text(tokenizer, ids):
    """A model can also write bytes that form no character, and special tokens."""
    assert "".join(tokenizer.stream(iter(ids))) == tokenizer.decode(ids)


def test_a_piece_is_streamed_as_soon_as_its_character_is_complete(tokenizer):
    pieces = tokenizer.stream(iter(tokenizer.encode("fox") + tokenizer.encode("\u05d0") + tokenizer.encode("!")))
    assert [piece for piece in pieces if piece][-2:] == ["\u05d0", "!"]


# Training -------------------------------------------------------------------------------------------------------------


def test_two_trainings_on_the_same_stories_give_the_same_file(tmp_path):
    for name in ("one.pkl", "two.pkl"):
        train_tokenizer(iter(STORIES * 5), 400).save(tmp_path / name)
    assert (tmp_path / "one.pkl").read_bytes() == (tmp_path / "two.pkl").read_bytes()


def test_the_vocabulary_has_the_requested_size():
    assert train_tokenizer(STORIES * 5, 300).vocab_size == 300


def test_little_text_gives_a_smaller_vocabulary_than_requested():
    tokenizer = train_tokenizer(["ab ab"], 5000)
    assert tokenizer.vocab_size == len(SPECIAL_TOKENS) + 256 + 1  # only "ab" occurs twice
    assert tokenizer.decode([tokenizer.vocab_size - 1]) == "ab"


# Fingerprints ---------------------------------------------------------------------------------------------------------


def test_the_fingerprint_is_the_same_for_the_same_training(tokenizer):
    assert train_tokenizer(STORIES, 400).fingerprint == tokenizer.fingerprint


@pytest.mark.parametrize("stories, size", [(STORIES, 299), (STORIES[:1] * 3, 300)], ids=["size", "stories"])
def test_another_vocabulary_has_another_fingerprint(stories, size):
    assert train_tokenizer(stories, size).fingerprint != train_tokenizer(STORIES, 300).fingerprint


# Files ----------------------------------------------------------------------------------------------------------------


def test_a_saved_tokenizer_comes_back_with_the_same_ids(tokenizer, saved):
    loaded = load_tokenizer(saved)
    assert (loaded.fingerprint, loaded.special) == (tokenizer.fingerprint, tokenizer.special)
    texts = [*STORIES, *LOOK_ALIKES]
    assert loaded.encode_batch(texts) == tokenizer.encode_batch(texts)
    assert [loaded.decode(ids) for ids in loaded.encode_batch(texts)] == texts


def test_the_file_contains_only_plain_types(saved):
    content = saved.read_bytes()
    opcodes = {opcode.name for opcode, _, _ in pickletools.genops(content)}
    assert not opcodes & {"GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "PERSID"}
    assert sorted(pickle.loads(content)) == ["format", "sha256", "special_tokens", "tokenizer", "version"]


def test_a_tokenizer_json_with_the_special_tokens_is_the_same_tokenizer(tokenizer, tmp_path):
    loaded = load_tokenizer(write_json_tokenizer(tmp_path / "tokenizer.json", tokenizer))
    assert (loaded.fingerprint, loaded.special) == (tokenizer.fingerprint, tokenizer.special)
    assert loaded.encode_batch(LOOK_ALIKES) == tokenizer.encode_batch(LOOK_ALIKES)


def test_padding_truncation_and_post_processing_of_a_tokenizer_json_have_no_effect(tokenizer, tmp_path):
    around = processors.TemplateProcessing("<bos> $A <eos>", None, [("<bos>", 2), ("<eos>", 3)])
    other = tokenizers.Tokenizer.from_str(tokenizer.backend.to_str())
    other.post_processor = around
    other.enable_truncation(2)
    other.enable_padding(length=99)
    other.save(str(tmp_path / "tokenizer.json"))
    assert load_tokenizer(tmp_path / "tokenizer.json").encode(STORIES[0]) == tokenizer.encode(STORIES[0])


def test_look_alikes_stay_plain_text_if_a_tokenizer_json_does_not_mark_its_tokens_as_special(tokenizer, tmp_path):
    added = [token | {"special": False} for token in json.loads(tokenizer.backend.to_str())["added_tokens"]]
    loaded = load_tokenizer(write_json_tokenizer(tmp_path / "tokenizer.json", tokenizer, added_tokens=added))
    assert loaded.encode_batch(LOOK_ALIKES) == tokenizer.encode_batch(LOOK_ALIKES)


def test_a_tokenizer_json_without_the_special_tokens_is_refused(tmp_path):
    other = tokenizers.Tokenizer(models.BPE())
    other.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    other.decoder = decoders.ByteLevel()
    other.train_from_iterator(STORIES)
    other.save(str(tmp_path / "tokenizer.json"))
    assert "<pad>" in error_of_loading(tmp_path / "tokenizer.json")


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_a_truncated_file_is_refused(tokenizer, saved, tmp_path, share):
    for path in (saved, write_json_tokenizer(tmp_path / "tokenizer.json", tokenizer)):
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * share)])
        error_of_loading(path)


SAVED = {"format": "tinystories-bpe-tokenizer", "version": 1, "special_tokens": SPECIAL_TOKENS, "tokenizer": "{}"}


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\x00\xff\x13 garbage \xfe" * 20, id="garbage"),
        pytest.param(b"{]", id="broken JSON"),
        pytest.param(b'{"model": "\xff"}', id="JSON that is not UTF-8"),
        pytest.param(pickle.dumps([1, 2, 3]), id="a list"),
        pytest.param(pickle.dumps({"model": "a dict"}), id="another dict"),
        pytest.param(pickle.dumps(Path("stories")), id="an object"),
        pytest.param(pickle.dumps({key: SAVED[key] for key in ("format", "version")}), id="no tokenizer"),
        pytest.param(pickle.dumps(SAVED | {"tokenizer": 5}), id="a number for a tokenizer"),
        pytest.param(pickle.dumps(SAVED), id="an empty tokenizer"),
    ],
)
def test_anything_else_is_refused(tmp_path, content):
    (tmp_path / "other.pkl").write_bytes(content)
    error_of_loading(tmp_path / "other.pkl")


def test_another_version_is_refused(tokenizer, tmp_path):
    (tmp_path / "new.pkl").write_bytes(pickle.dumps(SAVED | {"version": 2, "tokenizer": tokenizer.backend.to_str()}))
    assert "version 2" in error_of_loading(tmp_path / "new.pkl")


def test_a_missing_file_is_refused_and_the_message_says_how_to_get_one(tmp_path):
    assert "train_bpe_tokenizer_hf.py" in error_of_loading(tmp_path / "nowhere.pkl")
    assert "is a folder" in error_of_loading(tmp_path)


@pytest.mark.parametrize(("inside", "protocol"), [(False, 0), (True, 2), (False, 4), (True, 4)])
def test_a_file_that_would_run_code_is_refused_and_runs_none(tmp_path, inside, protocol):
    target = tmp_path / "planted"
    content = SAVED | {"tokenizer": Planted(target)} if inside else Planted(target)
    (tmp_path / "bad.pkl").write_bytes(pickle.dumps(content, protocol))
    error_of_loading(tmp_path / "bad.pkl")
    assert not target.exists()
    pickle.loads((tmp_path / "bad.pkl").read_bytes())
    assert target.exists()  # the planted code would have worked


# GPT-2's tokenizer ----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not (SHARED / "gpt2_tokenizer").is_dir(), reason="needs GPT-2's vocabulary next to the repository")
def test_gpt2s_tokenizer_gives_gpt2s_ids():
    folder = SHARED / "gpt2_tokenizer"
    backend = tokenizers.Tokenizer(models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt")))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(SPECIAL_TOKENS)
    tokenizer = Tokenizer(backend)
    assert tokenizer.encode("Once upon a time") == [7454, 2402, 257, 640]
    assert list(tokenizer.special.values()) == list(range(50257, 50264)) and tokenizer.vocab_size == 50264
    for text in [*STORIES, *LOOK_ALIKES]:
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == "".join(tokenizer.stream(ids)) == text
        assert max(ids) < 50256  # nor is <|endoftext|> itself among them
