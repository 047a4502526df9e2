"""What `make` runs: `python tools/course.py setup|lint|test|test-faults|pilot|clean`.

The work is here and not in the Makefile because Python is the same on Linux, macOS and Windows, and make is not
always there: without make, type `python tools/course.py pilot`. This file needs nothing but Python itself. It makes
`.venv`, installs the course into it and runs everything there, so in the commands it prints `python` is the one in
`.venv` (`source .venv/bin/activate`, or `.venv\\Scripts\\activate` on Windows, makes it yours too).
"""

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
VENV_PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
STAMP = VENV / ".installed"  # what was installed: the SHA-256 of pyproject.toml, the kind of PyTorch, and "tests"
INSTALL_LOG = VENV / "install.log"
CPU_TORCH = "https://download.pytorch.org/whl/cpu"  # PyTorch's own builds without CUDA
PILOT = ROOT / "pilot"

STORIES = "pilot/data/stories"
DIALOGUES = "pilot/data/conversations"
TOKENIZER = "pilot/bpe_tokenizer_tinystories.pkl"
STORY_MODEL = "pilot/tinystories_model"
CHAT_MODEL = "pilot/tinystories_chat_model"
SAMPLING = "--max_new_tokens 400 --temperature 0.7 --min_p 0.1 --seed 42"  # less chance, fewer slips
QUESTIONS = ["Hello!", "Can you tell me a story about a little penguin?", "Thank you!"]  # no dialogue has a penguin

ACTIVATE = ".venv\\Scripts\\activate" if os.name == "nt" else "source .venv/bin/activate"
NEXT = f"""
== Next
{ACTIVATE}
python chat_with_tinystories_model.py --model_path {CHAT_MODEL}/best_model.pth --tokenizer_path {TOKENIZER}
docs/labs.md has 25 small experiments, and the order in which to read the code."""


def fail(message, code=1):
    """End with one line that says why."""
    print(f"error: {message}", file=sys.stderr)
    sys.exit(code)


def run(step, command, *arguments, **options):
    """Run one Python command; say which step it is, what a student would type and how long it took."""
    print(f"\n== {step}\n$ python {command} {shlex.join(arguments)}".rstrip(), flush=True)
    started = time.monotonic()
    result = subprocess.run(
        [VENV_PYTHON, *shlex.split(command), *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONUTF8": "1"},
        encoding="utf-8",
        **options,
    )
    if result.returncode != 0:
        fail(f"{step}: failed with exit code {result.returncode}")
    print(f"== {step}: {time.monotonic() - started:.1f} s", flush=True)
    return result.stdout


def setup():
    """make .venv and install what the five steps need"""
    install_course(for_tests=False)


def install_course(for_tests):
    """Make .venv if there is none, and install what is missing; for_tests: what lint and test need, too."""
    digest = hashlib.sha256((ROOT / "pyproject.toml").read_bytes()).hexdigest()
    usable = VENV_PYTHON.exists() and any(VENV_PYTHON.parent.glob("pip*"))
    installed = STAMP.read_text(encoding="utf-8").split() if usable and STAMP.exists() else []
    kind = "cpu" if takes_cpu_torch() else "default"
    other_kind = "default" if kind == "cpu" else "cpu"
    other_torch = other_kind in installed
    if digest in installed and not other_torch and ("tests" in installed or not for_tests):
        print("== setup: .venv is up to date")
        return
    if not usable:
        print("== setup: make .venv", flush=True)
        if subprocess.run([sys.executable, "-m", "venv", "--clear", VENV]).returncode != 0:
            fail("Python could not make .venv; Debian and Ubuntu need the package python3-venv for it")
    install("a newer pip", "--upgrade", "pip", must=for_tests)  # --group needs pip 25.1
    torch = [next(name for name in requirements() if name.startswith("torch"))]
    if other_torch:
        torch.append("--force-reinstall")
    if kind == "cpu":
        what = "PyTorch for CPUs, about 200 MB (COURSE_TORCH=default: with CUDA)"
        install(what, *torch, "--index-url", CPU_TORCH, "--retries", "1", must=False)
    elif other_torch:
        install("PyTorch with CUDA instead of that for CPUs", *torch)
    if for_tests:
        install("what the tests need", "-e", ".", "--group", "dev")
    else:
        install("what the five steps need", "-e", ".")
    STAMP.write_text(f"{digest} {kind} tests" if for_tests else f"{digest} {kind}", encoding="utf-8")


def requirements():
    """Read from pyproject.toml which packages the five steps need."""
    import tomllib  # not in Python 3.10, which `main` refuses in plain words

    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]


def takes_cpu_torch():
    """Is this Linux without an NVIDIA GPU? pip's default build of PyTorch has several GB of CUDA libraries there."""
    no_gpu = sys.platform == "linux" and shutil.which("nvidia-smi") is None
    return no_gpu and os.environ.get("COURSE_TORCH", "auto") != "default"


def install(what, *arguments, must=True):
    """Install with pip, print one line with the time, and write pip's own output to a file.

    must: a failure ends the program; otherwise it is printed, and the next installation may still succeed.
    """
    print(f"== setup: install {what}: ", end="", flush=True)
    started = time.monotonic()
    with INSTALL_LOG.open("a", encoding="utf-8") as output:
        command = [VENV_PYTHON, "-m", "pip", "install", *arguments]
        result = subprocess.run(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
    seconds = time.monotonic() - started
    log = INSTALL_LOG.relative_to(ROOT).as_posix()
    if result.returncode == 0:
        print(f"{seconds:.0f} s")
    elif must:
        print("failed")
        fail(f"pip could not install {what}; the reason is at the end of {log}; then run the same command again")
    else:
        print(f"not available ({log}); pip's default instead")


def lint():
    """look for mistakes and untidy layout in the code"""
    install_course(for_tests=True)
    run("lint: mistakes", "-m ruff check .")
    run("lint: layout", "-m ruff format --check .")


def test(*arguments):
    """run the tests"""
    install_course(for_tests=True)
    run("test", "-m pytest -q -n auto --dist loadfile", *arguments)  # a process a core, each file in one of them


def test_faults(*arguments):
    """kill runs, fill disks and damage files, some 20 minutes"""
    install_course(for_tests=True)
    run("test-faults", "-m pytest -q -m faults", *arguments)


def pilot(*flags):
    """go through the whole course in minutes, on sample data, writing to pilot/"""
    started = time.monotonic()
    setup()
    if PILOT.exists():
        print("== pilot: removing the pilot/ of an earlier run")
        shutil.rmtree(PILOT)
    run(
        "pilot: compose more sample data",
        "sample_data/make_sample_data.py --stories 12000 --dialogues 3000 --output_dir pilot/data",
    )
    run(
        "pilot 1 of 5: train the tokenizer",
        f"train_bpe_tokenizer_hf.py --dataset {STORIES} --vocab_size 2000 --output {TOKENIZER} --overwrite",
    )
    run(
        "pilot 2 of 5: train the story model",
        f"train_tinystories_model.py --dataset {STORIES} --tokenizer_path {TOKENIZER}"
        f" --output_dir {STORY_MODEL} --cache_dir pilot/cache --pilot_run",
        *flags,
    )
    story = run(
        "pilot 3 of 5: write a story (shown at the end)",
        f"generate_tinystories_text.py --model_path {STORY_MODEL}/best_model.pth --tokenizer_path {TOKENIZER}"
        f' --prompt "Once upon a time, there was a" {SAMPLING}',
        stdout=subprocess.PIPE,
    )
    run(
        "pilot 4 of 5: train the chat model",
        f"train_tinystories_chat_model.py --pretrained_model_path {STORY_MODEL}/best_model.pth"
        f" --tokenizer_path {TOKENIZER} --dataset {DIALOGUES}"
        f" --output_dir {CHAT_MODEL} --cache_dir pilot/cache --pilot_run",
        *flags,
    )
    replies = run(
        "pilot 5 of 5: chat (shown at the end)",
        f"chat_with_tinystories_model.py --model_path {CHAT_MODEL}/best_model.pth --tokenizer_path {TOKENIZER}"
        f" {SAMPLING}",
        input="\n".join([*QUESTIONS, "exit", ""]),
        stdout=subprocess.PIPE,
    )
    replies = replies.removesuffix("\n").split("\n")
    if len(replies) != len(QUESTIONS):
        fail(f"pilot 5 of 5: chat: {len(QUESTIONS)} questions were answered with {len(replies)} lines")

    print(f"\n== The story\n{story.strip()}\n\n== The dialogue")
    for question, reply in zip(QUESTIONS, replies, strict=True):
        print(f"you: {question}\nmodel: {reply}")
    print("\n== What was written")
    list_files()
    print(f"\n== pilot: {time.monotonic() - started:.1f} s in all")
    print(NEXT)


def list_files():
    """Print each file under pilot/ with its size, the data and the cache in one line each."""
    sizes = {}
    for path in sorted(path for path in PILOT.rglob("*") if path.is_file()):
        name = path.relative_to(ROOT).as_posix()
        for folder in ("pilot/cache/", "pilot/data/"):
            if name.startswith(folder):
                name = folder
        sizes[name] = sizes.get(name, 0) + path.stat().st_size
    for name, size in sizes.items():
        print(f"{size / 1000:12,.1f} kB  {name}")


def clean():
    """remove .venv/, pilot/ and the caches of Python and the tools"""
    if os.name == "nt" and Path(sys.prefix) == VENV:  # Windows cannot delete a program that runs
        fail("type deactivate first", 2)
    caches = [ROOT / ".pytest_cache", ROOT / ".ruff_cache", ROOT / ".hypothesis"]
    for folder in [VENV, PILOT, *caches, *ROOT.rglob("__pycache__")]:
        if folder.exists():
            print(f"removing {folder.relative_to(ROOT).as_posix()}/")
            shutil.rmtree(folder)


TASKS = {"setup": setup, "lint": lint, "test": test, "test-faults": test_faults, "pilot": pilot, "clean": clean}
TAKES_MORE = ("test", "test-faults", "pilot")  # arguments of pytest, flags of the two trainers


def main():
    if not (3, 11) <= sys.version_info[:2] <= (3, 14):
        version = sys.version.split()[0]
        fail(f"the course needs Python 3.11 to 3.14, not {version}; with another one: make pilot PYTHON=python3.13")
    sys.stdout.reconfigure(encoding="utf-8", errors="replace")
    name, *arguments = sys.argv[1:] or ["help"]
    if name in ("help", "--help", "-h"):
        for task in TASKS:
            print(f"python tools/course.py {task:11} {TASKS[task].__doc__}")
        return
    if name not in TASKS or (arguments and name not in TAKES_MORE):
        fail(f"usage: python tools/course.py {'|'.join(TASKS)} (only {', '.join(TAKES_MORE)} take more arguments)", 2)
    try:
        TASKS[name](*arguments)
    except KeyboardInterrupt:
        fail("stopped", 130)
    except OSError as problem:
        fail(problem)


if __name__ == "__main__":
    main()
