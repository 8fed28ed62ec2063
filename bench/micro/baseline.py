"""An empty Cython method, built as core is built and called as core is called."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

PEER = "empty Cython method call"

_HERE = Path(__file__).parent
_BUILT = _HERE.parents[1] / "build" / "bench"
_BUILD = """
import sys
from Cython.Build import cythonize
from setuptools import Extension, setup
source, where = sys.argv[1:]
sys.argv[1:] = ["-q", "build_ext", "--build-lib", where, "--build-temp", where]
directives = {"language_level": 3, "binding": True}
setup(name="nothing", ext_modules=cythonize(
    Extension("nothing", [source], extra_compile_args=["-O2"]),
    build_dir=where, compiler_directives=directives, quiet=True,
))
"""


def empty_method() -> Callable[[], None]:
    """The bound method that does nothing. Compiled on first use, into build/bench."""
    path = _BUILT / f"nothing{sysconfig.get_config_var('EXT_SUFFIX')}"
    source = _HERE / "nothing.pyx"
    if not path.exists() or path.stat().st_mtime < source.stat().st_mtime:
        _BUILT.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-c", _BUILD, source.name, str(_BUILT)]
        subprocess.run(command, check=True, cwd=_HERE, stdout=subprocess.DEVNULL)
    spec = importlib.util.spec_from_file_location("nothing", path)
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    method: Callable[[], None] = module.Nothing().call
    return method
