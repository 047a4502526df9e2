"""Fixtures for several test files: finished runs, a small course, a writer, a browser."""

import os

# Tiny networks are fastest on one thread, and then give the same sums on every machine. This must come before torch is
# imported; the programs that tests start inherit it.
os.environ["OMP_NUM_THREADS"] = "1"

import logging
import shutil
import signal

import pytest
import torch
from programs import ROOT
from tiny import TEXTS, make_model
from tiny_runs import SIX_STEPS, train_in

from common.console import log
from common.weights_files import save_model
from data import train_tokenizer
from generation.sampling import Sampling
from generation.writer import Writer
from training import loop


@pytest.fixture(autouse=True)
def ctrl_c_as_at_a_shell():
    """Let Ctrl-C work as at a shell: in the background SIGINT is ignored, and runs do not change that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def said():
    """Yield the list of messages that the code logs during a test."""
    messages = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    log.addHandler(handler)
    yield messages
    log.removeHandler(handler)


@pytest.fixture
def no_gradients():
    with torch.no_grad():
        yield


# Runs that no test may change -----------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """Return (folder, summary) of a finished run."""
    folder = tmp_path_factory.mktemp("finished")
    return folder, train_in(folder, eval_steps=3, save_steps=3)


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory):
    """Return the folder of an uninterrupted run of six steps."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    train_in(folder, **SIX_STEPS)
    return folder


@pytest.fixture(scope="session")
def course(tmp_path_factory):
    """Return a folder as after steps 1, 2 and 4: data, a tokenizer, a story model and a chat model."""
    golden = ROOT / "tests/golden"
    folder = tmp_path_factory.mktemp("course")
    for name in ("stories", "talks"):
        shutil.copytree(golden / name, folder / name)
    shutil.copy(golden / "bpe_tokenizer_tinystories.pkl", folder)
    shutil.copytree(golden / "story", folder / "tinystories_model")
    shutil.copytree(golden / "chat", folder / "tinystories_chat_model")
    return folder


@pytest.fixture
def val_losses(monkeypatch):
    """Return a list, to be filled with the validation losses that the run's evaluations return, in order."""
    losses = []
    evaluate = loop.evaluate

    def prescribed(*args, **options):
        return evaluate(*args, **options) | {"val_loss": losses.pop(0)}

    monkeypatch.setattr(loop, "evaluate", prescribed)
    return losses


# Writing --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def make_writer(tmp_path_factory):
    """Return a function that makes a Writer of a tiny model; its options are sampling flags."""
    tokenizer = train_tokenizer(TEXTS, 290)
    model = make_model(vocab_size=tokenizer.vocab_size, max_seq_len=32)
    path = tmp_path_factory.mktemp("model") / "best_model.pth"
    save_model(path, model, tokenizer.fingerprint)
    return lambda **flags: Writer(model, tokenizer, Sampling(**{"max_new_tokens": 20} | flags), path)


# A browser ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser():
    """Yield headless Chromium, which logs its requests and its console.

    If it is not installed, skip the test; if the environment has COURSE_NEEDS_BROWSER, as in CI, let it fail.
    """
    webdriver = pytest.importorskip("selenium.webdriver")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    chromedriver = shutil.which("chromedriver")
    if not chromium or not chromedriver:
        end_test = pytest.fail if os.environ.get("COURSE_NEEDS_BROWSER") else pytest.skip
        end_test("needs Chromium and its driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1280,900"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    with webdriver.Chrome(options, webdriver.ChromeService(chromedriver)) as driver:
        yield driver
