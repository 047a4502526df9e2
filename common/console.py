"""What is not a program's result."""

import sys


def say(message):
    """What is not a program's result goes to stderr."""
    print(message, file=sys.stderr, flush=True)
