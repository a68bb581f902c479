"""Files to rows of an index."""
