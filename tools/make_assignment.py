"""Make an assignment: a copy of the course in which the bodies of some functions are missing, for students to write.

    python tools/make_assignment.py ../assignment                               # all parts
    python tools/make_assignment.py ../assignment --parts attention,sampling

A part is one function or several.  A comment right after the docstring marks each of them; it does nothing else:

    def rotate(x, cos, sin):
        \"\"\"Rotate queries or keys ...\"\"\"
        # assignment: rotary, 5 points
        halves_swapped = ...

The tests that a part must pass are in tests/test_part_rotary.py.  They must not need another part, nor a fixture of
tests/conftest.py.  The copy has all files that git tracks, and ASSIGNMENT.md with the parts; `make check` in it tells
which of them work.  The originals of the changed files are in a folder beside it, here ../assignment.solution.
"""

import argparse
import ast
import json
import re
import shutil
import subprocess
import sys
import tempfile
import tokenize
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common.errors import UserError
from common.flags import FlagParser
from common.program import run_program

ROOT = Path(__file__).resolve().parents[1]
BEGINS = "# assignment:"
MARK = re.compile(r"# assignment: (\w+), (\d+) points?")
LEFT_OUT = (
    "tests/test_make_assignment.py",
    ".github/workflows/ci.yml",
)  # the first needs the marks, the second all parts
# Which files to copy if git does not tell: no data, notes or submissions that somebody keeps beside the course.
FOLDERS = (
    ".ci",
    ".devcontainer",
    ".github",
    "common",
    "corpus",
    "docs",
    "generation",
    "sample_data",
    "tests",
    "tools",
    "training",
)
AT_THE_TOP = ("*.py", "*.md", "*.toml", "*.lock", "*.cff", "LICENSE", "Makefile", ".gitignore", ".gitattributes")
CHECK = """
# Which parts of the assignment work; one of them: `make check ARGS=attention`.
.PHONY: check
check:
	@$(PYTHON) tools/check_parts.py $(ARGS)
"""
PAGE = """# The assignment

Write the bodies of these functions, {points} points in all. For now, each of them only raises `NotImplementedError`:
replace that line. Keep the names and the arguments; the docstring says what goes in and what comes out.

| part | points | write | in | what it does |
|---|--:|---|---|---|
{rows}

A part has its points when all of its tests pass. Until a part is written, the programs that use it stop with its name.

    make check                                       # which parts work, and your points
    make check ARGS=PART                             # only this part

Without `make` (Windows): `python tools/check_parts.py`, or `python tools/check_parts.py PART`. The tests of a part are
in `tests/test_part_PART.py`. Each part works without the others: begin with any.
"""


@dataclass
class Task:
    """A function whose body students write.  first, last: the lines that are missing in their copy, from 1 on."""

    part: str
    points: int
    file: str  # relative to the repository
    function: str
    purpose: str  # the first line of its docstring; for a method, that of its class
    first: int
    last: int


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = FlagParser(__doc__)
    parser.usage = "python tools/make_assignment.py OUT [flags]"
    parser.add_argument("out", metavar="OUT", help="the folder to write: new or empty, outside the repository")
    parser.add_argument("--parts", metavar="PART,PART", help="the parts that students write (default: all)")
    return parser.parse_args(argv)


def main() -> None:
    args = parse_args()
    out = Path(args.out).expanduser().resolve()
    solution = out.with_name(f"{out.name}.solution")
    check_folders(out, solution)
    files = course_files(ROOT)
    tasks = [task for name in files for task in tasks_in(ROOT, name)]
    chosen = choose(tasks, files, args.parts)
    write(out, solution, files, tasks, chosen)
    for part, points in points_of(chosen).items():
        functions = ", ".join(task.function for task in chosen if task.part == part)
        print(f"{part:15} {points:3} points  {functions}")
    print(f"{'total':15} {sum(points_of(chosen).values()):3} points")
    print(f"for students: {out}, with ASSIGNMENT.md and `make check`")
    print(f"for you:      {solution}; copy its files over those of the assignment, and all parts work")


def check_folders(*folders: Path) -> None:
    """Raise UserError for a folder that has files, or that is inside the repository."""
    for folder in folders:
        if folder.is_relative_to(ROOT):
            raise UserError(f"{folder} is inside the course itself; choose a folder outside it")
        if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
            raise UserError(f"{folder} already exists; choose a new folder, or remove this one first")


# The course -----------------------------------------------------------------------------------------------------------


def course_files(root: Path) -> list[str]:
    """Return the files of the course, relative to root: those that git tracks, or those in our folders without git."""
    try:
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True).stdout
    except FileNotFoundError:  # git is not installed
        listed = b""
    names = [name for name in listed.decode().split("\0") if name and (root / name).is_file()]
    return names or files_in_our_folders(root)


def files_in_our_folders(root: Path) -> list[str]:
    """Return the files of the course, relative to root, where it is not a clone."""
    inside = [path for folder in FOLDERS for path in sorted((root / folder).rglob("*"))]
    at_the_top = [path for pattern in AT_THE_TOP for path in sorted(root.glob(pattern))]
    files = [path for path in inside + at_the_top if path.is_file() and "__pycache__" not in path.parts]
    return [path.relative_to(root).as_posix() for path in files]


def tasks_in(root: Path, name: str) -> list[Task]:
    """Return the marked functions of a file.  Raises UserError for a mark of another form or in another place."""
    path = root / name
    if path.suffix != ".py" or BEGINS not in path.read_text(encoding="utf-8"):
        return []
    functions = functions_in(ast.parse(path.read_bytes()))
    tasks = []
    with tokenize.open(path) as file:
        comments = [token for token in tokenize.generate_tokens(file.readline) if token.type == tokenize.COMMENT]
    for comment in comments:
        if not comment.string.startswith(BEGINS):
            continue
        line = comment.start[0]
        mark = MARK.fullmatch(comment.string)
        if not mark:
            raise UserError(f"{name}, line {line}: write the mark as `# assignment: rotary, 5 points`")
        found = [(function, node) for function, node in functions.items() if is_first_in_body(line, node)]
        if not found:
            raise UserError(f"{name}, line {line}: move this mark right after the docstring of a function")
        ((function, node),) = found
        described = functions.get(function.rpartition(".")[0], node)  # the class of a method
        purpose = (ast.get_docstring(described) or "").partition("\n")[0]
        tasks.append(Task(mark[1], int(mark[2]), name, function, purpose, line, node.end_lineno))
    return tasks


def functions_in(tree: ast.AST, before: str = "") -> dict[str, ast.AST]:
    """Return the functions and classes of a file by their names; a method is `Class.method`."""
    found = {}
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found[before + node.name] = node
            found |= functions_in(node, f"{before}{node.name}.")
    return found


def is_first_in_body(line: int, node: ast.AST) -> bool:
    """Whether a line is between the docstring of a function, or its first lines, and the rest of its body."""
    if not isinstance(node, ast.FunctionDef):
        return False
    body = node.body
    has_docstring = ast.get_docstring(node) is not None
    rest = body[1:] if has_docstring else body
    begin = body[0].end_lineno if has_docstring else node.lineno
    return bool(rest) and begin < line < rest[0].lineno


def choose(tasks: list[Task], files: list[str], parts: str | None) -> list[Task]:
    """Return the tasks of these parts, separated by commas, or all.  Raises UserError for a part that cannot be used.

    files: those of the course, with the tests.
    """
    known = list(points_of(tasks))
    if not known:
        raise UserError(f"{ROOT} has no marked functions; is it an assignment itself? Use the whole course")
    wanted = known if parts is None else [part.strip() for part in parts.split(",")]
    for part in wanted:
        if part not in known:
            raise UserError(f"--parts: no part {part}; the parts are {', '.join(known)}")
        if f"tests/test_part_{part}.py" not in files:
            raise UserError(f"the part {part} has no tests; write tests/test_part_{part}.py, and `git add` it")
    return [task for task in tasks if task.part in wanted]


def points_of(tasks: list[Task]) -> dict[str, int]:
    """Return {part: points}."""
    points = {}
    for task in tasks:
        points[task.part] = points.get(task.part, 0) + task.points
    return points


# The assignment -------------------------------------------------------------------------------------------------------


def write(out: Path, solution: Path, files: list[str], tasks: list[Task], chosen: list[Task]) -> None:
    """Write both folders; if something fails, no half of one stays."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as partial:
        new_out = Path(partial, "out")
        new_solution = Path(partial, "solution")
        for name in files:
            if name not in LEFT_OUT:
                copy(ROOT / name, new_out / name)
        for name in sorted({task.file for task in tasks}):
            text = (ROOT / name).read_text(encoding="utf-8")
            of_file = [task for task in tasks if task.file == name]
            missing = [task for task in of_file if task in chosen]
            write_text(new_out / name, without_bodies(text, of_file, missing))
            if missing:
                write_text(new_solution / name, without_bodies(text, of_file, []))
        write_text(new_out / "ASSIGNMENT.md", page(chosen))
        write_text(new_out / "assignment.json", json.dumps(points_of(chosen), indent=1) + "\n")
        write_text(new_out / "Makefile", (ROOT / "Makefile").read_text(encoding="utf-8") + CHECK)
        for new, folder in ((new_solution, solution), (new_out, out)):
            if folder.exists():
                folder.rmdir()  # it is empty
            new.rename(folder)


def copy(path: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(path, target)


def write_text(path: Path, text: str) -> None:
    """Write a text with the line ends of the repository, on every system."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")


def without_bodies(text: str, tasks: list[Task], missing: list[Task]) -> str:
    """Return a file's text without the marks of its tasks, and without the bodies of those that are missing."""
    lines = text.split("\n")
    for task in sorted(tasks, key=lambda task: task.first, reverse=True):  # from below: lines above keep their numbers
        mark = lines[task.first - 1]
        indent = mark[: mark.index("#")]
        if task in missing:
            error = f'{indent}raise NotImplementedError("{task.part}: write the body of {task.function}")'
            lines[task.first - 1 : task.last] = [error]
        else:
            del lines[task.first - 1]
    return "\n".join(lines)


def page(tasks: list[Task]) -> str:
    """Return ASSIGNMENT.md."""
    rows = []
    left = points_of(tasks)  # each part's points stand in its first row
    for task in tasks:
        points = left.pop(task.part, "")
        purpose = task.purpose.replace("|", "&#124;")
        rows.append(f"| {task.part} | {points} | `{task.function}` | `{task.file}` | {purpose} |")
    return PAGE.format(points=sum(task.points for task in tasks), rows="\n".join(rows))


if __name__ == "__main__":
    run_program(main)
