"""Tiny networks are fastest on one thread, and then give the same sums on every machine; and one browser for all."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported; the programs that tests start inherit it

import logging
import shutil

import pytest

from common.console import log


@pytest.fixture
def said():
    """A list of what the code reports during a test."""
    messages = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    log.addHandler(handler)
    yield messages
    log.removeHandler(handler)


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
