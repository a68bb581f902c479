"""
Scan with Dask, Ray, or your own executor
=========================================

Headers of a large archive are read where the cores are: ``executor=`` takes any ``concurrent.futures.Executor``.
"""

import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import matplotlib.pyplot as plt
from distributed import Client
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
# Dask: the executor of a client, with ``pure=False``, for a file may have changed since it was read. On a cluster its
# workers need the package, and the files under the same path; here the workers are threads.
here = {"host": "127.0.0.1", "protocol": "tcp", "dashboard_address": None}
with Client(processes=False, n_workers=1, threads_per_worker=2, **here) as client:
    by_dask, _ = scan(folder, executor=client.get_executor(pure=False))
assert by_dask.table["SOPInstanceUID"].equals(index.table["SOPInstanceUID"])
print(by_dask)

# %%
# Ray is the same in two lines; they are not run here, for ``ray.init`` starts a cluster::
#
#     import ray
#     from dicomtorch.integrations.ray import RayExecutor
#
#     ray.init(num_cpus=1)
#     index, report = scan(folder, executor=RayExecutor(num_cpus=1))
#
# What follows knows nothing of where the headers were read.
frames = DicomFrames(index, values="modality")
image, meta = frames[0]
print(image.shape, meta["Modality"])
plt.figure(figsize=(10, 3.6), layout="constrained")
plt.imshow(DicomFrames(index).show_batch(range(4, 96, 8), columns=6, tile=120))
plt.axis("off")
plt.show()
