"""Training: the code that the trainers share.

Read `job.py` and `loop.py` first, then `step.py` (one update), `optimizer.py`, `plan.py` (the length of a run) and
`resume.py` (checkpoints).  Around them: `settings.py` and `presets.py` (the flags), `time_limit.py` (`--minutes`),
`run_folder.py` (log, metrics and TensorBoard), `reports.py` and `log_lines.py` (the content of these records),
`device_check.py`, `lora.py`, `curves.py`.
"""
