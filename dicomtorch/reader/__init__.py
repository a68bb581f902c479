"""Rows to stored values and tensors; the way of a frame, written once."""
