"""Results that are computed ahead in threads while the current one is used."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor


def computed_ahead(function: Callable, items: Iterable, ahead: int = 1) -> Iterator:
    """Yield map(function, items); while one result is used, threads compute up to `ahead` next ones."""
    waiting = deque()
    with ThreadPoolExecutor(max_workers=ahead) as pool:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
