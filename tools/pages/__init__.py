"""Pages and their templates: the report of `tools/grade_runs.py`, the chart of the web demo, and the model card."""
