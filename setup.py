"""Builds the record codec as an extension where a C compiler is; installs without it where none is."""

from __future__ import annotations

from setuptools import Extension, setup

try:
    from Cython.Build import cythonize
except ImportError:
    extensions = []
else:
    extensions = cythonize(
        [Extension("streamlog.wire.records_compiled", ["streamlog/wire/records_compiled.py"], optional=True)],
        language_level=3,
        quiet=True,
    )

setup(ext_modules=extensions)
