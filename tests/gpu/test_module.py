#!/usr/bin/env python3
"""The cuda backend as a module: it can be loaded, shows its row alone, holds code for the GPUs that
it should; and what the real program says where no GPU is.
"""

import ctypes
import os
import pathlib
import re
import subprocess
import unittest

import fake_program  # noqa: F401  first: it finds the modules below
import launch
import tap

BUILD = pathlib.Path(os.environ["PT_BUILD_ROOT"])
MODULE = BUILD / "src" / "backend" / "pipetrain-cuda.so"
PROGRAM = BUILD / "src" / "app" / "pipetrain"
SMALL = [launch.LENET5, "--dataset=synthetic", "--samples=8", "--steps=1", "--batch=4"]


def output(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def run(*arguments):
    command = [PROGRAM, *SMALL, "--eval-every=0", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


class Module(unittest.TestCase):
    def test_shows_its_row_alone(self):
        lines = output("nm", "-D", "--defined-only", MODULE).splitlines()
        names = [line.split()[-1] for line in lines]
        self.assertEqual(names, ["pt_backend_cuda"])

    def test_loads_without_a_driver(self):
        module = ctypes.CDLL(str(MODULE), os.RTLD_NOW | os.RTLD_LOCAL)
        name = ctypes.c_char_p.in_dll(module, "pt_backend_cuda")  # the row's first member
        self.assertEqual(name.value, b"cuda")

    def test_has_code_for_gpus(self):
        sections = output("readelf", "-S", "-W", MODULE)
        size = re.search(r"\.nv_fatbin +PROGBITS +\w+ +\w+ +(\w+)", sections)
        self.assertIsNotNone(size, sections)
        self.assertGreater(int(size[1], 16), 100_000)

    def test_program_needs_no_cuda(self):
        needed = output("readelf", "-d", PROGRAM)
        self.assertIn("NEEDED", needed)
        self.assertIsNone(re.search(r"NEEDED.*lib(cu|nv)", needed), needed)

    # ---- where no GPU is ----------------------------------------------------------------------

    def no_driver(self):
        try:
            ctypes.CDLL("libcuda.so.1")
        except OSError:
            return
        self.skipTest("this machine has an NVIDIA driver")

    def test_cuda_is_refused(self):
        self.no_driver()
        ended = run("--backend=cuda")
        self.assertEqual(ended.returncode, 2, ended)
        self.assertEqual(len(ended.stderr.splitlines()), 1, ended)
        self.assertRegex(ended.stderr, "no CUDA device: .*no NVIDIA driver.*--backend onednn")

    def test_auto_takes_a_cpu(self):
        self.no_driver()
        ended = run("--backend=auto")
        self.assertEqual(ended.returncode, 0, ended)
        self.assertRegex(ended.stdout.splitlines()[0], r"\| (oneDNN|ref)")

    def test_precisions_of_cpus(self):
        for backend in ("auto", "ref"):
            with self.subTest(backend):
                ended = run(f"--backend={backend}", "--precision=bf16")
                self.assertEqual(ended.returncode, 2, ended)
                self.assertRegex(ended.stderr, "(?s)fp32")


if __name__ == "__main__":
    tap.main()
