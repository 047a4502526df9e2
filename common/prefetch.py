"""Results computed ahead, in threads, while the one before is used."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor


def computed_ahead(function: Callable, items: Iterable, ahead: int = 1) -> Iterator:
    """map(function, items), the next results computed in threads, as many as `ahead` says, while one is used."""
    waiting = deque()
    with ThreadPoolExecutor(max_workers=ahead) as pool:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
