"""The library of `tools/grade_runs.py`.

Read `submissions.py` first (what was handed in), then `unpacking.py` (folders and archives), `run_files.py` and
`logs.py` (reading each file), `facts.py` (the columns of the table), `edited_records.py` and
`impossible_numbers.py` (findings about one run), `copies.py` (copied runs), `verify.py` (recomputed losses) and
`rubric.py` (points).
"""
