"""Help for students: --help, and the documents, whose commands, flags, files and messages must exist."""

import ast
import importlib
import re
import shlex
import shutil

import flags_page
import pytest
from programs import ROOT, SOURCES, TINY

from common.errors import UserError
from corpus.dialogue_rows import read_dialogues
from corpus.sources import file_split
from corpus.stories import read_stories
from generation.prompt_files import read_prompts

PROGRAMS = {
    "train_bpe_tokenizer_hf": "dataset sample vocab_size output",
    "train_tinystories_model": "dataset num_layers hidden_size num_heads batch_size epochs lr amp output_dir pilot_run",
    "generate_tinystories_text": "prompt model_path max_new_tokens temperature top_k top_p",
    "train_tinystories_chat_model": "pretrained_model_path dataset batch_size epochs lr amp output_dir pilot_run",
    "chat_with_tinystories_model": "once model_path max_new_tokens temperature",
}
SCREEN = 50  # lines, at 120 columns
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/*.md"))]
WITH_COMMANDS = ["README.md", "CONTRIBUTING.md"]
GUIDES = "labs gcp faq data running projects models import grading skills inside rewards"
WITH_COMMANDS += [f"docs/{name}.md" for name in GUIDES.split()]
SCRIPTS = "make_pirate make_patch make_lists make_requests"
WITHOUT_FLAGS = ("tools/course", *(f"sample_data/{name}" for name in SCRIPTS.split()))


def help_of(program, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr("sys.argv", [f"{program}.py"])
    with pytest.raises(SystemExit):
        importlib.import_module(program).parse_args(["--help"])
    return capsys.readouterr().out


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_fits_two_screens(program, monkeypatch, capsys):
    lines = help_of(program, monkeypatch, capsys).splitlines()
    assert len(lines) <= 2 * SCREEN and max(map(len, lines)) <= 120


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_lists_the_handouts_flags_first_and_explains_every_flag(program, monkeypatch, capsys):
    _, first, *groups = re.split(r"^(?=\S.*:$)", help_of(program, monkeypatch, capsys), flags=re.MULTILINE)
    assert {f"--{name}" for name in PROGRAMS[program].split()} <= {*re.findall(r"^  (--\w+)", first, re.MULTILINE)}
    assert groups
    for part in (first, *groups):
        for flag in re.split(r"^  (?=-)", part, flags=re.MULTILINE)[1:]:
            assert re.search(r"\s{2,}\w", flag), flag


def test_the_notebook_runs_all_five_steps(tmp_path, monkeypatch):
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    for name in ("ipykernel", "matplotlib"):
        pytest.importorskip(name)
    for path in (*SOURCES, *ROOT.glob("sample_data/*.py"), ROOT / "sample_data/plots.txt"):
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    notebook = nbformat.read(ROOT / "docs/course.ipynb", as_version=4)
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in notebook.cells)
    (parameters,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    kept = {*re.findall(r"^(\w+) = ", parameters.source, re.MULTILINE)}
    shape = " ".join(TINY[: TINY.index("--epochs")])
    changed = {"REAL_RUN": False, "REPOSITORY": "", "RUNS": "runs", "SHAPE": shape}
    changed["MORE"] = "--epochs 1 --max_train_samples 30 --max_eval_samples 5 --device cpu"
    assert kept == {*changed}
    parameters.source = "\n".join(f"{name} = {value!r}" for name, value in changed.items())
    nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    said = "\n".join(output.text for cell in notebook.cells for output in cell.get("outputs", []) if "text" in output)
    assert "error" not in said.lower(), said
    assert "Once upon a time, there was a" in said and said.count("best:") == 2
    for name in ("curves.png", "tinystories_model/summary.json", "tinystories_chat_model/best_model.pth"):
        assert (tmp_path / "runs" / name).is_file()
    reply = next(cell for cell in notebook.cells if "--once" in cell.source and cell.cell_type == "code").outputs
    assert any(output.get("name") == "stdout" and output.text.strip() for output in reply)


def commands_in(text):
    """Return (program, its flags) of each indented line that runs a program; lines that end in \\ are joined."""
    lines = re.findall(r"^ +.*\bpython (\S+)\.py ?(.*)$", text.replace("\\\n", " "), re.MULTILINE)
    return [(program, re.split(r"(?:^| )&?[<>|;#]|'$", flags)[0]) for program, flags in lines]


@pytest.mark.parametrize("page", WITH_COMMANDS)
def test_each_command_on_a_page_has_flags_of_its_program(page, monkeypatch):
    commands = commands_in((ROOT / page).read_text(encoding="utf-8"))
    assert commands or page == "docs/faq.md"
    monkeypatch.syspath_prepend(ROOT / "sample_data")
    for program, flags in commands:
        if program in WITHOUT_FLAGS:
            continue
        module = importlib.import_module(program.rpartition("/")[2])
        monkeypatch.setattr("sys.argv", [program, *shlex.split(flags)])
        try:
            module.parse_args()
        except UserError as error:  # the tool looks for files that earlier commands of the page write
            assert "no file" in str(error)


def patterns_in_source():
    """Yield a regular expression for each text in the programs' source with at least 12 fixed characters."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            parts = node.values if isinstance(node, ast.JoinedStr) else [node]
            texts = [part.value if is_text(part) else "{}" for part in parts]
            if any(map(is_text, parts)) and len("".join(texts)) >= 12:
                fixed = [re.escape(text) for text in re.split(r"\{[^{}]*\}", "".join(texts))]  # also for str.format
                yield ".*".join(fixed)


def is_text(node):
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def test_the_programs_print_each_message_of_the_faq():
    page = (ROOT / "docs/faq.md").read_text(encoding="utf-8")
    answers = page.split("\n### ")[1:]
    assert [int(answer.split(".")[0]) for answer in answers] == [*range(1, 21)]
    patterns = [re.compile(pattern) for pattern in patterns_in_source()]
    for answer in answers:
        messages = re.findall(r"^    (.*)$", answer, re.MULTILINE)
        assert messages, answer
        for message in messages:
            text = re.sub(r"^(error: |device: |[\d-]{10} [\d:]{8} (?:step \d+/\d+ )?)", "", message)
            if text.startswith("unrecognized arguments: "):  # the words of argparse, followed by ours
                assert text.endswith("; --help lists the flags")
            else:
                assert any(pattern.fullmatch(text) for pattern in patterns), f"no program prints: {text}"


def test_each_file_named_in_a_document_exists():
    """A name with a folder must exist there; a bare name must be one of the source files."""
    names = {path.name for path in SOURCES} | {path.name for path in ROOT.glob("tests/*.py")}
    names |= {path.name for path in ROOT.glob("sample_data/*.py")}
    for page in DOCUMENTS:
        for name in re.findall(r"`([\w/]+\.py)`", page.read_text(encoding="utf-8")):
            there = (ROOT / name).is_file() if "/" in name else name in names
            assert there, f"{page.name}: {name}"


def anchors_in(page):
    """Return the anchors that GitHub makes from a page's headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_each_link_leads_to_an_existing_file_and_heading(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if link.startswith("https://"):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors_in(target), link


def test_the_list_of_documents_is_complete():
    listed = (ROOT / "docs/README.md").read_text(encoding="utf-8")
    for path in (*ROOT.glob("docs/*.md"), *ROOT.glob("docs/*.ipynb")):
        assert path.name == "README.md" or f"]({path.name})" in listed, path.name


def test_the_page_of_flags_is_up_to_date():
    page = (ROOT / "docs/flags.md").read_text(encoding="utf-8")
    assert page == flags_page.page(), "a flag has changed: run  python tools/flags_page.py > docs/flags.md"


def blocks_of_data():
    """Return (kind of file, content type, content) for each block of docs/data.md."""
    page = (ROOT / "docs/data.md").read_text(encoding="utf-8")
    return re.findall(r"^```(\w+) (stories|dialogues|prompts)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(("kind", "held", "content"), blocks_of_data())
def test_each_example_on_the_page_about_data_can_be_read(tmp_path, kind, held, content):
    path = tmp_path / f"example.{kind}"
    path.write_text(content, encoding="utf-8")
    if held == "prompts":
        texts = read_prompts(path)
    else:
        read = {"stories": read_stories, "dialogues": read_dialogues}[held]
        texts = list(read(file_split(path)))
    rows = 3 if kind == "txt" else 2
    assert len(texts) == rows
