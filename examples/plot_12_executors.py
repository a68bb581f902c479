"""
Scan with Dask, Ray, or your own executor
=========================================

Headers of a large archive are read where the cores are: ``executor=`` takes any ``concurrent.futures.Executor``.
"""

import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from make_data import write_ct

from dicomtorch import DicomFrames, scan

folder = Path(tempfile.mkdtemp())
write_ct(folder, patients=4)

# %%
# Threads of this process. The index is the same, whoever reads the headers.
with ThreadPoolExecutor(2) as threads:
    index, report = scan(folder, executor=threads)
print(report)

# %%
# Dask: the executor of a client. On a cluster its workers need the package, and the files under the same path.
try:
    from distributed import Client
except ImportError:
    print("Dask is not installed: pip install distributed")
else:
    with Client(
        processes=False, n_workers=1, threads_per_worker=2, dashboard_address=None
    ) as client:
        by_dask, _ = scan(folder, executor=client.get_executor())
    assert len(by_dask) == len(index)
    print(by_dask)

# %%
# Ray is the same in one line, where it is installed (the tests run it; here it would start a cluster)::
#
#     from dicomtorch.integrations.ray import RayExecutor
#
#     index, report = scan("/data/archive", executor=RayExecutor(num_cpus=1))
#
# What follows knows nothing of where the headers were read.
frames = DicomFrames(index, values="modality")
image, meta = frames[0]
print(image.shape, meta["Modality"])
