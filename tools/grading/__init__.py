"""What `tools/grade_runs.py` is made of.

Read `submissions.py` first (what was handed in), then `unpacking.py` (folders and archives), `run_files.py` and
`logs.py` (what each file says), `facts.py` (what the table says), `edited_records.py` (what is wrong with a run),
`copies.py`, `verify.py` (losses computed again) and `rubric.py` (points).
"""
