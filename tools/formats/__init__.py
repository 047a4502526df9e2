"""Formats of other programs that `tools/import_model.py` reads; llama2.c's is in `llama2c.py`."""
