#!/usr/bin/env python3
"""Small runs under valgrind's memcheck: no invalid or uninitialised access, and nothing leaks.

valgrind does not know every instruction of new processors. Where the program under test uses one of
these, it is built once more without -march=native, beside the other build.
"""

import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import unittest

import launch  # first: it finds the modules below
import program
import small_model
import tap

FOUND = 99  # valgrind's exit status when it found something; the program has no such status
MEMCHECK = [
    "valgrind",
    "--quiet",
    f"--error-exitcode={FOUND}",
    "--leak-check=full",
    "--show-leak-kinds=definite",
    "--errors-for-leak-kinds=definite",
    "--num-callers=40",
    f"--suppressions={program.ROOT}/tests/valgrind.supp",
]


def plain_program(folder):
    """The program, built without -march=native in `folder`; without CUDA, which no run here uses."""
    commands = (
        ["meson", "setup", folder, program.ROOT, "--buildtype=debugoptimized"]
        + ["-Dnative=false", "-Dtests=disabled", "-Dcuda=disabled"],
        ["ninja", "-C", folder],
    )
    for command in commands:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        if done.returncode != 0:
            raise AssertionError(done.stdout)
    (found,) = [path for path in folder.rglob("pipetrain") if path.is_file()]
    return str(found)


@unittest.skipUnless(shutil.which("valgrind"), "there is no valgrind")
class Valgrind(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.temporary.cleanup)
        cls.folder = pathlib.Path(cls.temporary.name)
        cls.partition = small_model.write(cls.folder)
        cls.program = program.PROGRAM
        if launch.run(1, "--version", prefix=MEMCHECK).status == -signal.SIGILL:
            beside = os.environ.get("PT_BUILD_ROOT")
            folder = pathlib.Path(beside) if beside else cls.folder
            program.PROGRAM = plain_program(folder / "valgrind-build")

    @classmethod
    def tearDownClass(cls):
        program.PROGRAM = cls.program

    def memcheck(self, ranks, *arguments, status=0):
        ended = launch.run(ranks, *arguments, prefix=MEMCHECK)
        self.assertNotEqual(ended.status, FOUND, ended)
        self.assertEqual(ended.status, status, ended)
        self.assertFalse([line for line in ended.err if line.startswith("==")], ended)
        return ended

    def test_that_it_would_be_found(self):
        """The options above do find a read of freed memory, and a leak, in a program with both."""
        source = self.folder / "bad.c"
        source.write_text(
            "#include <stdlib.h>\n"
            "int main(int argc, char **argv)\n"
            "{\n"
            "    char *volatile p = malloc(16);\n"
            "    (void)argv;\n"
            "    if (argc == 1)\n"
            "        free(p);\n"
            "    int zero = argc == 1 ? p[3] : 0;\n"
            "    p = NULL;\n"
            "    return zero & 0;\n"
            "}\n"
        )
        bad = self.folder / "bad"
        subprocess.run(["cc", "-O0", "-w", source, "-o", bad], check=True)
        for arguments in ([], ["leak"]):
            with self.subTest(" ".join(arguments) or "read"):
                command = [*MEMCHECK, bad, *arguments]
                done = subprocess.run(command, capture_output=True, check=False)
                self.assertEqual(done.returncode, FOUND, done.stderr)

    def test_training(self):
        names = ("log", "timing", "trace", "summary")
        outputs = [f"--{name}={self.folder}/{name}" for name in names]
        for backend, epochs in (("ref", 2), ("onednn", 1)):
            with self.subTest(backend):
                self.memcheck(
                    1,
                    self.partition,
                    f"--backend={backend}",
                    f"--epochs={epochs}",
                    f"--save={self.folder}/saved",
                    "--crop=1",
                    "--flip=on",
                    *outputs,
                )

    def test_two_ranks(self):
        for schedule in ("async", "1f1b", "interleaved"):
            with self.subTest(schedule):
                options = [f"--schedule={schedule}", "--backend=ref", "--epochs=1"]
                clip = ["--stash"] if schedule == "async" else ["--clip=1"]
                self.memcheck(2, self.partition, *options, *clip, f"--save={self.folder}/two")

    def test_inference(self):
        saved = self.folder / "for-inference"
        launch.succeed(1, self.partition, f"--save={saved}", "--epochs=1")
        out = self.folder / "out.csv"
        options = ["--infer=test", f"--weights={saved}", f"--out={out}", "--backend=ref"]
        self.memcheck(1, self.partition, *options)

    def test_check(self):
        self.memcheck(1, self.partition, "--check", "--stages=4", "--backend=ref")

    def test_refusals(self):
        """What was opened is closed when the input is refused half-way."""
        bad = self.folder / "bad.yaml"
        bad.write_text(self.partition.read_text().replace("2: [conv2]", "2: [conv3]"))
        for arguments in (
            [bad],
            [self.partition, "--data=/dev/null"],
            [self.partition, f"--init={self.partition}"],
            [self.partition, f"--log={self.partition}/x"],
        ):
            with self.subTest(" ".join(map(str, arguments)).replace(str(self.folder), "")):
                self.memcheck(1, *arguments, status=2)


if __name__ == "__main__":
    tap.main()
