"""A notebook: what a folder holds, a slider over its frames, a grid of them."""

import sys

from dicomtorch import DicomFrames

frames = DicomFrames(sys.argv[1], window="lung")
assert frames._repr_html_().startswith("<")
frames.show().savefig(sys.argv[2])
frames.show_batch(range(6)).save(sys.argv[2])
print(len(frames))
