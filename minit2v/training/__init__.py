"""Training: one loop, and the parts of a model that it trains."""
