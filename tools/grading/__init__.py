"""What `tools/grade_runs.py` is made of.

Read `submissions.py` first (what was handed in), then `unpacking.py` (archives), `run_files.py` (what each file says),
`edited_records.py` (what is wrong with it), `verify.py` (losses computed again) and `rubric.py` (points).
"""
