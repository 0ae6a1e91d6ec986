"""What this machine is: its GPU, and the versions of everything that takes part."""

import ctypes
import datetime
import importlib.metadata
import os
import re
import shutil
import subprocess

LIBCUDA = ("libcuda.so.1", "libcuda.so")
CAPABILITY = (75, 76)  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR


def output(command, environment=None):
    """Standard output, or None when the program is not there or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


# ---- the device --------------------------------------------------------------------------------


def from_driver(load=ctypes.CDLL):
    """(device, None) or (None, reason), from the driver's library: cuInit, then device 0."""
    cuda = None
    for name in LIBCUDA:
        try:
            cuda = load(name)
            break
        except OSError:
            pass
    if cuda is None:
        return None, "the driver's library libcuda is not here"
    code = cuda.cuInit(0)
    if code != 0:
        return None, f"the driver is here, but cuInit says {code}"
    count = ctypes.c_int(0)
    cuda.cuDeviceGetCount(ctypes.byref(count))
    if count.value < 1:
        return None, "the driver is here, but it sees no device"
    name, size = ctypes.create_string_buffer(256), ctypes.c_size_t(0)
    cuda.cuDeviceGetName(name, 256, 0)
    cuda.cuDeviceTotalMem_v2(ctypes.byref(size), 0)
    capability = [ctypes.c_int(0), ctypes.c_int(0)]
    for number, attribute in zip(capability, CAPABILITY):
        cuda.cuDeviceGetAttribute(ctypes.byref(number), attribute, 0)
    return {"name": name.value.decode(), "memory_bytes": size.value, "count": count.value,
            "capability": "{0.value}.{1.value}".format(*capability)}, None


def from_smi(run=output):
    """The same from nvidia-smi, with the driver's version."""
    text = run(["nvidia-smi", "--query-gpu=name,memory.total,driver_version",
                "--format=csv,noheader,nounits"])
    return parse_smi(text) if text else (None, "nvidia-smi is not here or lists no device")


def parse_smi(text):
    lines = [line.split(", ") for line in text.splitlines() if line.count(", ") == 2]
    if not lines:
        return None, f"nvidia-smi lists no device: {text.strip()[:200]}"
    name, mib, driver = lines[0]
    memory = int(mib) * 2**20 if mib.isdigit() else None
    return {"name": name, "memory_bytes": memory, "count": len(lines), "driver": driver}, None


def find_device(driver=from_driver, smi=from_smi):
    """(device, None), or (None, why there is none)."""
    first, why_first = driver()
    second, why_second = smi()
    if first is None and second is None:
        return None, f"no GPU: {why_first}; {why_second}"
    return {"driver": None, "capability": None, **(second or {}), **(first or {})}, None


# ---- versions ----------------------------------------------------------------------------------


def cuda_version(root):
    text = output([str(root / "bin" / "nvcc"), "--version"]) or ""
    found = re.search(r"release [\d.]+, V([\d.]+)", text)
    return found[1] if found else None


def gpu_arch(root, capability):
    """"90" for a device of capability "9.0" where this toolkit compiles for it, else None: then the
    kernels are compiled for all architectures, and newer ones translate them."""
    known = output([str(root / "bin" / "nvcc"), "--list-gpu-arch"]) or ""
    arch = (capability or "").replace(".", "")
    return arch if f"compute_{arch}" in known.split() else None


def cudnn_version(include):
    """From cudnn_version.h: nothing has to be loaded."""
    try:
        text = (include / "cudnn_version.h").read_text(encoding="utf-8")
        parts = [re.search(rf"#define CUDNN_{part}\s+(\d+)", text)[1]
                 for part in ("MAJOR", "MINOR", "PATCHLEVEL")]
    except (OSError, TypeError):
        return None
    return ".".join(parts)


def torch_version(python):
    if not python:
        return None
    return output([python, "-c", "import importlib.metadata as m; print(m.version('torch'))"])


def mpi_facts(environment):
    """{version, cuda_aware} of the mpirun that runs here, or None."""
    path = environment.get("PATH")
    if not shutil.which("mpirun", path=path):
        return None
    version = (output(["mpirun", "--version"], environment) or "").splitlines()
    # Only Open MPI answers this; of another MPI it stays unknown, and counts as not aware.
    built = output(["ompi_info", "--parsable", "--all"], environment) or ""
    aware = re.search(r"mpi_built_with_cuda_support:value:(true|false)", built)
    return {"version": version[0] if version else "unknown",
            "cuda_aware": bool(aware) and aware[1] == "true"}


def commit(root):
    """The commit of the checkout, "…-changed" where files differ from it; None outside git."""
    git = ["git", "-c", "safe.directory=*", "-C", str(root)]
    head = output([*git, "rev-parse", "HEAD"])
    changed = output([*git, "status", "--porcelain", "--untracked-files=no"])
    return head and head + ("-changed" if changed else "")


def processor():
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            name = next((line.split(":", 1)[1].strip() for line in file
                         if line.startswith("model name")), None)
    except OSError:
        name = None
    return {"name": name, "cores": len(os.sched_getaffinity(0))}


def meson_version():
    try:
        return importlib.metadata.version("meson")
    except importlib.metadata.PackageNotFoundError:
        return output(["meson", "--version"])


def facts(root, toolkit, parts, torch_python, run_environment, device):
    """Versions of everything, for the report. What is unknown is None."""
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "commit": commit(root),
        "cuda": cuda_version(toolkit) if toolkit else None,
        "gpu_arch": gpu_arch(toolkit, device.get("capability")) if toolkit else None,
        "cudnn": cudnn_version(parts["cudnn"][0]) if parts else None,
        "pytorch": torch_version(torch_python),
        "meson": meson_version(),
        "mpi": mpi_facts(run_environment),
        "processor": processor(),
    }
