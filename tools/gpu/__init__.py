"""The measurements of speed of `tools/gpu_check.py`."""
