"""Compiles the program, on first use and whenever a source has changed."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from bench.say import say

HERE = Path(__file__).parent
BUILT = HERE.parents[2] / "build" / "bench" / "load-client"
COMPILE = ("cc", "-std=c11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra")
NO_TLS = b"this program was built without TLS"
TLS = ("-DWITH_TLS", "-lssl", "-lcrypto")


def program() -> Path:
    """Its path. RuntimeError with what the compiler says when there is no program to be had."""
    sources = sorted(HERE.glob("*.c"))
    changed = max(path.stat().st_mtime for path in (*sources, *HERE.glob("*.h")))
    if not BUILT.exists() or BUILT.stat().st_mtime < changed:
        BUILT.parent.mkdir(parents=True, exist_ok=True)
        made = BUILT.with_suffix(f".{os.getpid()}")  # two may build at a time, and a whole one takes its place
        compile_to(made, sources)
        made.replace(BUILT)
    return BUILT


def has_tls() -> bool:
    """Whether it was built with OpenSSL: only without does it hold the words of a refusal."""
    return NO_TLS not in program().read_bytes()


def compile_to(made: Path, sources: list[Path]) -> None:
    """With TLS where OpenSSL's headers are, else without."""
    words = [*COMPILE, *map(str, sources), "-o", str(made)]
    if subprocess.run([*words, *TLS], capture_output=True, check=False).returncode == 0:
        return
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise RuntimeError("the load client is compiled, and there is no `cc`") from error
    if done.returncode:
        raise RuntimeError(f"the load client does not compile:\n{done.stderr}")
    say("the load client was built without TLS: libssl-dev is not installed")
