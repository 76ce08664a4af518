"""The metrics of the literature at the scale of a laptop, and the networks that they look through."""
