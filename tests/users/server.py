"""An engineer with a server full of files: what is there, what is damaged, as JSON; nobody's name in it."""

import json
import sys
from collections import Counter

from dicomtorch import scan

index, report = scan(sys.argv[1])
counts = Counter(finding.file_class for finding in report.findings)
print(
    json.dumps(
        {"frames": len(index), "modalities": Counter(index.column("Modality")), **counts},
        sort_keys=True,
    )
)
