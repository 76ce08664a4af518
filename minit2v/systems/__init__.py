"""Systems: a paper's way to make video, one file each."""
