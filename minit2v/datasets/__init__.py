"""Data sets: captioned clips and pictures, and their table.

`find_data` gives the data set of a name or a folder; see `base` for what one is.
"""
