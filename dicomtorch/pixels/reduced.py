"""Which frames may be decoded at less than their resolution, and at which."""

from __future__ import annotations

from dicomtorch.pixels.plan import Plan
from dicomtorch.pixels.resize import resized

MOST_LEVELS = 3


def reduction_levels(plan: Plan) -> int:
    """How often the resolution of a frame is halved before anything else is done with it; 0 for not at all.

    As often as the result is not smaller than what it is resized to, if means of stored values make the same as means
    of the values asked for, or nearly: not through tables and palettes, not where padding, labels or a range that the
    pixels decide are involved.
    """
    if plan.options.decode == "exact" or plan.options.size is None or why_whole(plan):
        return 0
    pixel = plan.frame.pixel
    where = resized(pixel.rows, pixel.columns, plan.options.size)
    for levels in range(MOST_LEVELS, 0, -1):
        factor = 1 << levels
        if -(-pixel.rows // factor) >= where.rows and -(-pixel.columns // factor) >= where.columns:
            return levels
    return 0


def why_whole(plan: Plan) -> str:
    """Why a frame is decoded whole whatever its size; "" if nothing is against less."""
    frame, options = plan.frame, plan.options
    kinds = {mapping.kind for mapping in plan.channels}
    if options.values not in ("modality", "suvbw", "display"):
        return f"values={options.values!r}"
    if frame.segmentation_type:
        return "labels"
    if frame.pixel.is_float or frame.pixel.bits_allocated not in (8, 16):
        return f"(0028,0100) BitsAllocated {frame.pixel.bits_allocated}"
    if not plan.is_affine or not kinds <= {"linear", "sigmoid", "range"}:
        return "lookup tables"
    if "range" in kinds:
        return "a display range that the pixels decide"
    if plan.background is not None:
        return "(0028,0120) PixelPaddingValue"
    if isinstance(options.normalize, str):
        return f"normalize={options.normalize!r}"
    return ""


def whole_notices(plan: Plan) -> list[str]:
    """What to say once of a frame that `decode="reduced"` decodes whole."""
    if plan.options.decode == "exact":
        return []
    reason = why_whole(plan)
    return [f"decode='reduced': frames with {reason} are decoded whole"] if reason else []
