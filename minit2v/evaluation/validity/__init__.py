"""What each metric sees: damage that is known, and the answer of each metric."""
