"""Memory: what a clip takes, counted and measured."""
