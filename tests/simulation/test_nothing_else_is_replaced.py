"""A world replaces clock, chance, disk and network by handing others in: everything else is the shipped module, untouched."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import importlib.util, sys, types
sys.path[:0] = ["tests", "."]
import simulation.scenes  # imports all of it
def attributes():
    return {
        (name, key): id(value)
        for name, module in sorted(sys.modules.items())
        if name.startswith("trunkline.") and isinstance(module, types.ModuleType)
        for key, value in vars(module).items()
        if isinstance(value, (type, types.FunctionType, types.BuiltinFunctionType, int, str, tuple, frozenset))
    } | {
        (name, key, inner): id(value)
        for name, module in sorted(sys.modules.items())
        if name.startswith("trunkline.") and isinstance(module, types.ModuleType)
        for key, shipped in vars(module).items()
        if isinstance(shipped, type) and shipped.__module__ == name
        for inner, value in vars(shipped).items()
        if isinstance(value, (types.FunctionType, property, staticmethod, classmethod))
    }
before = attributes()
for simulate in (simulation.scenes.simulate, simulation.scenes.simulate_handling):
    outcome = simulate(0)
    assert not outcome.broken, outcome.broken
after = attributes()
changed = [key for key in before if after.get(key) != before[key]]
print("changed", changed)
for name, module in sorted(sys.modules.items()):
    if name.startswith("trunkline.") and getattr(module, "__file__", None):
        print(name, module.__file__, module.__spec__.loader.__class__.__name__)
"""
PARTS = {"api": "protos/trunkline/api", "cli": "cli", "client": "client", "core": "core", "server": "server"}


def test_only_what_is_handed_in_is_simulated() -> None:
    root = Path(__file__).parents[2]
    told = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, cwd=root)
    first, *modules = told.stdout.splitlines()
    assert first == "changed []"
    used = {line.split()[0] for line in modules}
    for name in (
        "server.plane",
        "server.journal.files.segment_log",
        "client._connection",
        "core.wire",
        "server.chain.chain",
    ):
        assert f"trunkline.{name}" in used
    for line in modules:
        name, path, loader = line.split()
        assert loader in ("SourceFileLoader", "ExtensionFileLoader"), line
        shipped = Path(path).resolve()
        part = name.split(".")[1]
        installed = "site-packages" in shipped.parts
        assert installed or shipped.is_relative_to(root / PARTS[part]), line
