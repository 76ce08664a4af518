"""Checkpoints: weights on disk, ours and released ones, in and out."""
