"""Which frames belong together in space and time."""
