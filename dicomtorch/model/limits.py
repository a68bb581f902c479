"""What a file may claim before it is refused."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """What damaged or hostile input may cost; every error that comes of one names its field.

    `scan(folder, limits=Limits(...))` makes an index with others; reading and decoding admit what the scan admitted.

    Attributes:
        header_bytes: Of a header that are walked; per-frame groups of some 100,000 frames fit.
        elements: Of a header, in sequences too.
        items: Of all sequences of a header, and of the fragments of what is walked as one.
        depth: Of sequences in sequences.
        text_bytes: Of one value that is kept.
        frames_per_file: 1-bit frames of a few pixels make many rows of few bytes.
        pixels_per_frame: Rows x Columns; beyond any known detector.
        samples_per_pixel: Samples per Pixel.
        decoded_bytes_per_frame: Of the stored values of a frame.
        inflated_bytes: Of a deflated data set or member of an archive, inflated; more bytes than that are not read.
        inflated_ratio: Inflated bytes for one compressed byte, beyond the first 64 KiB; deflate itself ends at 1,032.
        archive_members: Of a zip or tar archive.
        archive_bytes: Of all deflated members of an archive, inflated; each has `inflated_bytes` and `inflated_ratio`.
        tiles: Of a JPEG 2000 or HTJ2K stream, for which decoders allocate before they look.
        contour_points: Of one contour of an RTSTRUCT.
        header_seconds: CPU time for a header, looked at while it is walked.
        header_seconds_per_16_mib: The same, added for each 16 MiB walked.
        decode_seconds: For a frame, where it is decoded in a child process (`isolation="process"`).
        decode_memory_bytes: That decoding a frame may take, there and on Linux.
    """

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
    archive_members: int = 1_000_000
    archive_bytes: int = 1 << 42
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
