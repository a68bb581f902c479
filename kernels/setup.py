"""Builds one wheel a platform for every Python from 3.11 on (stable ABI)."""

import os
import shlex

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "dicomtorch_kernels",
            [
                "src/module.c",
                "src/convert.c",
                "src/reduce.c",
                "src/rle.c",
                "src/read.c",
                "src/paint.c",
                "src/fill.c",
            ],
            include_dirs=["src"],
            depends=["src/kernels.h"],
            define_macros=[("Py_LIMITED_API", "0x030B0000")],
            # Without contraction every step is rounded by itself, as NumPy's are: the bits are the same.
            extra_compile_args=[
                *("-std=c11", "-O3", "-ffp-contract=off", "-fno-fast-math", "-Wall", "-Wextra"),
                *shlex.split(os.environ.get("DICOMTORCH_KERNELS_CFLAGS", "")),
            ],
            extra_link_args=shlex.split(os.environ.get("DICOMTORCH_KERNELS_LDFLAGS", "")),
            py_limited_api=True,
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
