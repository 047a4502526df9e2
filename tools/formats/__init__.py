"""Readers of other programs' formats for `tools/import_model.py`; `llama2c.py` reads those of llama2.c."""
