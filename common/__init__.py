"""What every program needs.

`errors.py` and `program.py` (how a program ends), `flags.py`, `files.py`, `text.py`, `devices.py`, `ranks.py`,
`weights_files.py` (model files), `prefetch.py`.
"""
