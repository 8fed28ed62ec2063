"""Disks that can be cut off, filled and made read-only: images and memory mounted for a test. Needs root."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class NotHere(Exception):
    """This machine or user cannot do it; the message says why."""


def run(*command: str) -> str:
    """Output of a command that must succeed."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise NotHere(f"{' '.join(command)}: {done.stderr.strip() or done.returncode}")
    return done.stdout


def needs_root(*tools: str) -> None:
    """NotHere unless this is root and the tools are there."""
    if os.geteuid() != 0:
        raise NotHere("needs root, to mount file systems")
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing:
        raise NotHere(f"needs {', '.join(missing)}")


@contextmanager
def mounted(source: str | Path, at: Path, *options: str) -> Iterator[Path]:
    """A file system for as long as the block lasts."""
    at.mkdir(exist_ok=True)
    run("mount", *options, str(source), str(at))
    try:
        yield at
    finally:
        subprocess.run(["umount", "--lazy", str(at)], check=False, capture_output=True)


def ext4_image(path: Path, megabytes: int) -> Path:
    """A file that holds an empty ext4."""
    with path.open("wb") as image:
        image.truncate(megabytes << 20)
    run("mkfs.ext4", "-q", "-F", str(path))
    return path


@contextmanager
def memory_disk(at: Path, megabytes: int) -> Iterator[Path]:
    """A tmpfs of this size."""
    needs_root("mount", "umount")
    with mounted("tmpfs", at, "-t", "tmpfs", "-o", f"size={megabytes}m") as folder:
        yield folder
