"""Code that every program needs.

`errors.py` and `program.py` (how a program ends), `console.py` (what it prints), `flags.py`, `files.py`, `devices.py`,
`ranks.py`, `weights_files.py` (model files), `prefetch.py`; `text.py` and `numbers.py` are small.
"""

import time

STARTED = time.perf_counter()  # when the program started: it imports this package before torch, which takes seconds
