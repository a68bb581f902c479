"""
Tiles of whole slide images
===========================

Squares of tissue at one resolution, and the thumbnail that says where they are.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.collections import PatchCollection
from matplotlib.patches import Rectangle
from slides import write_slide

from dicomtorch import DicomSlides, DicomTiles, FrameLoader

folder = Path(tempfile.mkdtemp())
for number in range(2):
    write_slide(folder / str(number), number)

# %%
# What there is: levels of each slide, micrometres per pixel.
slides = DicomSlides(folder)
print(slides)
print(slides[0].levels[0])

# %%
# Tiles with at least half of tissue; bare glass is left out.
tiles = DicomTiles(slides[:1], 32, mpp=0.5, tissue=0.5)
print(tiles)
thumbnail, inside = slides[0].region(1, 0, 0, 256, 384)
figure, (left, right) = plt.subplots(
    1, 2, figsize=(11, 4), layout="constrained", width_ratios=(2, 1)
)
left.imshow(thumbnail.permute(1, 2, 0))
corners = zip(tiles.index.column("column") / 2, tiles.index.column("row") / 2, strict=True)
squares = [Rectangle(corner, 16, 16) for corner in corners]
left.add_collection(PatchCollection(squares, facecolor="none", edgecolor="tab:green"))
left.set_title(f"{len(tiles)} tiles on a thumbnail")
right.imshow(tiles.show_batch(range(0, 24), columns=4, tile=64))
right.set_title("the first of them")
for axis in (left, right):
    axis.axis("off")
plt.show()

# %%
# Batches are uint8, as the files have them; split slides, never tiles.
images, meta = next(iter(FrameLoader(tiles, batch_size=16, shuffle=True)))
print(images.shape, images.dtype, meta["x_mm"][:2], meta["tissue"][:2])
