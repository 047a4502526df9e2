"""A run's curves: reading the metrics, drawing them, and the command line of plot_run.py."""

import json
import math
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import plot_run
import pytest

from common.errors import UserError
from common.program import run_program
from training import curves

Figure = pytest.importorskip("matplotlib.figure").Figure


def rows_of_a_run(steps=100, resumed_at=None, shift=0.0):
    """Return rows like those of a run: training every 5 steps, an evaluation every 20."""
    loss = lambda step: 2 + 7 * math.exp(-step / 30) + shift
    rows = [{"event": "run", "step": 0, "run_id": "3fa2"}]
    for step in range(5, steps + 1, 5):
        common = {"step": step, "epoch": step / 50, "tokens": 500 * step, "seconds": step / 4}
        values = {"train_loss": loss(step), "perplexity": math.exp(loss(step)), "lr": 1e-3 / step}
        rows.append({"event": "train"} | common | values | {"grad_norm": 1.0, "tokens_per_second": 2000.0})
        if step % 20 == 0:
            values = {"val_loss": loss(step) + 0.1, "perplexity": math.exp(loss(step) + 0.1)}
            rows.append({"event": "eval"} | common | values | {"bits_per_byte": 1.0, "accuracy": 0.4})
        if step == resumed_at:
            rows.append({"event": "resume"} | common)
    return rows


def write_run(folder, rows):
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def plot(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["plot_run.py", *map(str, words)])
    run_program(plot_run.main)


def drawn(runs, panel=0):
    """Draw one panel, and return (axes, {label: line})."""
    axes = Figure().subplots()
    return axes, curves.draw_panel(axes, curves.PANELS[panel], runs, len(runs) == 1)


def test_a_run_with_rewards_shows_them_instead_of_the_perplexity(tmp_path):
    plain = rows_of_a_run()
    rewarded = [row | {"reward": 0.5} if row["event"] in ("train", "eval") else row for row in plain]
    for name, runs, title in (
        ("rewarded", {"one": rewarded}, "Reward"),
        ("plain", {"one": plain}, "Perplexity"),
        ("mixed", {"one": plain, "two": rewarded}, "Perplexity"),
    ):
        curves.draw(runs, tmp_path / f"{name}.svg")
        texts = (tmp_path / f"{name}.svg").read_text()
        assert f"<!-- {title} -->" in texts and ("<!-- Reward -->" in texts) == (title == "Reward")


def test_truncated_lines_are_skipped_and_counted(tmp_path, capsys):
    rows = rows_of_a_run()
    run = write_run(tmp_path / "run", rows)
    with open(run / "metrics.jsonl", "ab") as file:
        file.write(b'[1]\n\xff\xfe\n{"event": "train", "st')
    assert curves.read_metrics(run) == curves.read_metrics(run / "metrics.jsonl") == rows
    assert "metrics.jsonl: unreadable lines skipped: 3" in capsys.readouterr().err


@pytest.mark.parametrize("content", [None, "", "no JSON\n"])
def test_a_run_without_rows_is_refused_in_one_line(tmp_path, content):
    if content is not None:
        (tmp_path / "metrics.jsonl").write_text(content)
    with pytest.raises(UserError, match="name a run's folder, or the metrics.jsonl in it"):
        curves.read_metrics(tmp_path)


def test_the_curves_show_the_rows(tmp_path):
    rows = rows_of_a_run()
    axes, handles = drawn({"run": rows})
    for event, field, label in (("train", "train_loss", "training"), ("eval", "val_loss", "validation")):
        written = [(row["step"], row[field]) for row in rows if row["event"] == event]
        assert list(zip(*handles[label].get_data(), strict=True)) == written
    assert len(axes.lines) == 2
    assert (axes.get_title(loc="left"), axes.get_xlabel(), axes.get_ylabel()) == ("Loss", "steps", "nats per token")
    for panel, field in ((2, "lr"), (3, "tokens_per_second")):
        axes, handles = drawn({"run": rows}, panel)
        assert list(handles["training"].get_ydata()) == [row[field] for row in rows if row["event"] == "train"]


def test_values_that_are_not_numbers_are_gaps_and_a_point_between_gaps_is_marked():
    values = [3.0, None, 2.0, math.nan, math.inf, "2", True, 10**400, 1.5, 1.4]
    rows = [{"event": "train", "step": step, "train_loss": value} for step, value in enumerate(values)]
    rows += [{"event": "train", "step": None, "train_loss": 1.0}, {"event": "train"}]
    steps, found = curves.curve(rows, "train", "train_loss")
    assert steps == list(range(10))
    assert [value for value in found if not math.isnan(value)] == [3.0, 2.0, 1.5, 1.4]
    assert curves.lonely(found) == [0, 2]
    _, handles = drawn({"run": rows})
    assert handles["training"].get_markevery() == [0, 2]
    assert curves.lonely([1.0]) == [0]


def test_each_run_has_its_own_colour_pale_for_training_and_strong_for_validation():
    axes, handles = drawn({"small": rows_of_a_run(), "large": rows_of_a_run(shift=-0.5)})
    assert list(handles) == ["small, best 2.3497", "large, best 1.8497"]
    for handle, pair in zip(handles.values(), (axes.lines[0:3], axes.lines[3:6]), strict=True):
        training, _, validation = pair
        assert training.get_color() == validation.get_color() == handle.get_color()
        assert training.get_alpha() < 0.5 and not validation.get_alpha()
        assert training.get_linewidth() < validation.get_linewidth()
    looks = [(line.get_color(), line.get_linestyle()) for line in drawn({str(i): [] for i in range(28)})[1].values()]
    assert len(set(looks)) == 28


def test_a_resumed_run_has_a_line_where_it_was_resumed():
    for panel in range(4):
        axes, handles = drawn({"run": rows_of_a_run(resumed_at=40)}, panel)
        assert set(handles[curves.RESUMED].get_xdata()) == {40}
        assert curves.RESUMED not in drawn({"run": rows_of_a_run()}, panel)[1]


def test_perplexity_has_a_logarithmic_axis_if_it_spans_a_decade():
    assert drawn({"run": rows_of_a_run()}, 1)[0].get_yscale() == "log"
    late = [row for row in rows_of_a_run() if row["step"] >= 60]
    assert drawn({"run": late}, 1)[0].get_yscale() == "linear"
    assert drawn({"run": rows_of_a_run()}, 0)[0].get_yscale() == "linear"


@pytest.mark.parametrize("steps", [20, 5, 0])
def test_each_kind_of_picture_can_be_drawn_even_of_a_short_run(monkeypatch, tmp_path, capsys, steps):
    run = write_run(tmp_path / "a_$_王_run", rows_of_a_run(steps))
    other = write_run(tmp_path / "_other", rows_of_a_run(steps, resumed_at=20))
    for runs in ([run], [run, other]):
        for suffix, magic in ((".png", b"\x89PNG"), (".pdf", b"%PDF"), (".svg", b"<?xml")):
            plot(monkeypatch, *runs, "--output", tmp_path / f"curves{suffix}")
            assert (tmp_path / f"curves{suffix}").read_bytes().startswith(magic)
    ElementTree.parse(tmp_path / "curves.svg")
    said = capsys.readouterr().err
    assert said.count("wrote ") == 6 and said.count("nothing" if steps else "to draw yet") == (0 if steps else 9)
    assert {path.name for path in tmp_path.iterdir()} == {
        run.name,
        other.name,
        *(f"curves.{s}" for s in ("png", "pdf", "svg")),
    }


def test_runs_in_folders_of_the_same_name_get_different_labels(monkeypatch, tmp_path):
    names = lambda *runs: plot_run.names_of(runs)
    assert names("runs/tinystories_model") == ["tinystories_model"]
    assert names("a/x/model/", "b/x/model/metrics.jsonl", "c/other") == [
        str(Path("a/x/model")), str(Path("b/x/model")), "other",
    ]  # fmt: skip
    assert names("model", "a/model")[1] == str(Path("a/model"))
    monkeypatch.chdir(tmp_path)
    assert names(".") == [tmp_path.name]
    with pytest.raises(UserError, match="model is given twice"):
        names("model", "a/../model")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["nowhere"], "nowhere"),
        (["run", "run"], "given twice"),
        (["run", "--output", "curves.bmp"], "curves.bmp: the name of a picture must end in .png, .svg, .pdf"),
        (["run", "--output", "nowhere/curves.png"], "nowhere"),
        ([], "RUN"),
    ],
)
def test_bad_input_gets_one_line_and_no_file_is_written(monkeypatch, capsys, tmp_path, words, named):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "run", rows_of_a_run())
    with pytest.raises(SystemExit) as ended:
        plot(monkeypatch, *words)
    said = capsys.readouterr().err.splitlines()
    assert ended.value.code and len(said) == 1 and named in said[0]
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_without_matplotlib_the_message_says_how_to_install_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UserError, match=r'pip install -e "\.\[report\]"'):
        curves.draw({"run": rows_of_a_run()}, tmp_path / "curves.png")
    assert not list(tmp_path.iterdir())
