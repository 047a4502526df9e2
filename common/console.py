"""What the programs report while they work: one logger for all modules.

    log.info("device: cpu")                        # to stderr
    log.info("step 100/2000 ...", extra=RESULT)    # to stdout: what a trainer is run for

A training run adds a handler that copies both into its `train.log`.
"""

import contextlib
import logging
import sys
from collections.abc import Iterator

from tqdm import tqdm

log = logging.getLogger("tinystories")
RESULT = {"is_result": True}


class Console(logging.Handler):
    """Prints each message as it is, above a progress bar where one is shown."""

    def emit(self, record: logging.LogRecord) -> None:
        stream = sys.stdout if getattr(record, "is_result", False) else sys.stderr
        with contextlib.suppress(OSError):  # a terminal that is gone must not end a run before its checkpoint
            tqdm.write(self.format(record), file=stream)


log.addHandler(Console())
log.setLevel(logging.INFO)
log.propagate = False  # what other libraries set up must not print it again


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Report nothing in the block but errors."""
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)
