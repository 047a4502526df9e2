"""What `make setup` installs and prints: tools/course.py with a fake Python in .venv, which notes its arguments."""

import os
import shutil
import subprocess
import sys

import pytest
from programs import ROOT

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the fake Python is a shell script")

FAKE_PYTHON = """#!/bin/sh
echo "$@" >> calls
case "$*" in *"$FAILS"*) exit 1; esac
"""


@pytest.fixture
def project(tmp_path):
    (tmp_path / "tools").mkdir()
    (tmp_path / ".venv/bin").mkdir(parents=True)
    shutil.copy(ROOT / "tools/course.py", tmp_path / "tools")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for name in ("python", "pip"):
        (tmp_path / ".venv/bin" / name).write_text(FAKE_PYTHON, encoding="utf-8")
        (tmp_path / ".venv/bin" / name).chmod(0o755)
    return tmp_path


def course(project, task, fails="nothing of this", gpu=False, **environment):
    """Run a task; return the exit status, what it printed and the calls of pip.  fails: a word of calls that fail."""
    programs = project / "programs"
    programs.mkdir(exist_ok=True)
    if gpu:
        (programs / "nvidia-smi").write_text("#!/bin/sh\n", encoding="utf-8")
        (programs / "nvidia-smi").chmod(0o755)
    (project / "calls").write_text("", encoding="utf-8")
    environment |= {"FAILS": fails, "PATH": f"{programs}:/bin"}
    command = [sys.executable, project / "tools/course.py", task]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    calls = (project / "calls").read_text(encoding="utf-8").splitlines()
    return done.returncode, done.stdout + done.stderr, [call for call in calls if call.startswith("-m pip install")]


@pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("nvidia-smi", path="/bin"), reason="needs Linux without a GPU"
)
def test_a_machine_without_gpu_gets_pytorch_for_cpus(project):
    status, printed, calls = course(project, "setup")
    assert status == 0 and len(calls) == 3
    assert "torch>=" in calls[1] and "--index-url https://download.pytorch.org/whl/cpu" in calls[1]
    assert calls[2] == "-m pip install -e ."  # without what only the tests need
    assert len(printed.splitlines()) == 3  # a line for each installation

    assert course(project, "setup")[1:] == ("== setup: .venv is up to date\n", [])


@pytest.mark.parametrize("how", [{"gpu": True}, {"COURSE_TORCH": "default"}])
def test_pytorch_for_cpus_can_be_refused(project, how):
    _, _, calls = course(project, "setup", **how)
    assert len(calls) == 2 and "torch" not in "".join(calls)


@pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("nvidia-smi", path="/bin"), reason="needs Linux without a GPU"
)
def test_another_kind_of_pytorch_replaces_the_one_that_is_there(project):
    course(project, "setup")
    assert "--force-reinstall" in course(project, "setup", COURSE_TORCH="default")[2][1]
    assert course(project, "setup", COURSE_TORCH="default")[2] == []
    calls = course(project, "setup")[2]
    assert "--force-reinstall --index-url" in calls[1]


def test_without_pytorch_for_cpus_the_default_is_installed(project):
    status, printed, calls = course(project, "setup", fails="--index-url")
    assert status == 0 and calls[-1] == "-m pip install -e ."
    assert sys.platform != "linux" or "not available" in printed


def test_the_tests_install_the_development_group(project):
    course(project, "setup")
    assert course(project, "lint")[2][-1] == "-m pip install -e . --group dev"
    assert course(project, "lint")[2] == course(project, "setup")[2] == []


def test_a_failed_installation_names_the_file_with_the_reason(project):
    status, printed, _ = course(project, "setup", fails="-e .")
    assert status == 1 and printed.endswith(
        "; the reason is at the end of .venv/install.log; then run the same command again\n"
    )
    assert (project / ".venv/install.log").exists()
    assert course(project, "setup")[2]  # it is tried again
