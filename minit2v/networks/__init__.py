"""Networks: what learns. They know no data and no file."""
