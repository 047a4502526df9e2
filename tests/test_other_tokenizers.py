"""Tokenizers of other programs: ids stay the same, every text comes back, and unsuitable ones are refused."""

import importlib.util
import json
import os
from pathlib import Path
from unittest import mock

import pytest
import tokenizers
from foreign_tokenizers import LLAMA3, TEXTS, as_text, error_of, others, reloaded, saved, wrapped
from hypothesis import example, given, settings
from hypothesis import strategies as st
from programs import ROOT
from tokenizers import models, pre_tokenizers, processors

from corpus import other_tokenizers
from corpus.other_tokenizers import BYTES, for_oniguruma, open_pretrained
from data import SPECIAL_TOKENS, train_tokenizer
from generation.sampling import Sampling
from generation.writer import Writer

huggingface_hub = pytest.importorskip("huggingface_hub")
errors = pytest.importorskip("huggingface_hub.errors")
GPT2 = Path(__file__).parents[2] / "shared/gpt2_tokenizer"
with_gpt2 = pytest.mark.skipif(not GPT2.is_dir(), reason="needs GPT-2's vocabulary next to the repository")
with_tiktoken = pytest.mark.skipif(not importlib.util.find_spec("tiktoken"), reason="needs tiktoken")
KNOWN = st.characters(exclude_categories=("Cs", "Cn"))  # unassigned ones differ between versions of Unicode
ANY_TEXT = st.text(KNOWN, max_size=60) | st.text(alphabet="é🦊\0\r\n שa'sS 12 ٣<|eos>", max_size=30)
PATTERNS = {  # as in tiktoken
    "r50k": r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s",
    "cl100k": r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$"
    r"|\s*[\r\n]|\s+(?!\S)|\s",
    "o200k": r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
}
DEEPSEEK = (  # as in DeepSeek-V3
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPLIT = {"type": "Split", "pattern": {"String": " "}, "behavior": "Isolated", "invert": False}
PLAIN = {"special": True, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
examine = settings(max_examples=100, deadline=None)


def sequence(*steps):
    return {"type": "Sequence", "pretokenizers": steps}


# Ids ------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[None, LLAMA3], ids=["gpt2", "llama3"])
def pair(request, tmp_path_factory):
    """Return (a foreign tokenizer, ours around it, read back from step 1's file)."""
    folder, backend = tmp_path_factory.mktemp("others"), others(request.param)
    return backend, reloaded(wrapped(saved(folder, backend)), folder)


@examine
@given(text=ANY_TEXT)
@example(TEXTS[2])
@example(TEXTS[3])
def test_ids_stay_the_same_and_every_text_comes_back(pair, text):
    backend, tokenizer = pair
    ids = tokenizer.encode(text)
    assert ids == as_text(backend, text)
    assert tokenizer.decode(ids) == "".join(tokenizer.stream(ids)) == text
    assert b"".join(map(tokenizer.bytes_of, ids)) == text.encode()
    assert not set(ids) & set(tokenizer.never_written)


def test_the_special_tokens_come_after_the_last_id(pair):
    backend, tokenizer = pair
    size = len(backend.get_vocab())
    assert list(tokenizer.special) == SPECIAL_TOKENS and list(tokenizer.special.values()) == [*range(size, size + 7)]
    assert tokenizer.vocab_size == size + 7
    assert tokenizer.never_written == [*range(size - 2, size + 7)]  # also its own two special tokens
    assert backend.token_to_id("<|endoftext|>") == size - 1
    assert tokenizer.decode([*range(size - 2, size + 7)]) == ""


def test_tokens_that_no_text_contains_are_never_generated(pair):
    _, tokenizer = pair
    writer = Writer(mock.Mock(), tokenizer, Sampling())
    assert sorted([*writer.rules().banned, tokenizer.special["<eos>"]]) == tokenizer.never_written


def test_tokenizers_that_split_differently_have_different_fingerprints(tmp_path):
    backend = others()
    first = wrapped(saved(tmp_path, backend)).fingerprint
    cut = sequence(SPLIT | {"pattern": {"Regex": LLAMA3}}, other_tokenizers.BYTE_LEVEL | {"use_regex": False})
    assert wrapped(saved(tmp_path, backend, pre_tokenizer=cut)).fingerprint != first


def test_a_tokenizer_of_this_course_does_not_change(tmp_path):
    tokenizer = train_tokenizer(TEXTS * 3, 300)
    tokenizer.backend.save(str(tmp_path / "tokenizer.json"))
    again = reloaded(wrapped(tmp_path / "tokenizer.json"), tmp_path)
    assert (again.fingerprint, again.special) == (tokenizer.fingerprint, tokenizer.special)


@pytest.mark.parametrize("windows", [False, True])
def test_vocab_json_and_merges_txt_give_the_tokenizer_that_wrote_them(tmp_path, windows):
    backend = others(special=())
    backend.model.save(str(tmp_path))
    if windows:
        merges = (tmp_path / "merges.txt").read_bytes()
        (tmp_path / "merges.txt").write_bytes(merges.replace(b"\n", b"\r\n"))
    vocabulary = json.loads((tmp_path / "vocab.json").read_text(encoding="utf-8"))
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary | {"<|endoftext|>": 400}), encoding="utf-8")
    tokenizer = wrapped(tmp_path)
    for text in TEXTS:
        assert tokenizer.encode(text) == as_text(backend, text)
    assert tokenizer.never_written == [*range(400, 408)] and tokenizer.decode([400]) == ""


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    backend = tokenizers.Tokenizer(models.BPE.from_file(str(GPT2 / "vocab.json"), str(GPT2 / "merges.txt")))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return reloaded(wrapped(GPT2), tmp_path_factory.mktemp("gpt2")), backend


@with_gpt2
@examine
@given(text=ANY_TEXT)
@example(TEXTS[3])
def test_gpt2s_ids_stay_the_same(gpt2, text):
    tokenizer, backend = gpt2
    assert tokenizer.encode(text) == as_text(backend, text)
    assert tokenizer.decode(tokenizer.encode(text)) == text


@with_gpt2
def test_gpt2s_own_special_token_can_be_neither_typed_nor_generated(gpt2):
    tokenizer, _ = gpt2
    assert tokenizer.encode("Once upon a time") == [7454, 2402, 257, 640] and tokenizer.vocab_size == 50264
    assert tokenizer.never_written == [*range(50256, 50264)]
    assert 50256 not in tokenizer.encode("<|endoftext|>") and tokenizer.decode([50256]) == ""


# What is accepted -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "expression",
    [LLAMA3, *map(for_oniguruma, PATTERNS.values()), r" ?[^(\s|[.,!?…])]+", "[一-龥]+", DEEPSEEK, r"[()*+,-]+", r"\)+"],
)
def test_common_regular_expressions_are_accepted(tmp_path, expression):
    cut = sequence(SPLIT | {"pattern": {"Regex": expression}}, other_tokenizers.BYTE_LEVEL | {"use_regex": False})
    assert open_pretrained(saved(tmp_path, others(), pre_tokenizer=cut))


@pytest.mark.parametrize(
    "expression",
    [
        "(a+)+b",
        "(a|a)*b",
        "(?:a?){30}a",
        "x" * 9999,
        "a{1,30}+b",
        "(?#[)(a+)+b(?#])",
        "(?mx)#[\n(a+)+b#]",
        r"\c[(a+)+b\c]",
    ],
)
def test_regular_expressions_that_could_search_forever_are_refused(tmp_path, expression):
    cut = sequence(SPLIT | {"pattern": {"Regex": expression}}, other_tokenizers.BYTE_LEVEL | {"use_regex": False})
    assert "expression" in error_of(saved(tmp_path, others(), pre_tokenizer=cut))


@pytest.mark.parametrize(
    ("behavior", "expression"),
    [("Isolated", ""), ("MergedWithPrevious", r"\s|"), ("MergedWithNext", r"(?=a)"), ("Contiguous", r"\p{L}*"),
     ("MergedWithPrevious", r"(?=a)"), ("MergedWithNext", r"\s|"), ("Isolated", r"\p{L}*"), ("Contiguous", "")],
)  # fmt: skip
def test_however_texts_are_split_they_come_back(tmp_path, behavior, expression):
    split = SPLIT | {"pattern": {"Regex": expression}, "behavior": behavior}
    digits = {"type": "Digits", "individual_digits": True}
    marks = {"type": "Punctuation", "behavior": behavior}
    for steps in ([split], [digits, split], [marks]):
        path = saved(tmp_path, others(), pre_tokenizer=sequence(*steps, other_tokenizers.BYTE_LEVEL))
        tokenizer = reloaded(wrapped(path), tmp_path)
        assert [tokenizer.decode(tokenizer.encode(text)) for text in TEXTS] == TEXTS


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        pytest.param({"normalizer": {"type": "Lowercase"}}, "normalizer (Lowercase)", id="normalizer"),
        pytest.param({"model_type": "Unigram"}, "Unigram", id="model"),
        pytest.param({"decoder": None}, "decoder", id="no decoder"),
        pytest.param({"decoder": {"type": "Metaspace"}}, "Metaspace", id="decoder"),
        pytest.param({"pre_tokenizer": None}, "pre-tokenizer", id="no pre-tokenizer"),
        pytest.param({"pre_tokenizer": {"type": "Whitespace"}}, "Whitespace", id="pre-tokenizer"),
        pytest.param({"pre_tokenizer": other_tokenizers.BYTE_LEVEL | {"add_prefix_space": True}}, "space", id="prefix"),
        pytest.param(
            {"pre_tokenizer": sequence(other_tokenizers.BYTE_LEVEL, {"type": "WhitespaceSplit"})},
            "WhitespaceSplit", id="one that loses",
        ),
        pytest.param(
            {"pre_tokenizer": sequence(*[other_tokenizers.BYTE_LEVEL] * 2)},
            "ByteLevel, ByteLevel", id="bytes of bytes",
        ),
        pytest.param(
            {"pre_tokenizer": sequence(SPLIT | {"behavior": "Removed"}, other_tokenizers.BYTE_LEVEL)},
            "Split", id="removed",
        ),
        pytest.param({"model_byte_fallback": True}, "characters", id="byte fallback"),
        pytest.param({"added_tokens": [PLAIN | {"id": 400, "content": "fox", "special": False, "lstrip": True}]},
                     "fox", id="strips"),
        pytest.param({"added_tokens": [PLAIN | {"id": 400, "content": "café", "special": False}]},
                     "caf", id="not ASCII"),
        pytest.param({"added_tokens": [PLAIN | {"id": 64, "content": "a"}]}, "typed", id="a letter, elsewhere"),
        pytest.param({"added_tokens": [PLAIN | {"id": 10**9, "content": "<x>"}]}, "1,000,000,000", id="far away"),
        pytest.param({"added_tokens": [PLAIN | {"id": -1, "content": "<x>"}]}, "", id="negative"),
        pytest.param({"added_tokens": [5]}, "", id="a number"),
        pytest.param({"model_vocab": []}, "", id="a list"),
        pytest.param({"model_vocab": {"a": 0, "b": 0}, "model_merges": [], "added_tokens": []},
                     "the same id", id="twice"),
        pytest.param({"model_vocab": {"a": 0, "b": 1}, "model_merges": [], "added_tokens": []}, "256", id="few bytes"),
        pytest.param({"model_merges": [["zz", "qq"]]}, "", id="merges of nothing"),
        pytest.param({"post_processor": 5}, "", id="post-processor"),
    ],
)  # fmt: skip
def test_tokenizers_that_change_texts_are_refused(tmp_path, changes, part):
    assert part in error_of(saved(tmp_path, others(), **changes))


def test_a_special_token_that_could_be_typed_is_refused(tmp_path):
    backend = others()
    learned = json.loads(backend.to_str())["model"]["vocab"]
    for token in ("a", "Ġt"):
        added = [PLAIN | {"id": learned[token], "content": token}]
        assert "could be typed" in error_of(saved(tmp_path, others(special=()), added_tokens=added))


def test_a_unicode_normalizer_and_a_post_processor_are_removed_and_reported(tmp_path):
    backend = others()
    backend.normalizer = tokenizers.normalizers.NFC()
    around = processors.TemplateProcessing("<|begin|> $A", None, [("<|begin|>", 400)])
    backend.post_processor = processors.Sequence([processors.ByteLevel(), around])
    path = saved(tmp_path, backend)
    said = " ".join(open_pretrained(path)[1])
    assert "NFC" in said and "TemplateProcessing" in said and "ByteLevel" not in said
    tokenizer = wrapped(path)
    assert tokenizer.encode(TEXTS[0]) == as_text(backend, TEXTS[0])
    assert tokenizer.decode(tokenizer.encode("e\u0301")) == "e\u0301"


def test_added_tokens_that_are_plain_text_stay_tokens(tmp_path):
    """For example runs of spaces, as in GPT-NeoX."""
    backend = others()
    backend.add_tokens(["        ", "\t\t"])
    tokenizer = reloaded(wrapped(saved(tmp_path, backend)), tmp_path)
    text = "a        b\t\tc"
    assert tokenizer.encode(text) == as_text(backend, text) and {402, 403} < set(tokenizer.encode(text))
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.bytes_of(402) == b" " * 8


@pytest.mark.parametrize("holes", [[400], [401, 402], [300], [0, 350]])
def test_unused_ids_stay_unused_and_the_others_stay_the_same(tmp_path, holes):
    content = json.loads(others(special=()).to_str())
    number = iter(number for number in range(1000) if number not in holes)
    vocabulary = {token: next(number) for token in content["model"]["vocab"]}
    added = [PLAIN | {"id": next(number), "content": token} for token in ("<|begin|>", "<|endoftext|>")]
    tokenizer = reloaded(wrapped(saved(tmp_path, others(), model_vocab=vocabulary, added_tokens=added)), tmp_path)
    names = tokenizer.backend.get_vocab()
    assert vocabulary.items() <= names.items() and names["<|endoftext|>"] == added[1]["id"]
    assert list(tokenizer.special.values()) == [*range(402 + len(holes), 409 + len(holes))]
    assert {*holes, added[0]["id"], added[1]["id"]} < set(tokenizer.never_written)
    assert [tokenizer.decode(tokenizer.encode(text)) for text in [*TEXTS, "<unused 400>"]] == [*TEXTS, "<unused 400>"]


@pytest.mark.parametrize(
    "content", [b"", b"{]", b'{"model": "\xff"}', b"[]", b"\x80\x04}.", b"{}", b'{"model": 5}', b"{" * 99999]
)
def test_a_file_that_is_not_a_tokenizer_is_refused(tmp_path, content):
    (tmp_path / "tokenizer.json").write_bytes(content)
    error_of(tmp_path / "tokenizer.json")


def test_a_folder_without_a_tokenizer_and_missing_paths_are_named(tmp_path):
    assert "merges.txt" in error_of(tmp_path)
    (tmp_path / "vocab.json").write_text("{}")
    assert "merges.txt" in error_of(tmp_path)
    for path in (tmp_path / "nowhere", "nowhere.json", "a/b/c"):
        assert "no such file" in error_of(path)


def test_a_vocabulary_with_end_of_word_marks_is_refused(tmp_path):
    (tmp_path / "vocab.json").write_text(json.dumps({"a": 0, "a</w>": 1}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    assert "</w>" in error_of(tmp_path)


# The hub --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """Return a fake hub with the files of a folder; it raises `error` if that is set."""
    hub = mock.Mock(folder=tmp_path / "hub", error=None, asked=[])
    hub.folder.mkdir()

    def model_info(self, name, **options):
        if hub.error:
            raise hub.error
        return mock.Mock(sha="0123abc", siblings=[mock.Mock(rfilename=name) for name in os.listdir(hub.folder)])

    def download(name, file, revision=None):
        hub.asked.append((name, file, revision))
        if not (hub.folder / file).exists():
            raise errors.LocalEntryNotFoundError("not downloaded")
        return str(hub.folder / file)

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    return hub


@pytest.mark.parametrize(("offline", "two_files"), [(False, False), (True, True), (False, True)])
def test_a_hub_name_works_like_its_files(hub, monkeypatch, offline, two_files):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", offline)
    hub.error = ConnectionError("asked") if offline else None
    backend = others(special=())
    if two_files:
        backend.model.save(str(hub.folder))
    else:
        saved(hub.folder, backend)
    assert wrapped("someone/small").encode(TEXTS[0]) == as_text(backend, TEXTS[0])
    assert {(name, revision) for name, _, revision in hub.asked} == {("someone/small", None if offline else "0123abc")}


@pytest.mark.parametrize("offline", [False, True])
def test_a_hub_name_without_tokenizer_files_is_refused(hub, monkeypatch, offline):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", offline)
    (hub.folder / "tokenizer.model").write_bytes(b"")
    assert "neither tokenizer.json nor vocab.json with merges.txt" in error_of("someone/small")


@pytest.mark.parametrize(
    ("error", "part"),
    [
        (ConnectionError("refused\nby peer"), "could not read"),
        (errors.RepositoryNotFoundError("404\nNot Found", response=mock.Mock()), "no tokenizer"),
        (errors.GatedRepoError("403\nGated", response=mock.Mock()), "gated"),
    ],
)
def test_an_unreachable_hub_is_named_together_with_a_local_alternative(hub, error, part):
    hub.error = error
    message = error_of("someone/small")
    assert part in message and "--from_pretrained FOLDER" in message


# tiktoken -------------------------------------------------------------------------------------------------------------


def ranks_of(backend):
    names = {number: token for token, number in backend.get_vocab().items()}
    return {bytes(BYTES[letter] for letter in names[number]): number for number in sorted(names)}


@pytest.fixture(scope="module", params=PATTERNS)
def encoding(request):
    """Return a small tiktoken encoding with the pattern of a large one, and a gap before its last special token."""
    tiktoken = pytest.importorskip("tiktoken")
    pattern = PATTERNS[request.param]
    ranks = ranks_of(others(for_oniguruma(pattern), 600, special=()))
    special = {"<|endoftext|>": len(ranks) + 1, "<|endofprompt|>": len(ranks) + 5}
    return tiktoken.Encoding(request.param, pat_str=pattern, mergeable_ranks=ranks, special_tokens=special)


def of_tiktoken(encoding, folder):
    with mock.patch("tiktoken.get_encoding", lambda name: encoding):
        return reloaded(wrapped("tiktoken:cl100k_base"), folder)


@pytest.fixture(scope="module")
def both(encoding, tmp_path_factory):
    return encoding, of_tiktoken(encoding, tmp_path_factory.mktemp("tiktoken"))


@examine
@given(text=ANY_TEXT)
@example(TEXTS[0])
@example(TEXTS[1])
@example(TEXTS[2])
@example(TEXTS[3])
@example("\n\n  \n 12345678 x\r\n\t ")
def test_ids_of_tiktoken_stay_the_same(both, text):
    encoding, tokenizer = both
    assert tokenizer.encode(text) == encoding.encode_ordinary(text)
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_special_tokens_of_tiktoken_keep_their_ids(both):
    encoding, tokenizer = both
    assert encoding._special_tokens.items() <= tokenizer.backend.get_vocab().items()
    assert list(tokenizer.special.values()) == [*range(encoding.n_vocab, encoding.n_vocab + 7)]
    assert tokenizer.never_written == [*range(len(encoding._mergeable_ranks), encoding.n_vocab + 7)]
    assert not json.loads(tokenizer.backend.to_str())["model"].get("ignore_merges")


def test_a_token_that_no_merge_creates_is_found_as_a_whole_word(tmp_path):
    tiktoken = pytest.importorskip("tiktoken")
    ranks = {bytes([byte]): byte for byte in range(256)} | {b" fox": 256}
    encoding = tiktoken.Encoding("own", pat_str=PATTERNS["cl100k"], mergeable_ranks=ranks, special_tokens={})
    tokenizer = of_tiktoken(encoding, tmp_path)
    for text in ("a fox", "a foxes fox"):
        assert tokenizer.encode(text) == encoding.encode_ordinary(text)
    assert tokenizer.encode(" fox") == [256]


@with_gpt2
@with_tiktoken
def test_gpt2_from_tiktoken_equals_gpt2_from_its_files(tmp_path, gpt2):
    import tiktoken

    vocabulary = json.loads((GPT2 / "vocab.json").read_text(encoding="utf-8"))
    special = {"<|endoftext|>": vocabulary.pop("<|endoftext|>")}
    ranks = {bytes(BYTES[letter] for letter in token): number for token, number in vocabulary.items()}
    encoding = tiktoken.Encoding("gpt2", pat_str=PATTERNS["r50k"], mergeable_ranks=ranks, special_tokens=special)
    tokenizer = of_tiktoken(encoding, tmp_path)
    merges = lambda of: json.loads(of.backend.to_str())["model"]["merges"]
    assert merges(tokenizer) == merges(gpt2[0]) and tokenizer.backend.get_vocab() == gpt2[0].backend.get_vocab()
    stories = (ROOT / "sample_data/stories/validation.jsonl").read_text(encoding="utf-8")
    assert tokenizer.encode(stories) == encoding.encode_ordinary(stories)


@with_tiktoken
def test_an_unreachable_tiktoken_and_unknown_encodings_are_named():
    def fail(name):
        raise ConnectionError("no route\nto host")

    with mock.patch("tiktoken.get_encoding", fail):
        assert "ConnectionError: no route" in error_of("tiktoken:cl100k_base")
    assert "cl100k_base" in error_of("tiktoken:nope")


def test_if_tiktoken_is_missing_the_extra_is_named():
    with mock.patch.dict("sys.modules", tiktoken=None):
        assert "[tiktoken]" in error_of("tiktoken:cl100k_base")
