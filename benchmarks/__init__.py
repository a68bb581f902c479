"""How fast frames arrive, beside plain pydicom and SimpleITK in the same run: `python -m benchmarks`."""
