"""Which samples in which order, samples to batches, the threads that make them."""
