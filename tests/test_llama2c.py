"""Models of llama2.c: imported ones have its logits and its ids; a damaged file is refused in one line."""

import json
import math
import shutil
import struct
from pathlib import Path

import import_model
import numpy as np
import pytest
import torch
from hostile import mutated
from llama2c_in_python import CONTEXT, HEADS, INNER, LAYERS, SIZE, original_ids, original_logits, read_rows
from programs import main

import generate_tinystories_text
from common.errors import UserError
from common.weights_files import load_model
from data import load_tokenizer

SHARED = Path(__file__).parents[2] / "shared"
# The highest score first; "theo" needs three merges, "aaa" can be split in two ways.
MERGED = [" t", "he", " the", "in", "re", "aa", "aaa", "é!", "theo", "the", " “", "\n\n"]
CHARACTERS = [*" etahinorsd.!“”’é埦🦊…"]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
TEXTS = [
    "", " ", "the theo aaaa aaaaa, there in the hen!", "“Hé!” said he… it’s the 🦊", "a\n\nb\tc  d",
    "<0x61> <s> <pad> \n<s>\n", "埦🦊", "ü日本ジ„•", "Ġ Ċ", "ééé!!é",
]  # fmt: skip


def pieces():
    """Return [(score, text), ...] of an invented vocabulary in the form that llama2.c's tokenizer.py exports."""
    special = [(0.0, text) for text in ("<unk>", "\n<s>\n", "\n</s>\n", *BYTES)]
    return special + [(-float(rank), text) for rank, text in enumerate([*MERGED, *CHARACTERS])]


def write_tokenizer(path, rows):
    content = struct.pack("<i", max(len(text.encode()) for _, text in rows))
    for score, text in rows:
        content += struct.pack("<fi", score, len(text.encode())) + text.encode()
    path.write_bytes(content)


def make_weights(groups, own_head, vocab_size):
    """Return {name: array}, in the order of llama2.c's first format."""
    random = np.random.default_rng(5)
    made = lambda *shape: (0.4 * random.standard_normal(shape)).astype(np.float32)
    shared = SIZE // HEADS * groups
    weights = {
        "token_embedding_table": made(vocab_size, SIZE), "rms_att_weight": 1 + made(LAYERS, SIZE),
        "wq": made(LAYERS, SIZE, SIZE), "wk": made(LAYERS, shared, SIZE), "wv": made(LAYERS, shared, SIZE),
        "wo": made(LAYERS, SIZE, SIZE), "rms_ffn_weight": 1 + made(LAYERS, SIZE), "w1": made(LAYERS, INNER, SIZE),
        "w2": made(LAYERS, SIZE, INNER), "w3": made(LAYERS, INNER, SIZE), "rms_final_weight": 1 + made(SIZE),
        "freq_cis_real": made(CONTEXT, SIZE // HEADS // 2), "freq_cis_imag": made(CONTEXT, SIZE // HEADS // 2),
    }  # fmt: skip
    weights["wcls"] = made(vocab_size, SIZE) if own_head else weights["token_embedding_table"]
    return weights


def write_model(folder, groups=2, own_head=False):
    """Write a tiny model.bin and its tokenizer.bin, and return the weights."""
    rows = pieces()
    weights = make_weights(groups, own_head, len(rows))
    sign = -1 if own_head else 1
    header = struct.pack("<7i", SIZE, INNER, LAYERS, HEADS, groups, sign * len(rows), CONTEXT)
    written = [array for name, array in weights.items() if own_head or name != "wcls"]
    (folder / "model.bin").write_bytes(header + b"".join(array.tobytes() for array in written))
    write_tokenizer(folder / "tokenizer.bin", rows)
    return weights


def imported(source, out, *flags):
    """Import with the program's main function, and load the result as the next steps do."""
    main(import_model, source, out, *flags)
    tokenizer = load_tokenizer(out / "bpe_tokenizer_tinystories.pkl")
    return load_model(out / "best_model.pth", tokenizer)[0], tokenizer


def refusal(source, out, *flags):
    with pytest.raises(UserError) as raised:
        imported(source, out, *flags)
    message = str(raised.value)
    assert "\n" not in message and raised.value.status == 2 and not out.exists()
    return message


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("own_head", [False, True])
def test_an_imported_model_has_the_logits_of_the_original(tmp_path, groups, own_head):
    weights = write_model(tmp_path, groups, own_head)
    model, _ = imported(tmp_path / "model.bin", tmp_path / "ours")
    known = len(pieces())
    ids = np.random.default_rng(0).integers(known, size=CONTEXT).tolist()
    with torch.no_grad():
        found = model(torch.tensor([ids]))[0, :, :known]
    wanted = torch.from_numpy(original_logits(weights, ids, groups)).float()
    assert wanted.std() > 0.5 and model.config.tie_embeddings != own_head
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)


def test_a_text_after_a_space_has_llama2cs_ids_and_every_text_comes_back(tmp_path):
    write_model(tmp_path)
    _, tokenizer = imported(tmp_path / "model.bin", tmp_path / "ours")
    for text in TEXTS:
        spaced = f" {text}" if text else ""
        assert tokenizer.encode(spaced) == original_ids(text, pieces()), text
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_story_ends_where_llama2c_ends_it(tmp_path):
    write_model(tmp_path)
    model, tokenizer = imported(tmp_path / "model.bin", tmp_path / "ours")
    end, begin = tokenizer.special["<eos>"], tokenizer.special["<bos>"]
    assert (tokenizer.special["<unk>"], end) == (0, 1)
    assert begin >= len(pieces()) and torch.equal(model.tokens.weight[begin], model.tokens.weight[end])


def test_a_character_whose_parts_get_no_id_stays_in_bytes(tmp_path):
    rows = pieces()[:259] + [(-1.0, character) for character in "aé“"]
    write_tokenizer(tmp_path / "few.bin", rows)
    content = import_model.llama2c.read_tokenizer(tmp_path / "few.bin", len(rows))
    backend = import_model.tokenizers.Tokenizer.from_str(json.dumps(content))
    assert backend.encode("é").ids == [260] and len(backend.encode("“”").ids) == 4  # one free id, that of <0x61>
    rows = pieces()[:259] + [(-1.0, character) for character in "é“"]
    write_tokenizer(tmp_path / "none.bin", rows)
    content = import_model.llama2c.read_tokenizer(tmp_path / "none.bin", len(rows))
    backend = import_model.tokenizers.Tokenizer.from_str(json.dumps(content))
    assert backend.encode("é“").ids == [259, 0xE2 + 3, 0x80 + 3, 0x9C + 3]
    assert backend.decode(backend.encode("é“”").ids) == "é“”"


# Damaged and hostile files --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["model.bin", "tokenizer.bin"])
@pytest.mark.parametrize("share", [0, 0.001, 0.5, 0.999, 1.001])
def test_a_truncated_or_too_long_file_is_refused(tmp_path, name, share):
    write_model(tmp_path)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes((content + bytes(100))[: round(share * len(content))])
    assert name in refusal(tmp_path / "model.bin", tmp_path / "ours")


@pytest.mark.parametrize(
    ("place", "number", "word"),
    [
        (0, 0x616B3432, "--version 0"),
        (0, 1 << 30, "it should have"),
        (0, 0, "dim 0"),
        (2, -1, "n_layers -1"),
        (2, (1 << 31) - 1, "it should have"),
        (3, 3, "n_heads 3"),
        (3, 16, "n_heads 16"),
        (4, 3, "n_kv_heads 3"),
        (5, 0, "vocab_size 0"),
        (5, -(1 << 31), "it should have"),
        (6, -5, "seq_len -5"),
    ],
)
def test_an_impossible_header_is_refused(tmp_path, place, number, word):
    write_model(tmp_path)
    content = bytearray((tmp_path / "model.bin").read_bytes())
    struct.pack_into("<i", content, 4 * place, number)
    (tmp_path / "model.bin").write_bytes(content)
    assert word in refusal(tmp_path / "model.bin", tmp_path / "ours")


def test_weights_that_are_not_finite_are_refused(tmp_path):
    write_model(tmp_path)
    content = bytearray((tmp_path / "model.bin").read_bytes())
    struct.pack_into("<f", content, 400, math.nan)
    (tmp_path / "model.bin").write_bytes(content)
    assert "not finite" in refusal(tmp_path / "model.bin", tmp_path / "ours")


@pytest.mark.parametrize(
    ("number", "row", "word"),
    [
        (1, (0.0, "<pad>"), "does not begin with"),
        (9, (0.0, "x"), "does not begin with"),
        (260, (-1.0, " t"), "the same text"),
        (260, (-1.0, "<0x61>"), "the same text"),
        (260, (-1.0, "</s>"), "the same text"),
        (260, (math.nan, "x"), "token 260"),
        (260, (-1.0, ""), "token 260"),
        (260, (-1.0, "x" * 1001), "token 260"),
    ],
)
def test_an_impossible_tokenizer_is_refused(tmp_path, number, row, word):
    write_model(tmp_path)
    rows = pieces()
    rows[number] = row
    write_tokenizer(tmp_path / "tokenizer.bin", rows)
    assert word in refusal(tmp_path / "model.bin", tmp_path / "ours")


def test_a_missing_tokenizer_or_one_of_another_kind_is_refused(tmp_path):
    write_model(tmp_path)
    (tmp_path / "tokenizer.bin").rename(tmp_path / "other.bin")
    assert "--tokenizer_path" in refusal(tmp_path / "model.bin", tmp_path / "ours")
    (tmp_path / "tokenizer.json").write_text("{}")
    flags = ["--tokenizer_path", tmp_path / "tokenizer.json"]
    assert "tokenizer.json is not a llama2.c tokenizer" in refusal(tmp_path / "model.bin", tmp_path / "ours", *flags)
    imported(tmp_path / "model.bin", tmp_path / "ours", "--tokenizer_path", tmp_path / "other.bin")


def test_changed_bytes_give_a_model_or_one_line_of_error(tmp_path):
    write_model(tmp_path)
    whole = {name: (tmp_path / name).read_bytes() for name in ("model.bin", "tokenizer.bin")}
    for seed in range(150):
        random = np.random.default_rng(seed)
        name = ("model.bin", "tokenizer.bin")[seed % 2]
        (tmp_path / name).write_bytes(mutated(whole[name], random))
        try:
            _, tokenizer = import_model.import_model(tmp_path / "model.bin")
            assert [tokenizer.decode(tokenizer.encode(text)) for text in TEXTS] == TEXTS
        except UserError as error:
            assert "\n" not in str(error), seed
        (tmp_path / name).write_bytes(whole[name])


def test_steps_3_to_5_name_the_import_tool_for_a_llama2c_file(tmp_path):
    write_model(tmp_path)
    with pytest.raises(UserError, match=r"import_model.py .*model.bin OUT_DIR"):
        load_model(tmp_path / "model.bin")


# The smallest published model -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Return (folder, model, tokenizer) of stories260K."""
    if not (SHARED / "llama2c/stories260K.bin").is_file():
        pytest.skip("needs llama2.c's stories260K next to the repository")
    folder = tmp_path_factory.mktemp("stories260K")
    shutil.copy(SHARED / "llama2c/stories260K.bin", folder)
    shutil.copy(SHARED / "llama2c/tok512.bin", folder / "tokenizer.bin")
    return folder, *imported(folder / "stories260K.bin", folder / "ours")


def real_stories(count):
    path = SHARED / "tinystories_10k/validation.jsonl"
    if not path.is_file():
        pytest.skip("needs stories next to the repository")
    lines = path.read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["text"].strip() for line in lines[:count]]


def test_it_writes_the_published_text(published, capsys):
    folder, _, _ = published
    flags = ["--model_path", "best_model.pth", "--tokenizer_path", "bpe_tokenizer_tinystories.pkl", "--device", "cpu"]
    flags += ["--temperature", 0, "--max_new_tokens", 40, "--prompt", " Once upon a time"]
    capsys.readouterr()
    main(generate_tinystories_text, *flags, folder=folder / "ours")
    assert capsys.readouterr().out.startswith(
        " Once upon a time, there was a little girl named Lily. She loved to play outside in the park. "
        "One day, she saw a big, red ball."
    )


def test_real_stories_have_llama2cs_ids(published):
    _, _, tokenizer = published
    rows = read_rows(SHARED / "llama2c/tok512.bin")
    for text in real_stories(40):
        assert tokenizer.encode(f" {text}") == original_ids(text, rows)


@torch.no_grad()
def test_its_loss_on_real_stories_is_as_low_as_expected(published):
    _, model, tokenizer = published
    nats = tokens = size = 0
    for text in real_stories(80):
        ids = [tokenizer.special["<bos>"], *tokenizer.encode(f" {text}")][:512]
        row = torch.tensor([ids])
        log_probabilities = model(row)[0, :-1].log_softmax(-1)
        nats -= log_probabilities.gather(1, row[0, 1:, None]).sum().item()
        tokens += len(ids) - 1
        size += len(tokenizer.decode(ids).encode()) - 1  # without the leading space
    assert nats / tokens == pytest.approx(1.278, abs=0.002)
    assert nats / size / math.log(2) == pytest.approx(0.876, abs=0.002)
