"""Build steps pyproject.toml cannot express: the package map, protoc, Cython."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any, ClassVar

from Cython.Build import cythonize
from setuptools import Command, Extension, find_packages, setup
from setuptools.command.build import build

ROOT = Path(__file__).parent.resolve()
COMPILERS_MAX = min(os.cpu_count() or 1, 8)
FLAGS = "-O2", "-Wall", "-Wno-unused-function", "-g0"  # debug information makes a module five times as large
TRACE = os.environ.get("TRUNKLINE_CYTHON_TRACE") == "1"  # coverage and leak-counting builds

PACKAGE_DIRS = {  # the one place where the package map is written down
    "trunkline.api": "protos/trunkline/api",
    "trunkline.core": "core",
    "trunkline.client": "client",
    "trunkline.cli": "cli",
    "trunkline.server": "server",
}

OVER_NGHTTP2 = ("http2", "http2_stream", "http2_wire", "nghttp2_memory")


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


def nghttp2() -> dict[str, list[str]] | None:
    """How to compile and link with libnghttp2, by pkg-config. None, and a line that says why, when it cannot be used: the
    server then has no native transport and runs on grpc.aio."""
    pkg_config = shutil.which("pkg-config")
    missing = "not found: install libnghttp2-dev and pkg-config" if pkg_config is None else _nghttp2_lacks(pkg_config)
    if missing:
        sys.stderr.write(f"trunkline: no native transport: libnghttp2 {missing}\n")
        return None
    found = [_said(f"{pkg_config} {option} libnghttp2").split() for option in ("--cflags", "--libs")]
    return {"extra_compile_args": found[0], "extra_link_args": found[1]}


def _nghttp2_lacks(pkg_config: str) -> str:
    """What is wrong with the library, or nothing. It must have the guards against floods of resets and continuations
    (CVE-2023-44487, CVE-2024-28182), which distributions also give to versions that did not have them: so they are
    looked for, not the version."""
    if subprocess.run([pkg_config, "--exists", "libnghttp2"]).returncode:
        return "not found: install libnghttp2-dev"
    guards = "nghttp2_option_set_stream_reset_rate_limit", "nghttp2_option_set_max_continuations"
    with tempfile.TemporaryDirectory() as folder:
        probe = Path(folder) / "probe.c"
        calls = "(void)&nghttp2_session_change_extpri_stream_priority;" + "".join(f"(void)&{name};" for name in guards)
        probe.write_text(f"#include <nghttp2/nghttp2.h>\nint main(void) {{ {calls} return 0; }}\n")
        compiler = (sysconfig.get_config_var("CC") or "cc").split()
        flags = _said(f"{pkg_config} --cflags --libs libnghttp2").split()
        command = [
            *compiler,
            "-Werror=implicit-function-declaration",
            str(probe),
            *flags,
            "-o",
            str(probe.with_suffix("")),
        ]
        if subprocess.run(command, capture_output=True).returncode:
            return (
                f"{_said(f'{pkg_config} --modversion libnghttp2').strip()} is too old: it lacks {' or '.join(guards)}"
            )
    return ""


def _said(command: str) -> str:
    return subprocess.run(command.split(), check=True, capture_output=True, text=True).stdout


def extensions() -> list[Extension]:
    """One extension per .pyx; those over libnghttp2 only with it, and the server's, which need POSIX, where that is."""
    macros = [("CYTHON_TRACE", "1"), ("CYTHON_TRACE_NOGIL", "1")] if TRACE else []
    library = nghttp2()
    made = []
    folders = ("core", "server") if os.name == "posix" else ("core",)
    for path in sorted(path for folder in folders for path in ROOT.glob(f"{folder}/**/*.pyx")):
        uses = library if path.stem in OVER_NGHTTP2 else {}
        if uses is not None:
            made.append(
                Extension(
                    ".".join(("trunkline", *path.relative_to(ROOT).with_suffix("").parts)),
                    [str(path.relative_to(ROOT))],
                    define_macros=macros,
                    extra_compile_args=[*FLAGS, *uses.get("extra_compile_args", ())],
                    extra_link_args=[*uses.get("extra_link_args", ())],
                )
            )
    return made


setup(
    packages=all_packages(),
    options={"build_ext": {"parallel": COMPILERS_MAX}},
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
