"""What becomes a page, and the templates for it: the report of `tools/grade_runs.py`, the web demo, the model card."""
