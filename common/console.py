"""What the programs print while they work: one logger for all modules.

    log.info("device: cpu")                        # to stderr
    log.info("step 100/2000 ...", extra=RESULT)    # to stdout: the result of a trainer

A training run adds a handler that copies both to its `train.log`.
"""

import contextlib
import logging
import sys
from collections.abc import Iterator

from tqdm import tqdm

log = logging.getLogger("tinystories")
RESULT = {"is_result": True}


class Console(logging.Handler):
    """Prints each message unchanged, above the progress bar if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        stream = sys.stdout if getattr(record, "is_result", False) else sys.stderr
        with contextlib.suppress(OSError):  # a terminal that is gone must not end a run before it saves its checkpoint
            tqdm.write(self.format(record), file=stream)


log.addHandler(Console())
log.setLevel(logging.INFO)
log.propagate = False  # so that handlers of other libraries do not print it again


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Print nothing but errors inside the block."""
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)
