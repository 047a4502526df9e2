"""Models from elsewhere: the same logits, the same ids; hostile files run no code and are refused in one line."""

import json
import math
import os
import pickle
from pathlib import Path

import import_model
import pytest
import tokenizers
import torch
import torch.nn.functional as F
import transformers
from programs import run
from safetensors.torch import load, save_file
from tokenizers import decoders, models, pre_tokenizers, trainers

import chat_with_tinystories_model as chat
import generate_tinystories_text
import train_tinystories_chat_model
from common.errors import UserError
from common.weights_files import load_model, save_model
from data import SPECIAL_TOKENS, load_tokenizer

SHARED = Path(__file__).parents[2] / "shared"
STORY = "Once upon a time there was a little fox. The fox said: I don't know!"
SIZES = {"gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 24}}
SIZES["gpt_neo"] = {"hidden_size": 16, "num_layers": 4, "num_heads": 2, "max_position_embeddings": 24, "window_size": 8}
SIZES["gpt_neo"] |= {"attention_types": [[["global", "local"], 2]]}
SIZES["llama"] = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 24}
SIZES["llama"] |= {"max_position_embeddings": 24}
CLASSES = {"gpt2": transformers.GPT2LMHeadModel, "gpt_neo": transformers.GPTNeoForCausalLM}
CLASSES["llama"] = transformers.LlamaForCausalLM


def scrambled(model):
    """Change all weights so much that a mistake in any of them shows in the logits; also biases and norms."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def byte_level(texts=(STORY,), end="<|endoftext|>"):
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend.train_from_iterator(texts * 2, trainers.BpeTrainer(initial_alphabet=alphabet, show_progress=False))
    backend.add_special_tokens([end])
    return backend


def foreign(folder, kind, **changes):
    """Write a tiny transformers model with its tokenizer, and return the model."""
    backend = byte_level()
    end = backend.token_to_id("<|endoftext|>")
    fields = SIZES[kind] | {"vocab_size": end + 1, "bos_token_id": end, "eos_token_id": end} | changes
    model = scrambled(CLASSES[kind](CLASSES[kind].config_class(**fields)))
    model.save_pretrained(folder)
    backend.save(str(folder / "tokenizer.json"))
    return model


def imported(source, out, *flags):
    """Import with the program's main function, and load the result as the next steps do."""
    import_model.sys.argv = ["import_model.py", str(source), str(out), *map(str, flags)]
    import_model.main()
    tokenizer = load_tokenizer(out / "bpe_tokenizer_tinystories.pkl")
    return load_model(out / "best_model.pth", tokenizer)[0], tokenizer


def refusal(*arguments):
    with pytest.raises(UserError) as raised:
        imported(*arguments)
    message = str(raised.value)
    assert "\n" not in message and raised.value.status == 2 and not Path(arguments[1]).exists()
    return message


@torch.no_grad()
def assert_same_logits(model, original, known):
    ids = torch.randint(known, (3, model.config.max_seq_len), generator=torch.Generator().manual_seed(0))
    found, wanted = model(ids)[..., :known], original(ids)
    wanted = wanted.logits if hasattr(wanted, "logits") else wanted
    assert wanted.std() > 0.5
    torch.testing.assert_close(found, wanted[..., :known], atol=1e-4, rtol=0)


# Models in transformers' format ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind, changes",
    [
        ("gpt2", {}),
        ("gpt2", {"activation_function": "gelu", "tie_word_embeddings": False, "n_inner": 20}),
        ("gpt2", {"scale_attn_weights": False, "scale_attn_by_inverse_layer_idx": True, "layer_norm_epsilon": 1e-2}),
        ("gpt_neo", {}),
        ("gpt_neo", {"attention_types": [[["global"], 4]], "intermediate_size": 20}),
        ("llama", {}),
        ("llama", {"tie_word_embeddings": True, "rms_norm_eps": 1e-2, "num_key_value_heads": 2}),
        ("llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}, "attention_bias": True}),
        ("llama", {"mlp_bias": True, "num_key_value_heads": 1}),
    ],
)
def test_an_imported_model_has_the_logits_of_the_original(tmp_path, kind, changes):
    original = foreign(tmp_path / "theirs", kind, **changes)
    model, tokenizer = imported(tmp_path / "theirs", tmp_path / "ours")
    assert_same_logits(model, original, original.config.vocab_size)
    assert model.config.num_layers == (4 if kind == "gpt_neo" else 2) and tokenizer.vocab_size > model.config.num_layers


def test_local_layers_limit_the_context_to_their_window_and_this_is_reported(tmp_path, capsys):
    foreign(tmp_path / "theirs", "gpt_neo")
    assert imported(tmp_path / "theirs", tmp_path / "ours")[0].config.max_seq_len == 8
    assert "context: 8 tokens, not 24" in capsys.readouterr().err


def test_a_context_as_long_as_the_local_window_is_kept(tmp_path):
    original = foreign(tmp_path / "theirs", "gpt_neo", window_size=24)
    model, _ = imported(tmp_path / "theirs", tmp_path / "ours")
    assert model.config.max_seq_len == 24
    assert_same_logits(model, original, original.config.vocab_size)


def tensors_in(path):
    """Read the weights into memory: Windows does not delete or replace a file that is mapped into it."""
    return load(path.read_bytes())


def split_into_two(folder, suffix, write):
    tensors = tensors_in(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names, index = sorted(tensors), {}
    stem = {"safetensors": "model", "bin": "pytorch_model"}[suffix]
    for number, part in enumerate((names[::2], names[1::2]), start=1):
        shard = f"{stem}-0000{number}-of-00002.{suffix}"
        write({name: tensors[name] for name in part}, folder / shard)
        index |= dict.fromkeys(part, shard)
    (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps({"weight_map": index}))


@pytest.mark.parametrize("form", ["bin", "half", "shards", "shards of bin"])
def test_every_form_of_weights_gives_the_same_model(tmp_path, form):
    folder = tmp_path / "theirs"
    original = foreign(folder, "gpt2")
    tensors = tensors_in(folder / "model.safetensors")
    if form == "bin":
        (folder / "model.safetensors").unlink()
        tensors = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
        tensors |= {
            "lm_head.weight": tensors["wte.weight"],
            "h.0.attn.bias": torch.ones(1, 1, 24, 24, dtype=torch.bool),
        }
        torch.save(tensors, folder / "pytorch_model.bin")
    elif form == "half":
        save_file({name: tensor.bfloat16() for name, tensor in tensors.items()}, folder / "model.safetensors")
        original.load_state_dict({name: tensor.bfloat16() for name, tensor in tensors.items()}, strict=False)
    elif form == "shards":
        split_into_two(folder, "safetensors", save_file)
    else:
        split_into_two(folder, "bin", torch.save)
    model, _ = imported(folder, tmp_path / "ours")
    assert_same_logits(model, original, original.config.vocab_size)


def test_texts_keep_their_ids_and_the_end_of_a_text_becomes_eos(tmp_path):
    original = foreign(tmp_path / "theirs", "gpt_neo")
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "theirs/tokenizer.json"))
    model, tokenizer = imported(tmp_path / "theirs", tmp_path / "ours")
    texts = [STORY, "🦊 \n\n  two  spaces", "a <|endoftext|> b <eos>"]
    assert tokenizer.encode(texts[0]) == theirs.encode(texts[0]).ids
    assert [tokenizer.decode(tokenizer.encode(text)) for text in texts] == texts
    end, known = original.config.eos_token_id, original.config.vocab_size
    assert tokenizer.special["<eos>"] == end and end not in tokenizer.encode(texts[2])
    assert sorted(tokenizer.special.values()) == list(range(end, known + 6))
    rows = model.tokens.weight
    assert torch.equal(rows[tokenizer.special["<bos>"]], rows[end])  # the end token also begins a text
    torch.testing.assert_close(rows[tokenizer.special["<user>"]], rows[:known].mean(0))


@pytest.mark.parametrize("end", [None, 50256, [3, 5], "</s>", {}])
def test_without_an_end_in_the_config_endoftext_becomes_eos(tmp_path, end):
    original = foreign(tmp_path / "theirs", "gpt2")
    path = tmp_path / "theirs/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"eos_token_id": end}))
    if end == {}:
        assert "tokenizer" in refusal(tmp_path / "theirs", tmp_path / "ours")
        return
    _, tokenizer = imported(tmp_path / "theirs", tmp_path / "ours")
    known = original.config.vocab_size
    assert tokenizer.special["<eos>"] == (known + 2 if end == [3, 5] else known - 1)  # [3, 5]: ordinary tokens


def test_existing_begin_and_end_tokens_keep_their_rows(tmp_path):
    folder = tmp_path / "theirs"
    backend = byte_level(end="</s>")
    backend.add_special_tokens(["<s>"])
    size = backend.get_vocab_size()
    original = foreign(folder, "llama", vocab_size=size + 5, eos_token_id=size - 2, bos_token_id=size - 1)
    backend.save(str(folder / "tokenizer.json"))
    model, tokenizer = imported(folder, tmp_path / "ours")
    assert (tokenizer.special["<eos>"], tokenizer.special["<bos>"]) == (size - 2, size - 1)
    assert tokenizer.vocab_size == size + 5  # its five unused rows are used for the other five
    assert_same_logits(model, original, size)


@pytest.mark.skipif(not (SHARED / "gpt2_tokenizer").is_dir(), reason="needs GPT-2's vocabulary next to the repository")
def test_gpt2s_vocab_json_and_merges_can_be_imported(tmp_path):
    foreign(tmp_path / "theirs", "gpt2", n_embd=4, n_layer=1, vocab_size=50257, eos_token_id=50256, bos_token_id=50256)
    _, tokenizer = import_model.import_model(tmp_path / "theirs", SHARED / "gpt2_tokenizer")
    assert tokenizer.encode("Once upon a time") == [7454, 2402, 257, 640]
    assert tokenizer.special["<eos>"] == 50256 and tokenizer.vocab_size == 50263
    assert tokenizer.decode(tokenizer.encode(STORY)) == STORY


@pytest.mark.parametrize(
    "kind, changes, word",
    [
        ("gpt2", {"activation_function": "relu"}, "activation_function is relu"),
        ("gpt2", {"model_type": "mamba"}, "model_type is mamba; only gpt2, gpt_neo, llama can be imported"),
        ("gpt2", {"model_type": ["gpt2"]}, "model_type"),
        ("gpt2", {"n_layer": 1}, "h.1."),
        ("gpt2", {"n_layer": 10**9}, "h.2."),
        ("gpt2", {"n_embd": 10**9}, "wte"),
        ("gpt2", {"n_embd": "16"}, "n_embd"),
        ("gpt2", {"n_head": 3}, "--num_heads 3"),
        ("gpt2", {"layer_norm_epsilon": float("nan")}, "layer_norm_epsilon"),
        ("gpt2", {"tie_word_embeddings": False}, "lm_head.weight"),
        ("gpt_neo", {"attention_types": [[["global", "sparse"], 2]]}, "attention_types"),
        ("llama", {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, "rope_scaling"),
        ("llama", {"rope_parameters": [[]]}, "rope_scaling"),
        ("llama", {"rope_parameters": {"rope_theta": "x"}}, "rope_theta"),
        ("llama", {"head_dim": 8}, "head_dim"),
        ("llama", {"num_attention_heads": 3}, "num_attention_heads"),
        ("llama", {"num_key_value_heads": 3}, "num_attention_heads"),
        ("llama", {"hidden_act": "gelu"}, "hidden_act"),
        ("llama", {"max_position_embeddings": 10**11}, "a context of"),
    ],
)
def test_unsupported_configs_get_one_line_that_names_the_field(tmp_path, kind, changes, word):
    foreign(tmp_path / "theirs", kind)
    path = tmp_path / "theirs/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    assert word in refusal(tmp_path / "theirs", tmp_path / "ours")


def test_unknown_weights_are_named(tmp_path):
    foreign(tmp_path / "theirs", "gpt2")
    path = tmp_path / "theirs/model.safetensors"
    save_file(tensors_in(path) | {"transformer.h.0.adapter.weight": torch.ones(2)}, path)
    assert "transformer.h.0.adapter.weight" in refusal(tmp_path / "theirs", tmp_path / "ours")


def test_integer_weights_are_refused(tmp_path):
    foreign(tmp_path / "theirs", "gpt2")
    path = tmp_path / "theirs/model.safetensors"
    tensors = tensors_in(path)
    tensors["transformer.h.1.mlp.c_fc.weight"] = tensors["transformer.h.1.mlp.c_fc.weight"].to(torch.int8)
    save_file(tensors, path)
    message = refusal(tmp_path / "theirs", tmp_path / "ours")
    assert "h.1.mlp.c_fc.weight" in message and "quantized" in message


@pytest.mark.parametrize(
    ("kind", "table"), [("gpt2", "transformer.wte.weight"), ("llama", "model.embed_tokens.weight")]
)
def test_a_separate_head_in_a_model_with_tied_embeddings_is_refused(tmp_path, kind, table):
    foreign(tmp_path / "theirs", kind, tie_word_embeddings=True)
    path = tmp_path / "theirs/model.safetensors"
    tensors = tensors_in(path)
    save_file(tensors | {"lm_head.weight": tensors[table] + 1}, path)
    message = refusal(tmp_path / "theirs", tmp_path / "ours")
    assert "lm_head.weight" in message and "tie_word_embeddings" in message


@pytest.mark.parametrize("form", ["whole", "shards"])
def test_weights_files_with_other_names_are_not_read(tmp_path, form):
    folder = tmp_path / "theirs"
    original = foreign(folder, "gpt2")
    others = {name: torch.zeros_like(tensor) for name, tensor in tensors_in(folder / "model.safetensors").items()}
    if form == "shards":
        split_into_two(folder, "safetensors", save_file)
    for name in ("model_quantized.safetensors", "model.fp16.safetensors", "model-old.safetensors"):
        save_file(others, folder / name)
    model, _ = imported(folder, tmp_path / "ours")
    assert_same_logits(model, original, original.config.vocab_size)


def test_a_tokenizer_that_is_not_a_byte_level_bpe_is_refused(tmp_path):
    foreign(tmp_path / "theirs", "llama")
    path = tmp_path / "theirs/tokenizer.json"
    metaspace = json.loads(path.read_text()) | {"decoder": {"type": "Metaspace", "replacement": "_"}}
    path.write_text(json.dumps(metaspace))
    assert "not a byte-level BPE" in refusal(tmp_path / "theirs", tmp_path / "ours")
    assert "tokenizer" in refusal(tmp_path / "theirs", tmp_path / "ours", "--tokenizer_path", tmp_path)


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(tmp_path):
    foreign(tmp_path / "theirs", "gpt2", vocab_size=99, eos_token_id=98, bos_token_id=98)
    assert "rows for 99 tokens" in refusal(tmp_path / "theirs", tmp_path / "ours")


# An older course's checkpoint -----------------------------------------------------------------------------------------


def older_logits(state, ids, heads, window):
    """Compute the older course's network in the plainest way: ids (B, T) -> logits (B, T, V)."""
    table, epsilon = state["transformer.embeddings.word_embeddings.weight"], 1e-12
    length, size = ids.size(1), table.size(1)
    x = table[ids] + state["transformer.embeddings.position_embeddings.weight"][:length]
    linear = lambda name, x: F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])
    norm = lambda name, x: F.layer_norm(x, (size,), state[f"{name}.weight"], state[f"{name}.bias"], epsilon)
    distance = torch.arange(length)[:, None] - torch.arange(length)
    hidden = (distance < 0) | (distance >= window)
    for layer in range(2):
        at = f"transformer.layers.{layer}"
        y = norm(f"{at}.layer_norm1", x)
        parts = [linear(f"{at}.attention.{name}", y) for name in ("query", "key", "value")]
        q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in parts)
        scores = (q @ k.transpose(-1, -2) / math.sqrt(size / heads)).masked_fill(hidden, -torch.inf)
        x = x + linear(f"{at}.attention.output", (scores.softmax(-1) @ v).transpose(1, 2).flatten(2))
        y = F.gelu(linear(f"{at}.feed_forward.dense1", norm(f"{at}.layer_norm2", x)))
        x = x + linear(f"{at}.feed_forward.dense2", y)
    return norm("transformer.layer_norm", x) @ state["lm_head.weight"].T


def older_state(vocab_size, size=16, inner=24, context=12):
    """Return random weights with the names of the older course."""
    generator = torch.Generator().manual_seed(3)
    random = lambda *shape: 0.3 * torch.randn(shape, generator=generator)
    table = 0.01 * random(vocab_size, size)  # so small that the epsilon of the norms matters
    state = {"transformer.embeddings.position_ids": torch.arange(context).expand((1, -1))}
    state |= {"transformer.embeddings.word_embeddings.weight": table, "lm_head.weight": table}
    state |= {"transformer.embeddings.position_embeddings.weight": 0.01 * random(context, size)}
    shapes = {"attention.query": (size, size), "attention.key": (size, size), "attention.value": (size, size)}
    shapes |= {"attention.output": (size, size), "layer_norm1": (size,), "layer_norm2": (size,)}
    shapes |= {"feed_forward.dense1": (inner, size), "feed_forward.dense2": (size, inner)}
    layers = {f"layers.{layer}.{name}": shape for layer in range(2) for name, shape in shapes.items()}
    for name, shape in (layers | {"layer_norm": (size,)}).items():
        state[f"transformer.{name}.weight"] = random(*shape)
        state[f"transformer.{name}.bias"] = random(shape[0])
    state["transformer.layer_norm.weight"] *= 300
    return state


def older_merges(texts, count):
    """Learn (bpe_codes, token2id) like the older course: symbols that are used up by later merges are not tokens."""
    words, codes = [[*word, "</w>"] for text in texts for word in text.split()], {}
    while len(codes) < count:
        pairs = [pair for word in words for pair in zip(word, word[1:], strict=False)]
        best = max(dict.fromkeys(pairs), key=pairs.count)
        codes[best] = len(codes)
        words = [merged(word, best) for word in words]
    tokens = {token for word in words for token in word} | set(SPECIAL_TOKENS)
    return codes, {token: number for number, token in enumerate(sorted(tokens))}


def merged(word, pair):
    done = []
    for symbol in word:
        if done and (done[-1], symbol) == pair:
            done[-1] = (*pair,)  # joined below, so that it is not merged twice
        else:
            done.append(symbol)
    return ["".join(symbol) for symbol in done]


def older_ids(text, codes, token2id):
    """Return the ids of the older course's tokenizer."""
    ids = []
    for text_word in text.split():
        word = [*text_word, "</w>"]
        while known := [pair for pair in zip(word, word[1:], strict=False) if pair in codes]:
            word = merged(word, min(known, key=codes.get))
        ids += [token2id.get(symbol, token2id["<unk>"]) for symbol in word]
    return ids


@pytest.fixture
def older(tmp_path):
    """Write the files of an older course, and return (path of the model file, its state, bpe_codes, token2id)."""
    codes, token2id = older_merges([STORY, "banana bananas"], 30)
    state = older_state(len(token2id))
    torch.save(state, tmp_path / "best_model.pth")
    (tmp_path / "args.json").write_text(json.dumps({"num_heads": 4, "window_size": 5, "hidden_size": 16}))
    content = {"vocab_size": 30, "bpe_codes": codes, "vocab": {STORY: 1}, "token2id": token2id}
    content |= {"id2token": {i: t for t, i in token2id.items()}, "special_tokens": SPECIAL_TOKENS}
    (tmp_path / "old.pkl").write_bytes(pickle.dumps(content))
    return tmp_path / "best_model.pth", state, codes, token2id


def test_an_older_model_has_the_same_logits(older, tmp_path):
    path, state, _, token2id = older
    model, _ = imported(path, tmp_path / "ours", "--tokenizer_path", tmp_path / "old.pkl")
    assert_same_logits(model, lambda ids: older_logits(state, ids, heads=4, window=5), len(token2id))
    assert model.config.window_size == 5 and model.config.vocab_size == len(token2id)


def test_an_older_checkpoint_with_an_optimizer_can_be_imported(older, tmp_path):
    path, state, _, token2id = older
    wrapped = {f"module.{name}": tensor for name, tensor in state.items()}
    torch.save({"model_state_dict": wrapped, "optimizer_state_dict": {"state": {}}, "epoch": 3}, path)
    model, _ = imported(path, tmp_path / "ours", "--tokenizer_path", tmp_path / "old.pkl")
    assert_same_logits(model, lambda ids: older_logits(state, ids, heads=4, window=5), len(token2id))


def test_an_older_tokenizer_gives_the_same_ids(older, tmp_path):
    path, _, codes, token2id = older
    _, tokenizer = imported(path, tmp_path / "ours", "--tokenizer_path", tmp_path / "old.pkl")
    made = {"".join(pair) for pair in codes}
    assert made - token2id.keys()  # the results of some merges are not tokens: they become <unk>
    texts = [STORY, " bananana  ban\n\nfoxes!\t", "ü </w> a</w>b aaaa", "", *(" ".join(pair) for pair in codes), *made]
    assert token2id["<unk>"] in tokenizer.encode(texts[2])
    for text in texts:
        assert tokenizer.encode(text) == older_ids(text, codes, token2id)
    assert tokenizer.special == {name: token2id[name] for name in SPECIAL_TOKENS}


def test_words_of_an_older_tokenizer_come_back_with_a_space_before_each(older, tmp_path):
    path, *_ = older
    _, tokenizer = imported(path, tmp_path / "ours", "--tokenizer_path", tmp_path / "old.pkl")
    ids = tokenizer.encode("a\n fox   said:")
    assert tokenizer.decode(ids) == "".join(tokenizer.stream(ids)) == " a fox said:"
    middle = [tokenizer.special["<bos>"], *ids[:2], tokenizer.special["<unk>"], *ids[2:]]
    assert tokenizer.decode(middle) == "".join(tokenizer.stream(middle))
    assert tokenizer.special["<eos>"] not in tokenizer.encode("The <eos> fox")


@pytest.mark.parametrize("lost", ["layers.1.attention.key.bias", "layers.0.layer_norm2.weight", "position_embeddings"])
def test_an_older_model_without_a_part_is_refused(older, tmp_path, lost):
    path, state, *_ = older
    torch.save({name: tensor for name, tensor in state.items() if lost not in name}, path)
    said = refusal(path, tmp_path / "ours", "--tokenizer_path", tmp_path / "old.pkl")
    assert "token embeddings, position embeddings" in said if lost == "position_embeddings" else lost in said


def test_an_unknown_weight_of_an_older_model_is_named(older, tmp_path):
    path, state, *_ = older
    torch.save(state | {"transformer.layers.1.attention.gate": torch.ones(3)}, path)
    assert "transformer.layers.1.attention.gate" in refusal(
        path, tmp_path / "ours", "--tokenizer_path", tmp_path / "old.pkl"
    )


# Damaged and hostile files --------------------------------------------------------------------------------------------


class Plant:
    """Creates a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_files_that_would_run_code_are_refused_and_run_none(older, tmp_path):
    path, state, codes, token2id = older
    planted, out = Plant(tmp_path / "planted"), tmp_path / "ours"
    bad = tmp_path / "bad.pkl"
    bad.write_bytes(pickle.dumps({"bpe_codes": codes, "token2id": token2id, "special_tokens": planted}))
    assert "more than plain types" in refusal(path, out, "--tokenizer_path", bad)
    torch.save(state | {"extra": planted}, path)
    assert "more than weights" in refusal(path, out, "--tokenizer_path", tmp_path / "old.pkl")
    foreign(tmp_path / "theirs", "gpt2")
    (tmp_path / "theirs/model.safetensors").unlink()
    torch.save({"wte.weight": planted}, tmp_path / "theirs/pytorch_model.bin")
    assert "more than weights" in refusal(tmp_path / "theirs", out)
    assert not (tmp_path / "planted").exists()


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_truncated_files_are_refused(tmp_path, name, share):
    foreign(tmp_path / "theirs", "gpt2")
    path = tmp_path / "theirs" / name
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    assert name in refusal(tmp_path / "theirs", tmp_path / "ours")


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"bpe_codes": {}, "token2id": {"a": 0, "b": 0}},
        {"bpe_codes": {("a",): 1}, "token2id": {"a": 0}},
        {"bpe_codes": {("a", 3): 1}, "token2id": {"a": 0}},
        {"bpe_codes": {("a", "b"): "x"}, "token2id": {"a": 0}},
        {"bpe_codes": 5, "token2id": {"a": 0}},
        {"bpe_codes": {}, "token2id": {"a": -5}},
        {"bpe_codes": {}, "token2id": {"a": 10**9}},
        {"bpe_codes": {}, "token2id": {}},
        [],
    ],
)
def test_a_pickle_that_is_not_a_tokenizer_is_refused(older, tmp_path, content):
    (tmp_path / "other.pkl").write_bytes(pickle.dumps(content))
    refusal(older[0], tmp_path / "ours", "--tokenizer_path", tmp_path / "other.pkl")


def test_an_index_that_points_outside_the_folder_is_refused(tmp_path):
    foreign(tmp_path / "theirs", "gpt2")
    folder = tmp_path / "theirs"
    (folder / "model.safetensors").rename(tmp_path / "outside.safetensors")
    for names in ({"wte.weight": "../outside.safetensors"}, {"wte.weight": 3}, [1], {"a": "nowhere.safetensors"}):
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
        refusal(folder, tmp_path / "ours")


def test_other_things_are_refused(older, tmp_path):
    path, out = older[0], tmp_path / "ours"
    (tmp_path / "empty").mkdir()
    assert "config.json" in refusal(tmp_path / "empty", out)
    assert "no file or folder" in refusal(tmp_path / "nowhere", out)
    (tmp_path / "empty/model.safetensors").touch()
    assert "pass its folder" in refusal(tmp_path / "empty/model.safetensors", out)
    torch.save([1, 2], tmp_path / "list.pth")
    assert "does not contain a model's weights" in refusal(tmp_path / "list.pth", out)
    (tmp_path / "args.json").unlink()
    assert "args.json" in refusal(path, out, "--tokenizer_path", tmp_path / "old.pkl")


# From the shell -------------------------------------------------------------------------------------------------------


def test_steps_3_to_5_can_use_imported_models(older, tmp_path, monkeypatch, capsys):
    foreign(tmp_path / "theirs", "gpt_neo", window_size=16)
    monkeypatch.chdir(tmp_path)
    talk = {"conversation": [{"text": "Who is it?"}, {"text": "The little fox."}]}
    Path("talks.jsonl").write_text((json.dumps(talk) + "\n") * 40)

    def call(program, *flags):
        monkeypatch.setattr("sys.argv", [program.__name__, *map(str, flags)])
        program.main()
        return capsys.readouterr().out

    for source, flags in (("theirs", []), ("best_model.pth", ["--tokenizer_path", "old.pkl"])):
        call(import_model, source, "ours", *flags, "--overwrite")
        tokenizer = ["--tokenizer_path", "ours/bpe_tokenizer_tinystories.pkl", "--device", "cpu"]
        writing = [*tokenizer, "--min_new_tokens", 20, "--max_new_tokens", 20, "--model_path"]
        story = call(generate_tinystories_text, "--prompt", "The fox", *writing, "ours/best_model.pth")
        assert story.startswith("The fox") and len(story) > len("The fox\n")
        tuning = [*tokenizer, "--pretrained_model_path", "ours/best_model.pth", "--dataset", "talks.jsonl"]
        call(train_tinystories_chat_model, *tuning, "--epochs", 1, "--overwrite", "--cache_dir", "cache")
        assert call(chat, "--once", "Who is it?", *writing, "tinystories_chat_model/best_model.pth").strip()


def test_the_program_prints_what_it_wrote_and_replaces_nothing_by_default(tmp_path):
    foreign(tmp_path / "theirs", "gpt2")
    done = run(tmp_path, "tools/import_model", "theirs", "ours")
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["wrote", "wrote", "python"]
    with pytest.raises(UserError, match="already exists"):
        imported(tmp_path / "theirs", tmp_path / "ours")


def test_a_model_of_this_course_needs_no_import(older, tmp_path):
    model, tokenizer = imported(older[0], tmp_path / "ours", "--tokenizer_path", tmp_path / "old.pkl")
    save_model(tmp_path / "own.pth", model, tokenizer.fingerprint)
    assert "is already a file of this course" in refusal(tmp_path / "own.pth", tmp_path / "other")
