"""Training, what steps 2 and 4 share.

Read `loop.py` first, then `step.py` (one update), `optimizer.py`, `plan.py` (how long a run is) and `resume.py` (what a
checkpoint holds).  Around them: `settings.py` and `presets.py` (the flags), `time_limit.py` (`--minutes`),
`run_folder.py` (log, metrics and TensorBoard), `reports.py` and `log_lines.py` (what stands in them), `lora.py`,
`curves.py`.
"""
