"""A side-by-side measurement of image-classification servers; `run.py` beside this folder is the command."""
