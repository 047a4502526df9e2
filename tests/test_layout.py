"""The layout: which files are at the top level, and the direction of imports."""

import ast

import pytest
from programs import ROOT, SOURCES

import data
import model

PROGRAMS = {
    "train_bpe_tokenizer_hf", "train_tinystories_model", "generate_tinystories_text", "train_tinystories_chat_model",
    "chat_with_tinystories_model",
}  # fmt: skip
BELOW = {  # which of our modules each part may import, itself included
    "common": {"common", "model"},
    "corpus": {"corpus", "common"},
    "data": {"corpus", "common"},
    "model": set(),
    "training": {"training", "data", "model", "corpus", "common"},
    "generation": {"generation", "data", "model", "corpus", "common"},
}
OURS = BELOW.keys() | PROGRAMS | {"tools", "formats", "grading", "scoring", "pages", "inside", "gpu", "rewards"}


def imported(path):
    """Yield the top-level name of each module that a file imports, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module.split(".")[0]


def test_the_top_level_has_the_five_programs_and_their_two_shared_modules():
    assert {path.stem for path in ROOT.glob("*.py")} == PROGRAMS | {"model", "data"}


@pytest.mark.parametrize("part", BELOW)
def test_imports_go_one_way(part):
    files = [path for path in SOURCES if path.relative_to(ROOT).parts[0].removesuffix(".py") == part]
    assert files
    for path in files:
        assert OURS.intersection(imported(path)) <= BELOW[part], path


def test_no_test_file_imports_another():
    for path in ROOT.glob("tests/*.py"):
        assert not [name for name in imported(path) if name.startswith("test_")], path


def test_data_and_model_ignore_the_same_target():
    assert data.IGNORED == model.IGNORED
