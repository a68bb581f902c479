"""Other libraries' shapes of samples, loaders and executors; each module imports its library on first use."""
