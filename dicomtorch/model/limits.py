"""What a file may claim before it is refused."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """What damaged or hostile input may cost; every error that comes of one names its field."""

    header_bytes: int = 64 << 20
    elements: int = 2_000_000
    items: int = 2_000_000
    depth: int = 64
    text_bytes: int = 64 << 10
    frames_per_file: int = 2_000_000
    pixels_per_frame: int = 1 << 28
    samples_per_pixel: int = 4
    decoded_bytes_per_frame: int = 1 << 30
    inflated_bytes: int = 4 << 30
    inflated_ratio: int = 1_100
    tiles: int = 65_535
    contour_points: int = 4_000_000
    header_seconds: float = 1.0
    header_seconds_per_16_mib: float = 1.0
    decode_seconds: float = 60.0
    decode_memory_bytes: int = 4 << 30

    def fragments(self, number_of_frames: int) -> int:
        """The most fragments that `number_of_frames` frames may have."""
        return number_of_frames * 64 + 4_096


LIMITS = Limits()
