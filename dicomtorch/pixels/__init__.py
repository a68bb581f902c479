"""Stored values to tensors, one frame or a batch on its device, and the memory they lie in."""
