"""The assignment: without its body no part works, with the solution each does, and a student's copy has no solution."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import check_parts
import make_assignment
import pytest
from make_assignment import course_files, files_in_our_folders, functions_in, points_of, tasks_in
from programs import ROOT, main
from refusals import error_of

FILES = course_files(ROOT)
TASKS = [task for name in FILES for task in tasks_in(ROOT, name)]
PARTS = points_of(TASKS)


def make(folder, *flags):
    """Make an assignment in a folder; return the copy for students and the solution."""
    main(make_assignment, folder / "assignment", *flags)
    return folder / "assignment", folder / "assignment.solution"


@pytest.fixture(scope="module")
def assignment(tmp_path_factory):
    """Return an assignment of all parts, and its solution."""
    return make(tmp_path_factory.mktemp("all parts"))


def check(copy, *parts):
    """Run the check of an assignment; return its exit status and {part or "total": (points, words)}."""
    command = [sys.executable, "tools/check_parts.py", *parts]
    done = subprocess.run(command, cwd=copy, capture_output=True, encoding="utf-8", timeout=300)
    rows = {}
    for line in done.stdout.splitlines():
        part, points, _, _, *words = line.split()
        rows[part] = (int(points), " ".join(words))
    return done.returncode, rows


def place_of(function, text):
    """Return the lines of a function in a text, as a slice."""
    node = functions_in(ast.parse(text))[function]
    return slice(node.lineno - 1, node.end_lineno)


def put_in(part, copy, solution):
    """Replace the functions of a part by those of the solution."""
    for task in TASKS:
        if task.part == part:
            mine = (copy / task.file).read_text(encoding="utf-8")
            theirs = (solution / task.file).read_text(encoding="utf-8")
            lines = mine.split("\n")
            lines[place_of(task.function, mine)] = theirs.split("\n")[place_of(task.function, theirs)]
            (copy / task.file).write_text("\n".join(lines), encoding="utf-8")


def test_each_part_is_marked_and_has_tests():
    parts = {"attention", "rotary", "cross_entropy", "sampling", "bpe_merge", "schedule", "reply_mask"}
    assert parts == {*PARTS}
    assert {path.stem for path in ROOT.glob("tests/test_part_*.py")} == {f"test_part_{part}" for part in parts}


# What works -----------------------------------------------------------------------------------------------------------


def test_without_its_body_no_part_works(assignment):
    status, rows = check(assignment[0])
    assert status == 1 and rows.pop("total") == (0, "")
    assert rows.keys() == PARTS.keys()
    for part, (points, words) in rows.items():
        assert points == 0 and words.startswith(f"NotImplementedError: {part}: write the body of ")


@pytest.mark.parametrize(
    ("program", "error"),
    [
        ("docs/bpe_from_scratch.py", "error: bpe_merge: write the body of count_pairs"),
        ("generate_tinystories_text.py", "error: rotary: write the body of rotary_table"),
    ],
)
def test_a_program_that_needs_a_missing_part_stops_with_its_name(assignment, program, error):
    golden = ROOT / "tests/golden"
    command = [sys.executable, program]
    if program.startswith("generate"):
        command += ["--model_path", golden / "story/best_model.pth"]
        command += ["--tokenizer_path", golden / "bpe_tokenizer_tinystories.pkl"]
    done = subprocess.run(command, cwd=assignment[0], capture_output=True, encoding="utf-8", timeout=120)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (1, error)


@pytest.mark.parametrize("part", PARTS)
def test_with_its_solution_a_part_works_although_all_others_are_missing(assignment, part):
    copy, solution = assignment
    before = {task.file: (copy / task.file).read_bytes() for task in TASKS}
    put_in(part, copy, solution)
    try:
        assert check(copy, part) == (0, {part: (PARTS[part], "works"), "total": (PARTS[part], "")})
    finally:
        for name, content in before.items():
            (copy / name).write_bytes(content)


# What is in the two folders -------------------------------------------------------------------------------------------


def without_marks(name):
    lines = (ROOT / name).read_text(encoding="utf-8").split("\n")
    return "\n".join(line for line in lines if not line.strip().startswith("# assignment: "))


def test_the_solution_has_the_changed_files_as_in_the_course_but_without_marks(assignment):
    _, solution = assignment
    files = {path.relative_to(solution).as_posix() for path in solution.rglob("*") if path.is_file()}
    assert files == {task.file for task in TASKS}
    for name in files:
        assert (solution / name).read_text(encoding="utf-8") == without_marks(name)


def test_a_copy_has_the_whole_course_and_in_place_of_each_body_an_error(assignment):
    copy, _ = assignment
    files = {path.relative_to(copy).as_posix() for path in copy.rglob("*") if path.is_file()}
    added = {"ASSIGNMENT.md", "assignment.json"}
    assert {name for name in files if "__pycache__" not in name} == {*FILES, *added} - {*make_assignment.LEFT_OUT}
    for name in {*FILES} - {task.file for task in TASKS} - {"Makefile", *make_assignment.LEFT_OUT}:
        assert (copy / name).read_bytes() == (ROOT / name).read_bytes(), name
    for task in TASKS:
        text = (copy / task.file).read_text(encoding="utf-8")
        *head, last = text.split("\n")[place_of(task.function, text)]
        assert last.strip() == f'raise NotImplementedError("{task.part}: write the body of {task.function}")'
        original = (ROOT / task.file).read_text(encoding="utf-8").split("\n")
        assert head == original[task.first - 1 - len(head) : task.first - 1]  # the arguments and the docstring
        assert "# assignment" not in text


def test_only_the_parts_that_were_asked_for_are_missing(tmp_path, capsys):
    copy, solution = make(tmp_path, "--parts", "rotary, schedule")
    printed = capsys.readouterr().out
    assert "rotary           10 points  rotary_table, rotate" in printed and "attention" not in printed
    for name in {task.file for task in TASKS}:
        errors = (copy / name).read_text(encoding="utf-8").count("raise NotImplementedError")
        assert errors == {"model.py": 2, "training/optimizer.py": 1}.get(name, 0)
        assert (solution / name).exists() == (errors > 0)
        assert errors or (copy / name).read_text(encoding="utf-8") == without_marks(name)
    assert json.loads((copy / "assignment.json").read_text(encoding="utf-8")) == {"rotary": 10, "schedule": 5}
    page = (copy / "ASSIGNMENT.md").read_text(encoding="utf-8")
    assert "15 points in all" in page
    assert "| schedule | 5 | `learning_rate` | `training/optimizer.py` | Return the learning rate of step 0, 1," in page


def test_without_git_only_the_files_of_the_course_are_copied(tmp_path):
    for name in ("model.py", "README.md", "common/text.py", "submissions/anna.zip", "grades.csv", "best_model.pth"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("", encoding="utf-8")
    assert {*course_files(tmp_path)} == {"model.py", "README.md", "common/text.py"}
    assert {*FILES} <= {*files_in_our_folders(ROOT)}


# What is refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["new", "--parts", "rotary,cooking"], "no part cooking; the parts are "),
        (["full"], "full already exists"),
        (["solved"], "solved.solution already exists"),
        ([ROOT / "assignment"], "is inside the course"),
        ([ROOT], "is inside the course"),
    ],
)
def test_nothing_is_written_if_the_command_cannot_be_right(tmp_path, words, reason):
    for name in ("full", "solved.solution"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "notes.txt").write_text("mine", encoding="utf-8")
    before = sorted(tmp_path.rglob("*"))
    assert reason in error_of(main, make_assignment, *words, folder=tmp_path)
    assert sorted(tmp_path.rglob("*")) == before and not (ROOT / "assignment").exists()


def test_a_part_without_tests_is_refused():
    files = [name for name in FILES if name != "tests/test_part_rotary.py"]
    assert "the part rotary has no tests" in error_of(make_assignment.choose, TASKS, files, None)
    assert "is it an assignment itself?" in error_of(make_assignment.choose, [], files, None)


@pytest.mark.parametrize(
    ("code", "line"),
    [
        ("# assignment: rotary, 5 points\nx = 1", 1),
        ("def f():\n    x = 1\n    # assignment: rotary, 5 points\n    return x", 3),
        ("def f():\n    # assignment: rotary, 5 points\n    '''Return x.'''\n    return x", 2),
        ("def f():\n    # assignment: rotary\n    return x", 2),
    ],
)
def test_a_mark_that_no_function_begins_with_is_refused(tmp_path, code, line):
    (tmp_path / "code.py").write_text(code, encoding="utf-8")
    assert f"code.py, line {line}: " in error_of(tasks_in, tmp_path, "code.py")


# What the check says --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tests", "failure"),
    [
        ("def test_a(): pass", None),
        ("def test_a(): assert 1 + 1 == 3\ndef test_b(): assert 0", "test_a: assert (1 + 1) == 3"),
        ("def test_a(): raise NotImplementedError('x: write the body of f')", "NotImplementedError: x: write the body"),
        ("import nothing_of_this_name", "ModuleNotFoundError: No module named 'nothing_of_this_name'"),
        ("\ndef test_a(: pass", 'test_part_x.py", line 2: SyntaxError: invalid syntax'),
        ("def test_a():\n    while True: pass", "did not end within 2 seconds"),
    ],
)
def test_the_check_gives_the_first_failure_in_one_line(tmp_path, monkeypatch, tests, failure):
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/test_part_x.py").write_text(tests, encoding="utf-8")
    monkeypatch.setattr(check_parts, "ROOT", tmp_path)
    monkeypatch.setattr(check_parts, "SECONDS", 2 if "while" in tests else 60)
    found = check_parts.failure_of(sys.executable, "x")
    assert found == failure or (failure in found and "\n" not in found)


def test_the_check_refuses_what_it_cannot_check(assignment):
    def refusal(folder, *parts):
        command = [sys.executable, Path(folder, "tools/check_parts.py"), *parts]
        done = subprocess.run(command, capture_output=True, encoding="utf-8")
        assert done.returncode == 2 and not done.stdout
        return done.stderr

    assert refusal(assignment[0], "cooking").startswith("error: no part cooking; the parts are ")
    assert "this is the course, not an assignment" in refusal(ROOT)
