"""Results computed ahead, in threads."""

from collections import deque
from concurrent.futures import ThreadPoolExecutor


def computed_ahead(function, items, ahead=1):
    """map(function, items), the next results computed in threads, as many as `ahead` says, while one is used."""
    waiting = deque()
    with ThreadPoolExecutor(max_workers=ahead) as pool:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
