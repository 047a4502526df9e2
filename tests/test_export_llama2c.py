"""tools/export_llama2c.py: llama2.c gets the same network, the same ids, and an <eos> that ends a text."""

import json
import struct

import export_llama2c
import import_model
import numpy as np
import pytest
import torch
from formats.llama2c_writer import encode, pieces_of
from llama2c_in_python import CONTEXT, HEADS, INNER, LAYERS, SIZE, original_ids, original_logits, read_rows
from programs import ROOT, main, story
from refusals import error_of
from tiny import make_model

from common.errors import UserError
from common.weights_files import load_model, save_model
from corpus.other_tokenizers import WordBPE
from data import SPECIAL_TOKENS, Tokenizer, load_tokenizer, train_tokenizer, wrap_tokenizer

SHAPE = {
    "num_layers": LAYERS, "hidden_size": SIZE, "num_heads": HEADS, "intermediate_size": INNER, "max_seq_len": CONTEXT,
}  # fmt: skip
SHARED = ROOT.parent / "shared"
BROKEN = "“Zoé” saw a fox… 🦊"  # its characters have several bytes


def stories(count):
    lines = (ROOT / "sample_data/stories/validation.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines[:count]]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """Return a tokenizer with its path; some of its tokens are parts of a character."""
    tokenizer = train_tokenizer([*stories(100), *["“So” “far”… \n\n\n‘x’"] * 40], 700)
    tokenizer.path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.pkl"
    tokenizer.save(tokenizer.path)
    return tokenizer


def save(folder, tokenizer, arch="llama", **changes):
    model = make_model(arch, vocab_size=tokenizer.vocab_size, **SHAPE | changes)
    save_model(folder / "model.pth", model, tokenizer.fingerprint)
    return model


def export(folder, tokenizer, *flags):
    main(export_llama2c, folder / "model.pth", folder / "out", "--tokenizer_path", tokenizer.path, *flags)
    return folder / "out"


@pytest.fixture(scope="module")
def exported(tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    save(folder, tokenizer)
    return export(folder, tokenizer)


def read_weights(path):
    """Return {llama2.c's name: array} of a model.bin whose head has its own matrix."""
    vocab_size = -struct.unpack_from("<i", path.read_bytes(), 20)[0]
    table = (vocab_size, SIZE)
    square = (LAYERS, SIZE, SIZE)
    angles = (CONTEXT, SIZE // HEADS // 2)
    shapes = {
        "token_embedding_table": table, "rms_att_weight": (LAYERS, SIZE), "wq": square, "wk": square, "wv": square,
        "wo": square, "rms_ffn_weight": (LAYERS, SIZE), "w1": (LAYERS, INNER, SIZE), "w2": (LAYERS, SIZE, INNER),
        "w3": (LAYERS, INNER, SIZE), "rms_final_weight": (SIZE,), "cosines": angles, "sines": angles, "wcls": table,
    }  # fmt: skip
    numbers = np.fromfile(path, "<f4", offset=28)
    weights = {}
    for name, shape in shapes.items():
        weights[name], numbers = np.split(numbers, [np.prod(shape)])
        weights[name] = weights[name].reshape(shape)
    assert not numbers.size
    return weights


# The model ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [True, False])
@torch.no_grad()
def test_llama2c_computes_the_same_logits_and_ends_a_text_with_the_token_that_begins_one(tmp_path, tokenizer, tied):
    model = save(tmp_path, tokenizer, tie_embeddings=tied)
    weights = read_weights(export(tmp_path, tokenizer) / "model.bin")
    order = pieces_of(tokenizer, "").order
    begin, end = tokenizer.special["<bos>"], tokenizer.special["<eos>"]
    theirs = [1, *np.random.default_rng(0).integers(3, len(order), CONTEXT - 1).tolist()]
    ours = [begin, *(order[number] for number in theirs[1:])]
    wanted = model(torch.tensor([ours]))[0]
    found = torch.from_numpy(original_logits(weights, theirs, HEADS)).float()
    assert wanted.std() > 0.5
    torch.testing.assert_close(found[:, 3:], wanted[:, order[3:]], atol=1e-4, rtol=0)
    torch.testing.assert_close(found[:, 1], wanted[:, end], atol=1e-4, rtol=0)
    torch.testing.assert_close(found[:, 2], wanted[:, begin], atol=1e-4, rtol=0)


def test_the_header_and_the_angles_are_as_in_its_own_files(exported, tokenizer):
    content = (exported / "model.bin").read_bytes()
    vocab_size = tokenizer.vocab_size
    assert struct.unpack_from("<7i", content) == (SIZE, INNER, LAYERS, HEADS, HEADS, -vocab_size, CONTEXT)
    weights = read_weights(exported / "model.bin")
    angles = np.outer(np.arange(CONTEXT), 10000.0 ** -(np.arange(0, SIZE // HEADS, 2) / (SIZE // HEADS)))
    np.testing.assert_allclose(weights["cosines"], np.cos(angles), atol=1e-5)
    np.testing.assert_allclose(weights["sines"], np.sin(angles), atol=1e-5)


@pytest.mark.parametrize("tied", [True, False])
@torch.no_grad()
def test_a_model_that_is_exported_and_imported_again_has_the_same_logits(tmp_path, tokenizer, tied):
    model = save(tmp_path, tokenizer, tie_embeddings=tied)
    again, its_tokenizer = import_model.import_model(export(tmp_path, tokenizer) / "model.bin")
    order = pieces_of(tokenizer, "").order
    names = ("<bos>", "<pad>", "<user>")
    theirs = [its_tokenizer.special[name] for name in names] + list(range(300, 300 + CONTEXT - len(names)))
    ours = [tokenizer.special[name] for name in names] + [order[number] for number in theirs[len(names) :]]
    found = again(torch.tensor([theirs]))[0]
    wanted = model(torch.tensor([ours]))[0]
    torch.testing.assert_close(found[:, 3 : len(order)], wanted[:, order[3:]], atol=1e-5, rtol=0)
    ends = its_tokenizer.special["<eos>"], tokenizer.special["<eos>"]
    torch.testing.assert_close(found[:, ends[0]], wanted[:, ends[1]], atol=1e-5, rtol=0)


def test_the_tokenizer_that_is_imported_again_gives_the_same_ids(exported, tokenizer):
    _, again = import_model.import_model(exported / "model.bin")
    order = pieces_of(tokenizer, "").order
    for text in [*stories(30), BROKEN, "a €"]:
        text = f" {text.replace(chr(10), ' ')}"  # line breaks are the border of words
        assert [order[number] for number in again.encode(text)] == tokenizer.encode(text), text
        assert again.decode(again.encode(text)) == text


# The tokenizer --------------------------------------------------------------------------------------------------------


def test_100_prompts_have_the_same_ids(exported, tokenizer, tmp_path, capsys):
    save(tmp_path, tokenizer)
    export(tmp_path, tokenizer)
    assert "ids: 100 of 100 prompts have the same ids" in capsys.readouterr().out
    rows = read_rows(exported / "tokenizer.bin")
    pieces = pieces_of(tokenizer, "")
    for prompt in [*export_llama2c.sample_prompts(), BROKEN, ""]:
        ids = original_ids(prompt, rows)
        assert ids == encode(prompt, pieces)
        assert [pieces.order[number] for number in ids] == tokenizer.encode(f" {prompt}" if prompt else "")


def test_the_export_reports_how_many_prompts_differ_and_why(tokenizer):
    prompts = ["Tom ran.", "Tom\n\nran.", "Mia ran."]
    line = export_llama2c.compare_ids(tokenizer, pieces_of(tokenizer, ""), prompts)
    assert "2 of 3 prompts have the same ids" in line and "1 differ, because" in line
    assert r"['\n', '\n', 'r'] here, ['\n\n', 'r" in line


def test_each_piece_can_be_read_by_every_port(exported, tokenizer):
    """They want valid UTF-8, at least one byte, and each byte of a text at its own id."""
    rows = read_rows(exported / "tokenizer.bin")  # decodes strictly
    texts = [text for _, text in rows]
    assert texts[:3] == ["<unk>", "\n<s>\n", "\n</s>\n"] and len(texts) == tokenizer.vocab_size
    assert all(texts) and len(set(texts)) == len(texts) and "\0" not in "".join(texts)
    assert texts[3] == "<0x00>" and texts[3 + 97] == "a" and texts[3 + 0xE2] == "<0xE2>"
    assert "“" in texts and "<0xE2><0x80>" in texts
    longest = struct.unpack_from("<i", (exported / "tokenizer.bin").read_bytes())[0]
    assert longest == max(len(text.encode()) for text in texts)


def test_the_pieces_of_a_text_give_the_text(exported, tokenizer):
    texts = [text for _, text in read_rows(exported / "tokenizer.bin")]
    numbers = {number: place for place, number in enumerate(pieces_of(tokenizer, "").order)}
    for text in stories(20):
        assert "".join(texts[numbers[number]] for number in tokenizer.encode(text)) == text


# What is refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arch", "changes", "part"),
    [
        ("gpt2", {}, "positions learned, norm layer, mlp gelu, bias True"),
        ("llama", {"positions": "learned"}, "has positions learned, but llama2.c computes only positions rotary"),
        ("llama", {"bias": True}, "has bias True"),
        ("llama", {"norm_epsilon": 1e-6}, "has norm_epsilon 1e-06"),
        ("llama", {"rotary_base": 500.0}, "has rotary_base 500.0"),
        ("llama", {"window_size": CONTEXT - 1}, "--window_size 11"),
    ],
)
def test_another_network_is_refused_in_one_line(tmp_path, tokenizer, arch, changes, part):
    save(tmp_path, tokenizer, arch, **changes)
    assert part in error_of(export, tmp_path, tokenizer)
    assert not (tmp_path / "out").exists()


def test_a_window_as_long_as_the_context_is_exported(tmp_path, tokenizer):
    save(tmp_path, tokenizer, window_size=CONTEXT)
    assert (export(tmp_path, tokenizer) / "model.bin").is_file()


def wrapped(tokenizer, change):
    """Return a tokenizer whose JSON was changed, like that of a stranger."""
    content = json.loads(tokenizer.backend.to_str())
    change(content)
    return wrap_tokenizer(json.dumps(content), "theirs")


def test_a_tokenizer_of_another_kind_is_refused_in_one_line(tokenizer):
    vocabulary = {name: number for number, name in enumerate([*SPECIAL_TOKENS, "a", "b</w>"])}
    assert "for words" in error_of(pieces_of, Tokenizer(WordBPE(vocabulary, [])), "words.pkl")

    def without_last_merge(content):
        content["model"]["merges"].pop()

    assert "which no merge forms" in error_of(pieces_of, wrapped(tokenizer, without_last_merge), "theirs.json")

    def with_the_name_of_a_byte(content):
        name = "<0xE2>"
        for end in range(2, len(name) + 1):
            content["model"]["vocab"][name[:end]] = tokenizer.vocab_size + end - 2
            content["model"]["merges"].append([name[: end - 1], name[end - 1]])

    assert "would write as <0xE2>" in error_of(pieces_of, wrapped(tokenizer, with_the_name_of_a_byte), "theirs.json")


def test_files_that_exist_are_replaced_only_if_asked(tmp_path, tokenizer):
    save(tmp_path, tokenizer)
    out = export(tmp_path, tokenizer)
    (out / "model.bin").unlink()
    (out / "tokenizer.bin").write_text("mine")
    assert "tokenizer.bin already exists; pass --overwrite" in error_of(export, tmp_path, tokenizer)
    assert [path.name for path in out.iterdir()] == ["tokenizer.bin"]
    export(tmp_path, tokenizer, "--overwrite")
    assert len(read_rows(out / "tokenizer.bin")) == tokenizer.vocab_size


def test_a_model_of_another_tokenizer_is_refused(tmp_path, tokenizer):
    save(tmp_path, tokenizer)
    another = train_tokenizer([story(1)] * 2, 300)
    another.path = tmp_path / "another.pkl"
    another.save(another.path)
    with pytest.raises(UserError, match="not trained with this tokenizer"):
        export(tmp_path, another)
    assert not (tmp_path / "out").exists()


# The smallest published model -----------------------------------------------------------------------------------------


@pytest.mark.skipif(not (SHARED / "llama2c/stories260K.bin").is_file(), reason="needs llama2.c's stories260K")
@torch.no_grad()
def test_a_published_model_stays_the_same(tmp_path, capsys):
    """Import it, export it, and import that."""
    flags = ["--tokenizer_path", SHARED / "llama2c/tok512.bin"]
    main(import_model, SHARED / "llama2c/stories260K.bin", tmp_path, *flags)
    tokenizer_path = tmp_path / "bpe_tokenizer_tinystories.pkl"
    tokenizer = load_tokenizer(tokenizer_path)
    capsys.readouterr()
    main(export_llama2c, tmp_path / "best_model.pth", tmp_path, "--tokenizer_path", tokenizer_path)
    assert "ids: 100 of 100 prompts have the same ids" in capsys.readouterr().out
    model, _ = load_model(tmp_path / "best_model.pth")
    again, its_tokenizer = import_model.import_model(tmp_path / "model.bin")
    order = pieces_of(tokenizer, "").order
    text = " Once upon a time, there was a little girl named Lily."
    ours = [tokenizer.special["<bos>"], *tokenizer.encode(text)]
    theirs = [its_tokenizer.special["<bos>"], *its_tokenizer.encode(text)]
    assert [order[number] for number in theirs[1:]] == ours[1:]
    found = again(torch.tensor([theirs]))[0, :, 3 : len(order)]
    torch.testing.assert_close(found, model(torch.tensor([ours]))[0][:, order[3:]], atol=1e-4, rtol=0)
