"""PET: one SUV factor for a series, decided when all of its images are known, and again when one comes or goes.

A decay-corrected series refers to one moment (PS3.3 C.8.9.1): Series Time, unless some image of the series was acquired
before; then post-processing has overwritten it, and the moment is the start of the scan by the first image.
"""

from __future__ import annotations

import numpy as np

from dicomtorch.index.codes import numbered, pieces
from dicomtorch.index.columns import Table, Texts

_NOTHING_LEFT = "RadionuclideHalfLife (0018,1075): nothing of the dose is left at the scan"
_NO_START = (
    "SeriesTime (0008,0031) is after AcquisitionTime (0008,0032) of the first image, and nothing else says when the "
    "scan began"
)
_SERIES = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID")


def set_suv_factors(frames: Table) -> None:
    """Sets `suv_factor` and `suv_problem` of the images that share a moment with the others of their series."""
    half_life = np.asarray(frames["suv_half_life"])
    decaying = np.flatnonzero(np.isfinite(half_life))
    if not len(decaying):
        return
    texts = frames["suv_problem"]
    assert isinstance(texts, Texts)
    factors, problems = np.array(frames["suv_factor"]), texts.tolist()
    names = ("suv_at_injection", "suv_series_start", "suv_acquisition", "suv_scan_start")
    at_injection, start, acquired, scan = (np.asarray(frames[name]) for name in names)
    codes = numbered([frames[name].take(decaying) for name in _SERIES], len(decaying))
    for rows in pieces(codes, decaying):
        first = int(rows[np.argmin(acquired[rows])])
        overwritten = acquired[first] < start[first]
        moment = scan[first] if overwritten else start[first]
        with np.errstate(over="ignore"):
            factors[rows] = at_injection[rows] * np.exp2(moment / half_life[rows])
        problem = (problems[first] or _NO_START) if np.isnan(moment) else ""
        if np.isinf(factors[rows]).any():
            factors[rows], problem = np.nan, _NOTHING_LEFT
        for row in rows.tolist():
            problems[row] = problem
    frames["suv_factor"], frames["suv_problem"] = factors, Texts.of(problems)
