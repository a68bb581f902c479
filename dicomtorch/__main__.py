"""`python -m dicomtorch` is `dicomtorch`."""

from __future__ import annotations

import sys

from dicomtorch.cli.main import main

if __name__ == "__main__":  # a worker process that imports the main module must not run it
    sys.exit(main())
