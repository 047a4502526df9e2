"""Model files: they contain all that the next steps need; other or damaged files are refused and run no code."""

import pickle
from argparse import Namespace

import numpy as np
import pytest
import torch
from hostile import Planted
from refusals import one_line
from tiny_runs import CONTEXT, VOCAB, files, make_model, train_in

from common.errors import UserError
from common.files import written_atomically
from common.weights_files import load_model, save_model
from model import ModelConfig


def test_a_model_file_contains_all_that_the_next_steps_need(tmp_path):
    model = make_model(arch="gpt2").bfloat16()
    save_model(tmp_path / "m.pth", model, "a fingerprint", step=7, val_loss=1.5, run_id="an id")
    content = torch.load(tmp_path / "m.pth", weights_only=True)
    state = content.pop("model")
    assert content == {
        "format": "tinystories-model", "version": 1, "config": model.config.as_dict(), "step": 7, "val_loss": 1.5,
        "tokenizer_fingerprint": "a fingerprint", "run_id": "an id",
    }  # fmt: skip
    assert all(tensor.dtype == torch.float32 for tensor in state.values())
    assert sum(tensor.numel() for tensor in state.values()) == model.num_parameters()[1]  # tied weights are saved once


@pytest.mark.parametrize("changes", [{}, {"arch": "gpt2", "window_size": 4}, {"tie_embeddings": False}])
def test_a_loaded_model_computes_the_same(tmp_path, changes):
    model, ids = make_model(**changes).eval(), torch.arange(CONTEXT)[None] % VOCAB
    save_model(tmp_path / "m.pth", model, "a fingerprint")
    loaded, content = load_model(
        tmp_path / "m.pth", Namespace(fingerprint="a fingerprint", vocab_size=VOCAB), dropout=0.3
    )
    assert not loaded.training
    assert torch.equal(loaded(ids), model(ids))
    assert loaded.config == ModelConfig(**model.config.as_dict() | {"dropout": 0.3})
    assert content["tokenizer_fingerprint"] == "a fingerprint"


def test_a_model_of_another_tokenizer_is_refused(tmp_path):
    save_model(tmp_path / "m.pth", make_model(), "a fingerprint")
    with pytest.raises(UserError, match="not trained with this tokenizer") as refusal:
        load_model(tmp_path / "m.pth", Namespace(fingerprint="another", vocab_size=5000))
    assert str(tmp_path / "m.pth") in one_line(refusal) and "--tokenizer_path" in one_line(refusal)


OTHER_FILES = ["garbage", "text", "list", "tokenizer", "other version", "other shape"]


@pytest.mark.parametrize("part", [0, 1, 100, 0.5, 0.99, *OTHER_FILES])
def test_other_and_damaged_files_are_refused_by_name(tmp_path, part, recwarn):
    path = tmp_path / "m.pth"
    save_model(path, make_model(), "a fingerprint")
    whole, content = path.read_bytes(), torch.load(path, weights_only=True)
    if part == "garbage":
        path.write_bytes(np.random.default_rng(0).bytes(5000))
    elif part == "text":
        path.write_text("Once upon a time")
    elif part == "list":
        torch.save([1, 2], path)
    elif part == "tokenizer":
        path.write_bytes(pickle.dumps({"format": "tinystories-bpe-tokenizer", "version": 1}, protocol=4))
    elif part == "other version":
        torch.save(content | {"version": 99}, path)
    elif part == "other shape":
        torch.save(content | {"config": content["config"] | {"hidden_size": 32}}, path)
    else:
        path.write_bytes(whole[: round(part * len(whole)) if part < 1 else part])
    with pytest.raises(UserError) as refusal:
        load_model(path)
    assert str(path) in one_line(refusal)
    assert not recwarn.list  # no warnings from torch in addition to the one line


def test_foreign_weights_are_refused_and_the_import_tool_is_named(tmp_path):
    folder = tmp_path / "theirs"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"anything")
    (folder / "config.json").write_text("{}")
    state = make_model().state_dict()
    torch.save(state, tmp_path / "state_dict.pth")
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "checkpoint.pth")
    for name in ("theirs", "theirs/model.safetensors", "state_dict.pth", "checkpoint.pth"):
        with pytest.raises(UserError, match="tools/import_model.py") as refusal:
            load_model(tmp_path / name)
        assert str(tmp_path / name) in one_line(refusal) and "json" in one_line(refusal)
        assert (f"import_model.py {folder} OUT_DIR" in one_line(refusal)) == name.startswith("theirs")


def test_a_missing_model_file_is_named(tmp_path):
    with pytest.raises(UserError, match="missing.pth") as refusal:
        load_model(tmp_path / "missing.pth")
    assert one_line(refusal)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("save", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))])
def test_a_file_with_code_is_refused_and_its_code_not_run(tmp_path, save):
    path, trace = tmp_path / "m.pth", tmp_path / "trace"
    save({"format": "tinystories-model", "version": 1, "model": Planted(trace)}, path)
    with pytest.raises(UserError) as refusal:
        load_model(path)
    assert str(path) in one_line(refusal)
    with pytest.raises(UserError):
        train_in(tmp_path / "run", None, {"resume_from_checkpoint": str(path)})
    assert not trace.exists()


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "file"
    with written_atomically(path) as file:
        file.write(b"old")
        assert not path.exists()
    with pytest.raises(RuntimeError), written_atomically(path) as file:
        file.write(b"new, but")
        raise RuntimeError
    assert files(tmp_path) == {path: b"old"}
    with written_atomically(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert files(tmp_path) == {path: b"new"}
