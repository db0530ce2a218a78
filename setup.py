"""Builds the record codec as an extension where Cython and a C compiler are; installs without it elsewhere.

Everything else about the package is in pyproject.toml. The extension is optional on purpose: without it streamlog
runs on records_interpreted.py, and `streamlog doctor` says so.
"""

from __future__ import annotations

from setuptools import Extension, setup

SOURCE = "streamlog/wire/records_compiled.py"

try:
    from Cython.Build import cythonize
except ImportError:
    extensions = []
else:
    extensions = cythonize([Extension("streamlog.wire.records_compiled", [SOURCE])], language_level=3, quiet=True)
    for extension in extensions:
        extension.optional = True  # set here, because cythonize does not carry it over

setup(ext_modules=extensions)
