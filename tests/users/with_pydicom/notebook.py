"""The same with pydicom and matplotlib."""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pydicom
from matplotlib.widgets import Slider
from pydicom.pixels import apply_rescale

paths = sorted(Path(sys.argv[1]).rglob("*.dcm"))


def picture(path):
    dcm = pydicom.dcmread(path)
    values = apply_rescale(dcm.pixel_array, dcm)
    return np.clip((values + 600 + 750) / 1500, 0, 1)


figure, axes = plt.subplots()
shown = axes.imshow(picture(paths[0]), cmap="gray", vmin=0, vmax=1)
slider = Slider(figure.add_axes([0.2, 0.02, 0.6, 0.03]), "frame", 0, len(paths) - 1, valstep=1)


def turn(_):
    shown.set_data(picture(paths[int(slider.val)]))
    figure.canvas.draw_idle()


slider.on_changed(turn)
figure.canvas.mpl_connect("scroll_event", lambda event: slider.set_val(slider.val + event.step))
figure.savefig(sys.argv[2])
figure, grid = plt.subplots(2, 3)
for number, (cell, path) in enumerate(zip(grid.flat, paths, strict=False)):
    cell.imshow(picture(path), cmap="gray", vmin=0, vmax=1)
    cell.set_title(str(number))
    cell.axis("off")
figure.savefig(sys.argv[2])
print(len(paths))
