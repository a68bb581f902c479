"""Frozen values that the rooms hand to each other: syntaxes, limits, image, frame, options, report, schema."""
