"""Merging: the weights are the formula's; models that do not fit are refused."""

import merge_models
import pytest
import torch
from tiny import make_model

from common.errors import UserError
from common.weights_files import load_model, save_model


@pytest.fixture
def merge(tmp_path, monkeypatch):
    """Return a function that merges models, as from a shell, and returns the weights of the result."""
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate("abc"):  # dropout, as tuning may change it, is no part of the shape
        save_model(f"{name}.pth", make_model(seed=seed, dropout=0.1 * seed), "of the tokenizer")
    save_model("wide.pth", make_model(hidden_size=32), "of the tokenizer")
    save_model("foreign.pth", make_model(), "of another tokenizer")

    def run(*words):
        monkeypatch.setattr("sys.argv", ["merge_models.py", *map(str, words)])
        merge_models.main()
        return load_model("merged.pth")[0].state_dict()

    return run


def assert_weights(merged, formula):
    weights = [make_model(seed=seed).state_dict() for seed in range(3)]
    for name, tensor in merged.items():
        torch.testing.assert_close(tensor, formula(*(state[name] for state in weights)))


def test_the_average_of_two_models(merge):
    assert_weights(merge("a.pth", "b.pth"), lambda a, b, c: (a + b) / 2)
    assert_weights(merge("a.pth", "b.pth", "--weight", 1), lambda a, b, c: b)


def test_what_a_model_has_learned_is_added_to_another(merge):
    assert_weights(merge("a.pth", "b.pth", "--minus", "c.pth", "--weight", -0.3), lambda a, b, c: a - 0.3 * (b - c))


@pytest.mark.parametrize(("other", "reason"), [("wide.pth", "different shapes"), ("foreign.pth", "different tokenize")])
def test_models_that_do_not_fit_are_refused(merge, tmp_path, other, reason):
    with pytest.raises(UserError, match=reason):
        merge("a.pth", other)
    with pytest.raises(UserError, match=reason):
        merge("a.pth", "b.pth", "--minus", other)
    with pytest.raises(UserError, match="would be overwritten"):
        merge("a.pth", "b.pth", "--output", "b.pth")
    for weight in ("nan", "inf"):
        with pytest.raises(UserError, match="--weight must be a finite number"):
            merge("a.pth", "b.pth", "--weight", weight)
    assert not (tmp_path / "merged.pth").exists()


def test_a_model_of_a_run_is_not_replaced(merge, tmp_path):
    (tmp_path / "run").mkdir()
    for name in ("best_model.pth", "model-12.pth", "summary.json"):
        (tmp_path / "run" / name).write_text("mine")
        merge("a.pth", "b.pth", "--output", "merged.pth")
        merge_into = lambda name=name: merge("a.pth", "b.pth", "--output", f"run/{name}")
        (tmp_path / "run/args.json").write_text("{}")
        with pytest.raises(UserError, match=f"{name} is a file of a run"):
            merge_into()
        assert (tmp_path / "run" / name).read_text() == "mine"
    (tmp_path / "run/args.json").unlink()
    merge("a.pth", "b.pth", "--output", "run/best_model.pth")  # now it is any folder
