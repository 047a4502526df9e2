"""What pytest gives to tests of several files: finished runs, a small course, a writer, a browser."""

import os

# Tiny networks are fastest on one thread, and then give the same sums on every machine. This stands before torch is
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
    """Where the tests run in the background SIGINT is ignored, and a run would leave it so."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def said():
    """A list of what the code reports during a test."""
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


# Runs, which no test changes ------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """(folder, summary) of a run that finished."""
    folder = tmp_path_factory.mktemp("finished")
    return folder, train_in(folder, eval_steps=3, save_steps=3)


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory):
    """The folder of a run of six steps that nothing disturbed."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    train_in(folder, **SIX_STEPS)
    return folder


@pytest.fixture(scope="session")
def course(tmp_path_factory):
    """A folder as steps 1, 2 and 4 leave it: data, a tokenizer, a story model and a chat model."""
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
    """A list: the validation losses that the run's evaluations find, one after the other."""
    losses = []
    evaluate = loop.evaluate

    def prescribed(*args, **options):
        return evaluate(*args, **options) | {"val_loss": losses.pop(0)}

    monkeypatch.setattr(loop, "evaluate", prescribed)
    return losses


# Writing --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def make_writer(tmp_path_factory):
    """Make a Writer of a tiny model with these sampling flags."""
    tokenizer = train_tokenizer(TEXTS, 290)
    model = make_model(vocab_size=tokenizer.vocab_size, max_seq_len=32)
    path = tmp_path_factory.mktemp("model") / "best_model.pth"
    save_model(path, model, tokenizer.fingerprint)
    return lambda **flags: Writer(model, tokenizer, Sampling(**{"max_new_tokens": 20} | flags), path)


# A browser ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium, which notes what it requests and what its console says; skips where there is none."""
    webdriver = pytest.importorskip("selenium.webdriver")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    chromedriver = shutil.which("chromedriver")
    if not chromium or not chromedriver:
        pytest.skip("needs Chromium and its driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1280,900"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    with webdriver.Chrome(options, webdriver.ChromeService(chromedriver)) as driver:
        yield driver
