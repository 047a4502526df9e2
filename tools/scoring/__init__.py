"""What `tools/evaluate_model.py` is made of: `measures.py` (numbers of texts), then `judge.py` (grades by a model)."""
