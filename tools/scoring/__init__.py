"""The library of `tools/evaluate_model.py`: `measures.py` (measures of texts) and `judge.py` (grades from a model)."""
