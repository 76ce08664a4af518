"""The metrics of the literature at the scale of a laptop, and the networks that compute their features."""
