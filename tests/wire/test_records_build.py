"""streamlog installs whether or not the record codec can be compiled."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def build(where: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run setup.py on a copy of the codec alone, so that nothing here is rebuilt."""
    (where / "streamlog" / "wire").mkdir(parents=True)
    shutil.copy(ROOT / "setup.py", where)
    shutil.copy(ROOT / "streamlog" / "wire" / "records_compiled.py", where / "streamlog" / "wire")
    return subprocess.run(
        [sys.executable, "setup.py", "build_ext", "--build-lib", "out"],
        cwd=where,
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )


def test_failing_compiler_does_not_fail_the_build(tmp_path: Path) -> None:
    """The extension is optional: the interpreted codec takes its place."""
    pytest.importorskip("Cython")
    done = build(tmp_path, CC="false")
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.glob("out/**/*.so"))


def test_missing_cython_does_not_fail_the_build(tmp_path: Path) -> None:
    """An install without build isolation may not have it."""
    hidden = tmp_path / "hidden"
    (hidden / "Cython").mkdir(parents=True)
    (hidden / "Cython" / "__init__.py").write_text("raise ImportError('not here')")
    done = build(tmp_path / "project", PYTHONPATH=str(hidden))
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.glob("project/out/**/*.so"))


def test_uncompiled_module_refuses_to_be_imported(tmp_path: Path) -> None:
    """Even where Cython is installed: its source would run, a hundred times too slowly and with other semantics."""
    program = f"import runpy; runpy.run_path({str(ROOT / 'streamlog' / 'wire' / 'records_compiled.py')!r})"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0
    assert "ImportError" in done.stderr or "ModuleNotFoundError" in done.stderr


def test_build_products_are_ignored_by_git() -> None:
    """Neither the generated C nor the extension is ever committed."""
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert {"*.c", "*.so", "build/"} <= set(ignored)
