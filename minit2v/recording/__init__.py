"""Recordings: a sampling run or a training in one small file."""
