"""The seconds of a run."""

import contextlib
import time
from collections.abc import Iterator


class Clock:
    """Counts a run's seconds, and those of training since the last log line, without evaluations and saving."""

    def __init__(self, seconds: float = 0.0, seconds_since_log: float = 0.0):
        """Begin where a run that resumes was: after so many seconds."""
        now = time.perf_counter()
        self.began = now - seconds
        self.log_began = now - seconds_since_log

    def seconds(self) -> float:
        """Since the run began, evaluations and saving included."""
        return time.perf_counter() - self.began

    def since_log(self) -> float:
        """Of training since the last log line."""
        return time.perf_counter() - self.log_began

    def log_again(self) -> None:
        """After a log line."""
        self.log_began = time.perf_counter()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """For what is no training."""
        paused_at = time.perf_counter()
        yield
        self.log_began += time.perf_counter() - paused_at
