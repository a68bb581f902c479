"""Bytes of one file to elements, and to where its frames are."""
