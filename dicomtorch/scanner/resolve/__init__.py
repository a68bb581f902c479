"""Which value of a header holds for which frame."""
