# Each target is one line: the work is in tools/course.py, which also runs where there is no make.
# Another Python: `make pilot PYTHON=python3.13`. More for pytest: `make test ARGS="-k tokenizer"`.
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
	@$(PYTHON) tools/course.py pilot

clean:
	@$(PYTHON) tools/course.py clean
