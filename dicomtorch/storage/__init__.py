"""Bytes of files, wherever they are; knows no DICOM."""
