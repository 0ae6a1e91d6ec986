"""Where the libraries are: Debian packages unpacked in a folder, the CUDA toolkit, Python packages.

Two environments come out of it: one to build in, one to run our programs in. Python itself runs in
neither: the libraries of another system could stand in its way.
"""

import glob
import importlib.util
import json
import os
import pathlib
import shutil
import subprocess
import sys

# What the backend links: header, library.
CUDA_PARTS = (
    ("cuda_runtime_api.h", "cudart"),
    ("cublasLt.h", "cublasLt"),
    ("cudnn.h", "cudnn"),
)


# What cuDNN loads by itself when a program runs. Where no folder of ours has it, the system's may.
LOADED_LATER = ("nvrtc",)


LIBRARY_FOLDERS = ("lib64", "lib", "targets/x86_64-linux/lib")


class Missing(Exception):
    """What is not on this machine, and how to get it."""


def joined(first, environment, name):
    """`first` before what a search path says already."""
    return os.pathsep.join([*map(str, first), *filter(None, [environment.get(name)])])


def prepend(environment, name, folders):
    if folders:
        environment[name] = joined(folders, environment, name)


# ---- unpacked packages -------------------------------------------------------------------------


def library_folder(deps):
    """DEPS/usr/lib/x86_64-linux-gnu, or whatever this processor's is called; None without DEPS."""
    found = sorted(glob.glob(str(deps / "usr" / "lib" / "*-linux-gnu*")))
    return pathlib.Path(found[0]) if found else None


def deps_build(deps, environment):
    """Compiler, linker and pkg-config look into the folder first."""
    lib = library_folder(deps)
    if not lib:
        return
    usr = deps / "usr"
    prepend(environment, "PATH", [usr / "bin"])
    prepend(environment, "CPATH", [usr / "include"])
    prepend(environment, "LIBRARY_PATH", [lib])
    # Libraries that ours need, found when linking only; --rpath-link writes nothing down.
    flags = f"-Wl,-rpath-link,{lib}"
    environment["LDFLAGS"] = " ".join(filter(None, [flags, environment.get("LDFLAGS")]))
    if (usr / "bin" / "pkg-config").exists():
        environment["PKG_CONFIG"] = str(usr / "bin" / "pkg-config")
    environment["PKG_CONFIG_LIBDIR"] = os.pathsep.join(
        map(str, [lib / "pkgconfig", usr / "share" / "pkgconfig"])
    )
    environment["PKG_CONFIG_SYSROOT_DIR"] = str(deps)


def deps_run(deps, environment):
    lib = library_folder(deps)
    if not lib:
        return
    usr = deps / "usr"
    prepend(environment, "PATH", [usr / "bin"])
    prepend(environment, "LD_LIBRARY_PATH", [lib])
    openmpi = lib / "openmpi" / "lib"
    if openmpi.is_dir():
        # Open MPI was built for /usr; these say where each of its places is now.
        environment.update(
            OPAL_PREFIX=str(usr),
            OPAL_LIBDIR=str(openmpi),
            OPAL_PKGLIBDIR=str(openmpi / "openmpi3"),
            OPAL_DATADIR=str(usr / "share"),
            OPAL_PKGDATADIR=str(usr / "share" / "openmpi"),
            OPAL_SYSCONFDIR=str(deps / "etc"),
            PMIX_INSTALL_PREFIX=str(lib / "pmix2"),
            PMIX_PKGLIBDIR=str(lib / "pmix2" / "lib" / "pmix"),
            PMIX_PKGDATADIR=str(lib / "pmix2" / "share" / "pmix"),
            OMPI_MCA_plm="isolated",  # one machine; the other ways to start want ssh
        )


# ---- CUDA --------------------------------------------------------------------------------------


def toolkit():
    """The folder of the CUDA toolkit whose nvcc is first at hand, or None."""
    homes = [os.environ.get(name) for name in ("CUDA_HOME", "CUDA_PATH")]
    places = [shutil.which("nvcc")] + [f"{home}/bin/nvcc" for home in homes if home]
    places += ["/usr/local/cuda/bin/nvcc", *sorted(glob.glob("/usr/local/cuda-*/bin/nvcc"))[::-1]]
    for place in places:
        if place and os.access(place, os.X_OK):
            return pathlib.Path(place).resolve().parents[1]
    return None


def python_packages():
    """Folders of NVIDIA's Python packages (nvidia-cudnn and friends) that this Python knows."""
    try:
        found = importlib.util.find_spec("nvidia")
    except (ImportError, ValueError):
        found = None
    places = list(found.submodule_search_locations or []) if found else []
    return [path for place in places for path in sorted(pathlib.Path(place).iterdir())
            if path.is_dir()]


def find_part(roots, header, library):
    """(include folder, library file) of the first root that has both. The file may lack the plain
    name lib….so that a linker wants: Python packages bring lib….so.N alone."""
    for root in roots:
        for include in ("include", "targets/x86_64-linux/include"):
            for lib in LIBRARY_FOLDERS:
                if not (root / include / header).is_file():
                    continue
                plain = root / lib / f"lib{library}.so"
                files = [plain] if plain.exists() else sorted(plain.parent.glob(plain.name + ".*"))
                if files:
                    return root / include, files[0]
    return None


def cuda_parts(roots):
    """{library: (include folder, library file)} of all CUDA_PARTS. Raises Missing."""
    parts = {}
    for header, library in CUDA_PARTS:
        parts[library] = find_part(roots, header, library)
        if not parts[library]:
            raise Missing(
                f"{header} with lib{library} is neither in the CUDA toolkit nor in a Python "
                f"package (looked in {', '.join(map(str, roots))}); install "
                "the toolkit with cuDNN, or the Python package nvidia-cudnn-cu12 or -cu13"
            )
    return parts


def loaded_later(roots):
    """The folders of LOADED_LATER, as far as they are found."""
    found = []
    for library in LOADED_LATER:
        files = [file for root in roots for lib in LIBRARY_FOLDERS
                 for file in sorted((root / lib).glob(f"lib{library}.so*"))]
        found += [file.parent for file in files[:1]]
    return found


def link_names(parts, links):
    """Fills `links`: the plain name of every library that has none."""
    links.mkdir(parents=True, exist_ok=True)
    for library, (_, file) in parts.items():
        if file.name != f"lib{library}.so":
            link = links / f"lib{library}.so"
            link.unlink(missing_ok=True)
            link.symlink_to(file)


def cuda_environment(environment, parts, links, root):
    """What building needs of the parts; `links` is the folder of link_names(). Returns the folders
    of the libraries."""
    folders, includes = [], []
    for include, file in parts.values():
        folders += [file.parent] if file.parent not in folders else []
        includes += [include] if include not in includes else []
    prepend(environment, "LIBRARY_PATH", [links, *folders])
    prepend(environment, "CPATH", includes)
    prepend(environment, "PATH", [root / "bin"])
    return folders


def has_mpi(environment):
    """Can meson find an MPI? It asks pkg-config, then the compiler's wrapper."""
    ask = [environment.get("PKG_CONFIG", "pkg-config"), "--exists", "ompi-c"]
    try:
        if subprocess.run(ask, env=environment, capture_output=True).returncode == 0:
            return True
    except OSError:
        pass
    return shutil.which("mpicc", path=environment.get("PATH")) is not None


# ---- both --------------------------------------------------------------------------------------


def environments(deps, links):
    """(build, run, parts): two environments and where CUDA's parts are. Raises Missing."""
    root = toolkit()
    if not root:
        raise Missing("there is no nvcc, neither in PATH nor in /usr/local/cuda; install CUDA 12 "
                      "or 13, or name its folder in CUDA_HOME")
    roots = [root, *python_packages()]
    parts = cuda_parts(roots)
    build, run = dict(os.environ), dict(os.environ)
    deps_build(deps, build)
    deps_run(deps, run)
    folders = cuda_environment(build, parts, links, root)
    # A toolkit's own folder is known to the system's loader or not: naming it does no harm.
    later = [folder for folder in loaded_later(roots) if folder not in folders]
    prepend(run, "LD_LIBRARY_PATH", [*folders, *later])
    run["PATH"] = joined([root / "bin"], run, "PATH")
    if os.geteuid() == 0:
        run.update(OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
    return build, run, parts


def description(root, build, parts):
    """What a build folder depends on beside the sources, as text."""
    names = ("CC", "CPATH", "LDFLAGS", "LIBRARY_PATH", "PKG_CONFIG_LIBDIR", "PKG_CONFIG_PATH")
    return json.dumps({"root": str(root), "environment": {name: build.get(name) for name in names},
                       "parts": {library: str(file) for library, (_, file) in parts.items()}},
                      indent=1)


def python_with_torch():
    """A Python that can import torch, or None. Looks for the package; does not load it."""
    look = "import importlib.util, sys; sys.exit(importlib.util.find_spec('torch') is None)"
    for python in (sys.executable, "python3", "/usr/bin/python3"):
        path = shutil.which(python)
        if path and subprocess.run([path, "-c", look], capture_output=True).returncode == 0:
            return path
    return None
