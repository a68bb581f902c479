"""What to know about an index before training on it."""
