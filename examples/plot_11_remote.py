"""
Frames of a server
==================

``DicomFrames("s3://bucket/studies")``, ``gs://``, ``az://`` and ``https://`` read the bytes of single frames, and
nothing is downloaded first. Here a server on this machine (``serve.py`` beside this file) stands for a store, and says
what it was asked for.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
from make_data import write_cines
from serve import Server

from dicomtorch import DicomClips, DicomFrames, FrameLoader

folder = Path(tempfile.mkdtemp())
write_cines(folder, patients=6, frames=24, size=128)  # 390 kB each
server = Server(folder / "images")

# %%
# The scan asks for the beginning of each object, where its header is.
frames = DicomFrames(server.address)
of_scan = list(server.asked)
print(f"{len(frames)} frames, {sum(end - first for _, first, end in of_scan) >> 10} KiB asked for")

# %%
# A clip of eight frames is one request.
clips = DicomClips(frames.index, 8, clips="random")
server.asked.clear()
clip, meta = clips[0, 9]
of_clip = list(server.asked)
print(clip.shape, of_clip)

# %%
# A batch in random order asks for its frames, many at once; those that lie near each other come in one request.
server.asked.clear()
images, meta = next(iter(FrameLoader(frames, batch_size=16, shuffle=True)))
of_batch = list(server.asked)
print(images.shape)

# %%
# Where the bytes lie that were asked for.
names = sorted({name for name, _, _ in of_scan})
sizes = [(folder / "images" / name).stat().st_size / 1024 for name in names]
figure, axis = plt.subplots(figsize=(10, 3.2), layout="constrained")
axis.barh(names, sizes, color="0.9", label="the objects")
for asked, color, label in (
    (of_batch, "tab:blue", "by the loader, which asks for whole batches ahead"),
    (of_scan, "tab:green", "by the scan"),
    (of_clip, "tab:orange", "by the clip"),
):
    spans = [((end - first) / 1024, first / 1024) for _, first, end in asked]
    wide, starts = zip(*spans, strict=True)
    axis.barh(
        [name for name, _, _ in asked], wide, left=starts, height=0.5, color=color, label=label
    )
axis.set(xlabel="KiB from the beginning of the object", ylim=(6.6, -0.7))
axis.legend(ncols=4, loc="lower center", frameon=False, fontsize=8)
plt.show()

# %%
# With ``range_cache`` what came is kept on this machine, and later epochs ask for nothing.
kept = {"range_cache": folder / "kept"}
frames = DicomFrames(server.address, storage_options=kept)
requests = []
for _ in range(2):
    server.asked.clear()
    seen = sum(len(images) for images, _ in FrameLoader(frames, batch_size=16))
    requests.append(len(server.asked))
    assert seen == len(frames)
print("requests for frames in two epochs:", requests)
assert requests[0] > 0 == requests[1]
