"""Tiny networks are fastest on one thread, and then give the same sums on every machine."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported; the programs that tests start inherit it
