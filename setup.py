"""Build steps pyproject.toml cannot express: the package map, protoc, Cython."""

from __future__ import annotations

import os
import shutil
import sysconfig
from pathlib import Path
from typing import Any, ClassVar

from Cython.Build import cythonize
from setuptools import Command, Extension, find_packages, setup
from setuptools.command.build import build

ROOT = Path(__file__).parent.resolve()
TRACE = os.environ.get("TRUNKLINE_CYTHON_TRACE") == "1"  # coverage and leak-counting builds

PACKAGE_DIRS = {  # the one place where the package map is written down
    "trunkline.api": "protos/trunkline/api",
    "trunkline.core": "core",
    "trunkline.client": "client",
    "trunkline.cli": "cli",
    "trunkline.server": "server",
}


def all_packages() -> list[str]:
    """Name every package of the five portions, so that a new one cannot be missing from the wheel."""
    return [
        name
        for package, where in PACKAGE_DIRS.items()
        for name in (package, *(f"{package}.{sub}" for sub in find_packages(where)))
    ]


def link_package_root() -> Path:
    """Make a tree in which trunkline.core really is trunkline/core, for Cython and mypy."""
    root = ROOT / "build" / "pkgroot"
    for package, where in PACKAGE_DIRS.items():
        link = root.joinpath(*package.split("."))
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink():
            link.symlink_to(os.path.relpath(ROOT / where, link.parent), target_is_directory=True)
    return root


def protoc_plugin(name: str) -> str:
    """Name a protoc plugin by path, so that PATH need not hold this environment."""
    search = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])
    path = shutil.which(f"protoc-gen-{name}", path=search)
    if path is None:
        raise SystemExit(f"protoc-gen-{name} not found: install mypy-protobuf")
    return f"--plugin=protoc-gen-{name}={path}"


class BuildProtos(Command):
    """Generate Python and type stubs beside each .proto."""

    user_options: ClassVar[list[tuple[str, str, str]]] = []
    editable_mode = False  # setuptools' SubCommand protocol
    build_lib: str | None = None

    def initialize_options(self) -> None: ...

    def finalize_options(self) -> None:
        self.set_undefined_options("build_py", ("build_lib", "build_lib"))

    def get_source_files(self) -> list[str]:
        return sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("protos/**/*.proto"))

    def get_outputs(self) -> list[str]:
        return []

    def get_output_mapping(self) -> dict[str, str]:
        return {}

    def run(self) -> None:
        import grpc_tools
        from grpc_tools import protoc

        well_known = Path(grpc_tools.__file__).parent / "_proto"
        code = protoc.main(
            [
                "protoc",
                "-Iprotos",
                f"-I{well_known}",
                protoc_plugin("mypy"),
                protoc_plugin("mypy_grpc"),
                "--python_out=protos",
                "--grpc_python_out=protos",
                "--mypy_out=quiet:protos",
                "--mypy_grpc_out=quiet:protos",
                *(str(Path(path).relative_to("protos")) for path in self.get_source_files()),
            ]
        )
        if code:
            raise SystemExit(f"protoc failed: {code}")


class Build(build):
    """Run protoc before build_py; inside build_py an editable install would swallow its failure."""

    sub_commands: ClassVar[list[Any]] = [("build_protos", None), *build.sub_commands]


def extensions() -> list[Extension]:
    """One extension per core/*.pyx."""
    macros = [("CYTHON_TRACE", "1"), ("CYTHON_TRACE_NOGIL", "1")] if TRACE else []
    return [
        Extension(
            f"trunkline.core.{path.stem}",
            [str(path.relative_to(ROOT))],
            define_macros=macros,
            extra_compile_args=["-O2", "-Wall", "-Wno-unused-function"],
        )
        for path in sorted(ROOT.glob("core/*.pyx"))
    ]


setup(
    packages=all_packages(),
    package_dir=PACKAGE_DIRS,
    cmdclass={"build": Build, "build_protos": BuildProtos},
    ext_modules=cythonize(
        extensions(),
        include_path=[str(link_package_root())],
        build_dir=None if TRACE else "build/cython",  # coverage wants the .c beside the .pyx
        compiler_directives={
            "language_level": 3,
            "binding": True,
            "embedsignature": True,
            "embedsignature.format": "python",
            "linetrace": TRACE,
        },
        annotate=os.environ.get("TRUNKLINE_CYTHON_ANNOTATE") == "1",
    ),
)
