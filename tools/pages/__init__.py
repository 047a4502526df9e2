"""What becomes a page: `report.py` (of `tools/grade_runs.py`) with its plots, and the model card of an export."""
