"""Where texts come from; nothing here knows the network.

Read `sources.py` first (files, folders, the hub).  From a file to rows: `encodings.py` (compressed files, UTF-16),
`json_files.py`, `tables.py` (csv) and `readers.py` (the reader for a file, plain text, parquet); `notes.py` collects
what the log should report.  From rows to texts: `stories.py`, and for dialogues `dialogue_rows.py`, `turns.py` and
`speakers.py`; `dialogues.py` turns dialogues into tokens.  Then `splits.py` (validation split, mixtures),
`token_cache.py` (tokens on disk) and `other_tokenizers.py` (GPT-2's, tiktoken's, an older course's).
"""
