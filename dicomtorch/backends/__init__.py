"""Decoders: encoded bytes and an `ImagePixel` in, stored values out."""
