# Each target is one line: the work is in tools/course.py, which also runs where there is no make.
# Another Python: `make pilot PYTHON=python3.13`. More for pytest, or for the pilot's trainers:
# `make test ARGS="-k tokenizer"`, `make pilot ARGS="--compile off"`.
PYTHON ?= python3

.PHONY: help setup lint test test-faults pilot clean

help:
	@$(PYTHON) tools/course.py help

setup:
	@$(PYTHON) tools/course.py setup

lint:
	@$(PYTHON) tools/course.py lint

test:
	@$(PYTHON) tools/course.py test $(ARGS)

test-faults:
	@$(PYTHON) tools/course.py test-faults $(ARGS)

pilot:
	@$(PYTHON) tools/course.py pilot $(ARGS)

clean:
	@$(PYTHON) tools/course.py clean
