"""Writing: the code that steps 3 and 5 share.

Read `sampling.py` first (from logits to a token), then `kv_cache.py` and `generate.py` (the loop).  Around them:
`beam_search.py`, `prompts.py` (the model's input), `writer.py` (from tokens to text), `prompt_files.py` (many prompts
at once).
"""
