"""The metrics of the literature with the networks of the literature."""
