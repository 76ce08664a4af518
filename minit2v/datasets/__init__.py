"""Data sets: captioned clips and pictures."""
