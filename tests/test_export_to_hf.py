"""tools/export_to_hf.py: transformers reads the export as the same model and the same tokenizer."""

import json
import sys
import time
import types
from pathlib import Path

import export_to_hf
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import run, story
from tiny import assert_same, make_model

import chat_with_tinystories_model
import generate_tinystories_text
from common.errors import UserError
from common.weights_files import load_model, save_model
from corpus.dialogues import render_dialogues
from data import SPECIAL_TOKENS, train_tokenizer
from generation import writer as writing
from generation.sampling import Sampling
from model import ARCHITECTURES

transformers = pytest.importorskip("transformers")
huggingface_hub = pytest.importorskip("huggingface_hub")

CONTEXT, RUN_ID = 48, "0" * 32
VARIANTS = {
    "gpt2": {}, "gpt2 without biases": {"bias": False}, "gpt2 with an own head": {"tie_embeddings": False},
    "llama": {}, "llama with biases": {"bias": True}, "llama with an own head": {"tie_embeddings": False},
    "llama with small heads": {"num_heads": 8}, "llama with a window as long as the context": {"window_size": CONTEXT},
    "gpt2 with another gelu": {"mlp": "gelu_exact", "norm_epsilon": 1e-3},
    "llama with another base": {"rotary_base": 500.0, "norm_epsilon": 1e-3},
}  # fmt: skip
examine = settings(max_examples=150, deadline=None)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    texts = [story(number) for number in range(60)] + ["Zoé saw a fox! 🦊\n\nThe end."] * 2
    tokenizer = train_tokenizer(texts, 400)
    tokenizer.path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.pkl"
    tokenizer.save(tokenizer.path)
    return tokenizer


def save(folder, tokenizer, arch="llama", **changes):
    """Save a tiny model with the tokenizer's vocabulary, and return it."""
    model = make_model(arch, vocab_size=tokenizer.vocab_size, max_seq_len=CONTEXT, **changes)
    save_model(folder / "model.pth", model, tokenizer.fingerprint, step=30, val_loss=1.5, run_id=RUN_ID)
    return model


def export(monkeypatch, folder, tokenizer, *flags, out="out"):
    words = ["export_to_hf.py", folder / "model.pth", folder / out, "--tokenizer_path", tokenizer.path, *flags]
    monkeypatch.setattr(sys, "argv", [str(word) for word in words])
    export_to_hf.main()
    return folder / out


def error_of(*args, status=2, **options):
    with pytest.raises(UserError) as raised:
        export(*args, **options)
    assert "\n" not in str(raised.value) and raised.value.status == status
    return str(raised.value)


@pytest.fixture(scope="module")
def exported(tokenizer, tmp_path_factory):
    """Return the folder of an exported tiny llama."""
    folder = tmp_path_factory.mktemp("exported")
    save(folder, tokenizer)
    with pytest.MonkeyPatch.context() as patch:
        return export(patch, folder, tokenizer)


@pytest.fixture(scope="module")
def theirs(exported):
    return transformers.AutoTokenizer.from_pretrained(exported)


# The network ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", VARIANTS)
def test_logits_agree_with_transformers(monkeypatch, tmp_path, tokenizer, name):
    arch = name.split()[0]
    ours = save(tmp_path, tokenizer, arch, **VARIANTS[name])
    folder = export(monkeypatch, tmp_path, tokenizer)
    model, info = transformers.AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    assert type(model).__name__ == {"gpt2": "GPT2LMHeadModel", "llama": "LlamaForCausalLM"}[arch]
    ids = torch.randint(tokenizer.vocab_size, (3, CONTEXT), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert_same(model(ids).logits, ours(ids), 1e-4)
    assert model.num_parameters() == ours.num_parameters()[1] or "without biases" in name


def test_the_weights_are_a_safetensors_file(exported, tokenizer):
    library = pytest.importorskip("safetensors")
    with library.safe_open(exported / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}
        assert file.get_tensor("model.embed_tokens.weight").shape == (tokenizer.vocab_size, 16)
    header = int.from_bytes((exported / "model.safetensors").read_bytes()[:8], "little")
    assert header % 8 == 0


@pytest.fixture(scope="module", params=ARCHITECTURES)
def learned(request, tokenizer, tmp_path_factory):
    """Return (folder, pipeline of the export) of a tiny model that knows three stories by heart."""
    folder = tmp_path_factory.mktemp("learned")
    model = make_model(request.param, vocab_size=tokenizer.vocab_size, max_seq_len=CONTEXT)
    model.initialize()
    begin, end = tokenizer.special["<bos>"], tokenizer.special["<eos>"]
    rows = [[begin, *tokenizer.encode(story(number)), end][: CONTEXT + 1] for number in (1, 2, 3)]
    ids = torch.tensor([row + [end] * (CONTEXT + 1 - len(row)) for row in rows])
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        (model(ids[:, :-1], ids[:, 1:]) / ids.numel()).backward()
        optimizer.step()
    save_model(folder / "model.pth", model, tokenizer.fingerprint, run_id=RUN_ID)
    with pytest.MonkeyPatch.context() as patch:
        out = export(patch, folder, tokenizer)
    return folder, transformers.pipeline("text-generation", model=str(out))


def written_by(program, monkeypatch, capsys, folder, tokenizer, *flags):
    """Return what a program prints if it computes in float32, like the export, on every CPU."""
    words = ["x", "--model_path", folder / "model.pth", "--tokenizer_path", tokenizer.path, "--temperature", 0, *flags]
    monkeypatch.setattr(sys, "argv", [str(word) for word in words])
    monkeypatch.setattr(writing, "ready_to_write", lambda model, rows: model)
    capsys.readouterr()
    program.main()
    return capsys.readouterr().out.removesuffix("\n")


@pytest.mark.parametrize("length", [CONTEXT, 20])
def test_greedy_text_is_the_same_as_in_the_course(monkeypatch, capsys, tokenizer, learned, length):
    (folder, write), prompt = learned, "Once upon a time, Mia had a"
    flags = ["--prompt", prompt, "--max_length", length - 1]  # --max_length does not count <bos>
    ours = written_by(generate_tinystories_text, monkeypatch, capsys, folder, tokenizer, *flags)
    (theirs,) = write(prompt, do_sample=False, max_length=length)
    assert theirs["generated_text"] == ours and len(ours) > len(prompt)
    ids = write.model.generate(**write.tokenizer(prompt, return_tensors="pt"), do_sample=False, max_length=length)
    ended = ids[0, -1] == tokenizer.special["<eos>"]
    assert ended == (length == CONTEXT) and (ended or ids.size(1) == length)


def test_a_greedy_reply_is_the_same_as_in_the_course(monkeypatch, capsys, tokenizer, learned):
    folder, chat = learned
    ours = written_by(
        chat_with_tinystories_model, monkeypatch, capsys, folder, tokenizer, "--once", " Once upon a time, Mia "
    )
    (theirs,) = chat(messages([("user", " Once upon a time, Mia ")]), do_sample=False)
    reply = theirs["generated_text"][-1]
    assert reply["role"] == "assistant" and reply["content"].lstrip() == ours and ours


def test_tokens_are_drawn_as_in_the_course(exported, tokenizer):
    drawn = transformers.GenerationConfig.from_pretrained(exported)
    assert (drawn.do_sample, drawn.temperature, drawn.top_k) == (True, Sampling().temperature, Sampling().top_k)
    assert (drawn.temperature, drawn.top_k, drawn.max_length) == (0.8, 50, CONTEXT)
    assert drawn.eos_token_id == tokenizer.special["<eos>"]
    assert {*drawn.suppress_tokens, drawn.eos_token_id} == set(tokenizer.special.values())


@pytest.mark.parametrize(
    "arch, changes, part",
    [
        ("gpt2", {"norm": "rms"}, "with --norm rms, but transformers' GPT2LMHeadModel needs --norm layer"),
        ("llama", {"norm": "layer"}, "with --norm layer, but transformers' LlamaForCausalLM needs --norm rms"),
        ("llama", {"mlp": "gelu", "norm": "layer"}, "--positions rotary, but transformers' GPT2LMHeadModel"),
        ("llama", {"window_size": CONTEXT - 1}, "--window_size 47"),
    ],
)
def test_an_unsupported_network_is_refused_with_its_flag(monkeypatch, tmp_path, tokenizer, arch, changes, part):
    save(tmp_path, tokenizer, arch, **changes)
    assert part in error_of(monkeypatch, tmp_path, tokenizer)
    assert not (tmp_path / "out").exists()


def test_a_bundle_may_be_spelled_out(monkeypatch, tmp_path, tokenizer):
    save(tmp_path, tokenizer, "llama", **ARCHITECTURES["gpt2"])
    folder = export(monkeypatch, tmp_path, tokenizer)
    assert json.loads((folder / "config.json").read_text())["model_type"] == "gpt2"


def nothing_special(text):
    return not any(token in text for token in SPECIAL_TOKENS)


# The tokenizer --------------------------------------------------------------------------------------------------------


@examine
@given(text=st.text().filter(nothing_special) | st.sampled_from([story(1), " two  spaces \n\n\t x", "don't 🦊 é", ""]))
def test_texts_have_the_same_ids_and_come_back_unchanged(theirs, tokenizer, text):
    ids = theirs.encode(text, add_special_tokens=False)
    assert ids == tokenizer.encode(text)
    assert theirs.decode(ids) == text
    assert theirs.encode(text) == [tokenizer.special["<bos>"], *ids]
    assert theirs.decode(theirs.encode(text), skip_special_tokens=True) == text


def test_a_tokenizer_of_another_kind_is_refused(monkeypatch, tmp_path, tokenizer):
    save(tmp_path, tokenizer)
    another = train_tokenizer([story(1)] * 2, 300)
    another.backend, another.path = object(), tokenizer.path
    monkeypatch.setattr(export_to_hf, "load_tokenizer", lambda path: another)
    assert "it is not a byte-level BPE" in error_of(monkeypatch, tmp_path, tokenizer)


def test_special_tokens_have_their_names_and_ids(theirs, tokenizer):
    assert set(theirs.all_special_tokens) == set(SPECIAL_TOKENS) and len(theirs) == tokenizer.vocab_size
    assert all(theirs.convert_tokens_to_ids(name) == token for name, token in tokenizer.special.items())
    named = theirs.bos_token, theirs.eos_token, theirs.pad_token, theirs.unk_token
    assert named == ("<bos>", "<eos>", "<pad>", "<unk>") and theirs.model_max_length == CONTEXT


@pytest.mark.parametrize("token", SPECIAL_TOKENS)
def test_typed_special_tokens_behave_as_the_card_says(exported, theirs, tokenizer, token):
    text = f"I typed {token} myself."
    assert tokenizer.special[token] in theirs.encode(text, add_special_tokens=False)
    assert theirs.encode(text, add_special_tokens=False, split_special_tokens=True) == tokenizer.encode(text)
    talk = [{"role": "user", "content": text}, {"role": "assistant", "content": text}]
    (rendered,) = render_dialogues(tokenizer, [[(turn["role"], turn["content"]) for turn in talk]])
    ids = theirs.apply_chat_template(talk, sanitize_control_tokens=True, return_dict=False)
    special = set(tokenizer.special.values())
    assert [i for i in ids if i in special] == [i for i in rendered.ids if i in special]
    assert theirs.decode(ids) == tokenizer.backend.decode(rendered.ids, skip_special_tokens=False)
    card = (exported / "README.md").read_text(encoding="utf-8")
    assert "split_special_tokens=True" in card and "sanitize_control_tokens=True" in card


# The chat template ----------------------------------------------------------------------------------------------------

TEXTS = st.text(max_size=12).filter(nothing_special) | st.sampled_from(
    [" Hello! ", "\n", "", "Tell me\n\nmore.", "\u2003wide\x85", "{{ x }} <b>"]
)
TURNS = st.lists(st.tuples(st.sampled_from(["user", "assistant", "user", "assistant", "system"]), TEXTS), min_size=1)


def messages(turns):
    return [{"role": role, "content": text} for role, text in turns]


@settings(max_examples=300, deadline=None)
@given(turns=TURNS)
def test_the_template_renders_dialogues_as_in_training(theirs, tokenizer, turns):
    """In any order of turns: two turns of one speaker, leading answers, unanswered questions, system texts anywhere."""
    (rendered,) = render_dialogues(tokenizer, [turns])
    assert theirs.apply_chat_template(messages(turns), return_dict=False) == rendered.ids


@settings(max_examples=150, deadline=None)
@given(turns=TURNS, asked=TEXTS)
def test_the_template_ends_where_the_assistant_should_speak(theirs, tokenizer, turns, asked):
    turns = [*turns, ("user", asked)]
    (rendered,) = render_dialogues(tokenizer, [turns], open_ended=True)
    assert rendered.ids[-1] == tokenizer.special["<assistant>"] or not asked.strip()
    ids = theirs.apply_chat_template(messages(turns), add_generation_prompt=True, return_dict=False)
    assert ids == rendered.ids


@pytest.mark.parametrize(
    "turns, add_generation_prompt, part",
    [
        ([("user", "Hi."), ("assistant", "Hello.")], True, "ends with a user message"),
        ([("system", "You are a fox.")], True, "ends with a user message"),
        ([("user", "Hi."), ("tool", "4")], False, "each role must be system, user or assistant"),
        ([("user", [{"type": "text", "text": "Hi."}])], True, "the content of each message must be text"),
    ],
)
def test_a_conversation_of_another_form_gets_a_clear_error(theirs, turns, add_generation_prompt, part):
    with pytest.raises(Exception, match=part):
        theirs.apply_chat_template(messages(turns), add_generation_prompt=add_generation_prompt)


# The model card -------------------------------------------------------------------------------------------------------


def write_run(folder, **changes):
    summary = {"run_id": RUN_ID, "best_step": 30, "best_bits_per_byte": 0.625, "best_accuracy": 0.5}
    summary |= {"final_step": 40, "final_bits_per_byte": 0.75, "tokens": 12345, "seconds": 3725.0}
    (folder / "summary.json").write_text(json.dumps(summary | changes))
    args = {"program": "train_tinystories_model.py", "dataset": [str(folder / "mine.jsonl")], "lr": 0.002, "epochs": 7}
    (folder / "args.json").write_text(json.dumps(args))


def test_the_card_has_the_numbers_of_the_run(monkeypatch, tmp_path, tokenizer):
    model = save(tmp_path, tokenizer)
    write_run(tmp_path)
    card = (export(monkeypatch, tmp_path, tokenizer) / "README.md").read_text(encoding="utf-8")
    in_layers, in_all = model.num_parameters()
    for part in ("1.5000", "4.48", "0.6250", "0.5000", "12,345", "1:02:05", "0.002", f"{in_layers:,}", f"{in_all:,}"):
        assert part in card
    assert "0.7500" not in card and "has not learned to answer" in card
    assert "mine.jsonl" in card and str(tmp_path / "mine.jsonl") not in card  # full paths are private


def test_a_model_of_a_run_with_rewards_has_learned_to_answer(monkeypatch, tmp_path, tokenizer):
    save(tmp_path, tokenizer)
    write_run(tmp_path)
    args = json.loads((tmp_path / "args.json").read_text())
    (tmp_path / "args.json").write_text(json.dumps(args | {"program": "train_with_rewards.py"}))
    card = (export(monkeypatch, tmp_path, tokenizer) / "README.md").read_text(encoding="utf-8")
    assert "train\\_with\\_rewards.py" in card and "has not learned to answer" not in card


def test_the_card_has_no_numbers_from_another_run(monkeypatch, tmp_path, tokenizer):
    save(tmp_path, tokenizer)
    write_run(tmp_path, run_id="1" * 32)
    card = (export(monkeypatch, tmp_path, tokenizer) / "README.md").read_text(encoding="utf-8")
    assert "1.5000" in card and "0.6250" not in card and "0.002" not in card and "was not next to" in card


def test_the_card_of_a_stopped_run_has_its_flags(monkeypatch, tmp_path, tokenizer):
    """It has no summary yet, so the first row of its metrics identifies the run."""
    save(tmp_path, tokenizer)
    write_run(tmp_path)
    (tmp_path / "summary.json").unlink()
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"event": "run", "run_id": RUN_ID}) + '\n{"event": "trai')
    card = (export(monkeypatch, tmp_path, tokenizer) / "README.md").read_text(encoding="utf-8")
    assert "train\\_tinystories\\_model.py" in card and "0.002" in card and "has not learned to answer" in card
    assert "was not next to" in card
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"event": "run", "run_id": "1" * 32}))
    card = (export(monkeypatch, tmp_path, tokenizer, "--overwrite") / "README.md").read_text(encoding="utf-8")
    assert "0.002" not in card


@pytest.mark.parametrize("content", [b"", b"[", b"[" * 100_000, b"\xff", b"[]", b'{"run_id": 7}'])
def test_unreadable_records_are_skipped(monkeypatch, tmp_path, tokenizer, content):
    save(tmp_path, tokenizer)
    for name in ("summary.json", "args.json", "metrics.jsonl"):
        (tmp_path / name).write_bytes(content)
    card = (export(monkeypatch, tmp_path, tokenizer) / "README.md").read_text(encoding="utf-8")
    assert "1.5000" in card and "was not next to" in card


def test_hostile_records_stay_in_their_table_cells(monkeypatch, tmp_path, tokenizer):
    save(tmp_path, tokenizer)
    write_run(tmp_path, best_accuracy="<b>", tokens=10**400, seconds=float("nan"))
    args = {"program": "x | y\n# train <script>", "lr": {"a": 1}, "dataset": ["`a|b`", 7], "seed": "[x](javascript:1)"}
    (tmp_path / "args.json").write_text(json.dumps(args))
    card = (export(monkeypatch, tmp_path, tokenizer) / "README.md").read_text(encoding="utf-8")
    assert "<script>" not in card and "<b>" not in card and "[x]" not in card and "\n# train" not in card
    rows = [line.replace("\\|", "") for line in card.splitlines() if line.startswith("|")]
    assert all(row.count("|") == 3 for row in rows)


# The folder -----------------------------------------------------------------------------------------------------------


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_neither_transformers_nor_safetensors_is_needed(monkeypatch, tmp_path, tokenizer):
    save(tmp_path, tokenizer)
    for name in ("transformers", "safetensors", "huggingface_hub"):
        monkeypatch.setitem(sys.modules, name, None)
    assert set(contents(export(monkeypatch, tmp_path, tokenizer))) == export_to_hf.NAMES


def test_it_runs_from_a_shell(tmp_path, tokenizer):
    save(tmp_path, tokenizer)
    flags = ["model.pth", "new/out", "--tokenizer_path", tokenizer.path]
    done = run(tmp_path, "tools/export_to_hf", *flags)
    assert done.stdout == "" and "wrote new/out as LlamaForCausalLM" in done.stderr
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["out"]


def test_unusable_input_gets_one_line(monkeypatch, tmp_path, tokenizer):
    assert "no file" in error_of(monkeypatch, tmp_path, tokenizer)
    save(tmp_path, tokenizer)
    another = train_tokenizer(["Another text, with other words."] * 2, 280)
    another.path = tmp_path / "another.pkl"
    another.save(another.path)
    assert "was not trained with this tokenizer" in error_of(monkeypatch, tmp_path, another)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert "current folder" in error_of(monkeypatch, tmp_path, tokenizer, out="here")
    (tmp_path / "here").rmdir()
    (tmp_path / "file").touch()
    assert "is a file" in error_of(monkeypatch, tmp_path, tokenizer, out="file")
    assert {path.name for path in tmp_path.iterdir()} == {"another.pkl", "file", "model.pth"}


def test_only_an_export_is_replaced(monkeypatch, tmp_path, tokenizer):
    save(tmp_path, tokenizer)
    (tmp_path / "out").mkdir()
    before = contents(export(monkeypatch, tmp_path, tokenizer))  # an empty folder may exist
    save(tmp_path, tokenizer, "gpt2")
    assert "--overwrite" in error_of(monkeypatch, tmp_path, tokenizer)
    assert contents(tmp_path / "out") == before
    export(monkeypatch, tmp_path, tokenizer, "--overwrite")
    assert b"GPT2LMHeadModel" in contents(tmp_path / "out")["config.json"]
    (tmp_path / "out/thesis.txt").write_text("years of work")
    assert "contains thesis.txt" in error_of(monkeypatch, tmp_path, tokenizer, "--overwrite")
    assert (tmp_path / "out/thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_folder_is_written_completely_or_not_at_all(monkeypatch, tmp_path, tokenizer, failure):
    def cut_off(weights):
        yield b"\0" * 100
        raise failure

    save(tmp_path, tokenizer)
    before = contents(export(monkeypatch, tmp_path, tokenizer))
    monkeypatch.setattr(export_to_hf, "safetensors", cut_off)
    for out in ("out", "fresh"):
        with pytest.raises(type(failure)):
            export(monkeypatch, tmp_path, tokenizer, "--overwrite", out=out)
    assert contents(tmp_path / "out") == before
    assert {path.name for path in tmp_path.iterdir()} == {"model.pth", "out"}


def test_an_older_export_is_restored_if_the_new_one_cannot_replace_it(monkeypatch, tmp_path, tokenizer):
    def rename(path, target):
        if ".partial" in path.name:
            raise PermissionError(13, "Permission denied")
        return renamed(path, target)

    save(tmp_path, tokenizer)
    before = contents(export(monkeypatch, tmp_path, tokenizer))
    save(tmp_path, tokenizer, "gpt2")
    renamed = Path.rename
    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(PermissionError):
        export(monkeypatch, tmp_path, tokenizer, "--overwrite")
    assert contents(tmp_path / "out") == before
    assert {path.name for path in tmp_path.iterdir()} == {"model.pth", "out"}


# The hub --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(monkeypatch):
    """Return a fake hub that stores uploads; `hub.fails` = {name of a call: a function to run instead}."""
    hub = types.SimpleNamespace(calls=[], fails={}, files={})

    def called(name):
        hub.calls.append(name)
        if name in hub.fails:
            hub.fails[name]()

    class Stub:
        def whoami(self):
            called("whoami")
            return {"name": "me"}

        def create_repo(self, name, exist_ok):
            called("create_repo")

        def upload_folder(self, repo_id, folder_path, commit_message):
            called("upload_folder")
            hub.files[repo_id] = contents(folder_path)

    monkeypatch.setattr(huggingface_hub, "HfApi", Stub)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(export_to_hf, "HUB_SECONDS", 0.2)
    return hub


def fail(error):
    raise error


def test_the_folder_is_uploaded(monkeypatch, capsys, tmp_path, tokenizer, hub):
    save(tmp_path, tokenizer)
    folder = export(monkeypatch, tmp_path, tokenizer, "--push_to_hub", "tiny")
    assert hub.files == {"me/tiny": contents(folder)}
    assert hub.calls == ["whoami", "create_repo", "upload_folder"]
    assert b'model="me/tiny"' in hub.files["me/tiny"]["README.md"]
    assert capsys.readouterr().out == "https://huggingface.co/me/tiny\n"


@pytest.mark.parametrize(
    "failure, part",
    [
        (lambda: fail(huggingface_hub.errors.LocalTokenNotFoundError("no token")), "hf auth login"),
        (lambda: fail(ConnectionError("no route to host\nand more")), "does not answer (ConnectionError: no route"),
        (lambda: time.sleep(60), "no answer within 0.2 s"),
    ],
)
def test_an_unusable_hub_is_reported_before_anything_is_written(monkeypatch, tmp_path, tokenizer, hub, failure, part):
    save(tmp_path, tokenizer)
    hub.fails = {"whoami": failure}
    assert part in error_of(monkeypatch, tmp_path, tokenizer, "--push_to_hub", "me/tiny")
    assert not (tmp_path / "out").exists()


def test_a_refused_token_is_reported(monkeypatch, tmp_path, tokenizer, hub):
    save(tmp_path, tokenizer)
    error = ConnectionError("401 Client Error")
    error.response = types.SimpleNamespace(status_code=401)
    hub.fails = {"whoami": lambda: fail(error)}
    assert "does not accept the token" in error_of(monkeypatch, tmp_path, tokenizer, "--push_to_hub", "me/tiny")


def test_an_impossible_name_and_an_offline_hub_are_refused(monkeypatch, tmp_path, tokenizer, hub):
    save(tmp_path, tokenizer)
    assert "a/b/c" in error_of(monkeypatch, tmp_path, tokenizer, "--push_to_hub", "a/b/c")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE" in error_of(monkeypatch, tmp_path, tokenizer, "--push_to_hub", "me/tiny")
    assert not hub.calls and not (tmp_path / "out").exists()


def test_without_a_network_the_shell_shows_one_line(tmp_path, tokenizer):
    save(tmp_path, tokenizer)
    nowhere = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_TOKEN": "hf_none", "HF_HUB_OFFLINE": "0"}
    flags = ["model.pth", "out", "--tokenizer_path", tokenizer.path, "--push_to_hub", "me/tiny"]
    done = run(tmp_path, "tools/export_to_hf", *flags, status=2, environment=nowhere)
    said, error = done.stderr.splitlines()
    assert said.startswith("model: ") and error.startswith("error: --push_to_hub: the hub does not answer (")
    assert done.stdout == "" and not (tmp_path / "out").exists()


@pytest.mark.parametrize("call", ["create_repo", "upload_folder"])
@pytest.mark.parametrize("failure", [lambda: fail(ConnectionError("cut")), lambda: time.sleep(60)])
def test_after_a_failed_upload_the_folder_is_complete(monkeypatch, tmp_path, tokenizer, hub, call, failure):
    save(tmp_path, tokenizer)
    hub.fails = {call: failure}
    monkeypatch.setattr(export_to_hf, "SLOWEST_UPLOAD", 1e9)
    message = error_of(monkeypatch, tmp_path, tokenizer, "--push_to_hub", "me/tiny", status=1)
    assert "the upload failed" in message and "hf upload" in message
    assert set(contents(tmp_path / "out")) == export_to_hf.NAMES


def test_the_default_model_can_be_exported(monkeypatch, tmp_path, tokenizer):
    save(tmp_path, tokenizer)
    default, _ = load_model(tmp_path / "model.pth")
    assert default.config.arch == type(default.config)(vocab_size=1).arch
    assert export(monkeypatch, tmp_path, tokenizer).is_dir()
