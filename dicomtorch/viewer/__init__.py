"""Frames, samples and batches in a browser or a notebook: what files have, and what training gets."""
