"""What `tools/import_model.py` is made of: the files of other programs, and the networks in them."""
