"""The table with one row a frame: build, select, join, split, keep."""
