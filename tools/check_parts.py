"""Tell which parts of an assignment work: `make check`, or `python tools/check_parts.py [PART ...]`.

The assignment is a copy of the course that tools/make_assignment.py has made.  Each part has its own tests, which run
in a process of their own, so that an endless loop or a typing error in one part does not hide the others.  Like
tools/course.py, this file needs nothing but Python itself, and installs what the tests need if it is not there.
The exit status is 0 if all parts work, and 1 if not.
"""

import importlib.util
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from course import ROOT, VENV_PYTHON, fail, install_course

ASSIGNMENT = ROOT / "assignment.json"
SECONDS = 120  # for the tests of a part, which take a few
ENVIRONMENT = {
    "COLUMNS": "400",  # pytest shortens an error to the width of the terminal
    "OMP_NUM_THREADS": "1",
    "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # to load the plugins took 1.5 seconds for each part
    "PYTHONUTF8": "1",
}
NEEDED = ("pytest", "torch", "tokenizers", "datasets", "numpy")


def read_points():
    """Return {part: points}"""
    if not ASSIGNMENT.is_file():
        fail("this is the course, not an assignment: make one with tools/make_assignment.py", 2)
    return json.loads(ASSIGNMENT.read_text(encoding="utf-8"))


def find_python():
    """Return a Python that has what the tests need: this one, or else the one in .venv"""
    if all(importlib.util.find_spec(name) for name in NEEDED):
        return sys.executable
    install_course(for_tests=True)
    return VENV_PYTHON


def failure_of(python, part):
    """Run the tests of a part, and return the first failure in one line, or None if all pass"""
    command = [python, "-m", "pytest", f"tests/test_part_{part}.py", "--noconftest", "-x", "-vv", "--tb=short", "-rfE"]
    command += ["-p", "no:cacheprovider"]
    environment = os.environ | ENVIRONMENT
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, encoding="utf-8", errors="replace", timeout=SECONDS
        )
    except subprocess.TimeoutExpired:
        return f"the tests did not end within {SECONDS} seconds: is there an endless loop?"
    if done.returncode == 0 and " passed in " in done.stdout:
        return None
    return first_failure(done.stdout) or f"pytest ended with exit status {done.returncode}"


def first_failure(output):
    """Return the first failure in the output of pytest in one line, or None if there is none"""
    errors = [line[1:].strip() for line in output.splitlines() if line.startswith("E  ")]
    for line in output.splitlines():
        if line.startswith("FAILED "):
            name, _, error = line.partition(" - ")
            test = name.partition("::")[2]
            return error if error.startswith("NotImplementedError: ") else f"{test}: {error}"
        if line.startswith("ERROR ") and errors:  # the tests, or what they import, cannot be read
            places = [error for error in errors if error.startswith("File ")]  # of a typing error
            return ": ".join([*places[-1:], errors[-1]])
    return None


def main():
    sys.stdout.reconfigure(encoding="utf-8", errors="replace")
    points = read_points()
    parts = sys.argv[1:] or list(points)
    for part in parts:
        if part not in points:
            fail(f"no part {part}; the parts are {', '.join(points)}", 2)
    python = find_python()
    reached = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        failures = pool.map(lambda part: failure_of(python, part), parts)
        for part, failure in zip(parts, failures, strict=True):
            got = points[part] if failure is None else 0
            reached += got
            print(f"{part:15} {got:3} of {points[part]:3}  {failure or 'works'}", flush=True)
    total = sum(points[part] for part in parts)
    print(f"{'total':15} {reached:3} of {total:3}")
    if reached < total:
        print("more about a part: python -m pytest --noconftest -x -vv tests/test_part_PART.py", file=sys.stderr)
    sys.exit(0 if reached == total else 1)


if __name__ == "__main__":
    main()
