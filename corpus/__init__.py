"""Where text comes from; nothing here knows the network.

Read `sources.py` first (files, folders, the hub), then `dialogues.py` (the forms of dialogues), `splits.py` (validation
split, mixtures), `token_cache.py` (tokens on disk) and `other_tokenizers.py` (GPT-2's, tiktoken's, an older course's).
"""
