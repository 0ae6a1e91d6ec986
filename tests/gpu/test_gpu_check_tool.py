#!/usr/bin/env python3
"""tools/gpu-check as a whole: its arguments, checks whose steps are commands of the tests', and
whether its steps and the tree agree. No GPU is needed."""

import contextlib
import io
import json
import math
import os
import pathlib
import re
import subprocess

from gpu_check_case import DEVICE, FACTS, ROOT, Folder, gpu_check  # first: it finds the rest
import deps
import judge
import machine
import processes
import report
import runner
import speed
import steps
import tap
import timetable


class Tool(Folder):
    def run_main(self, *arguments, device=None, table=None):
        """main() with another device finder and another table of steps: (exit status, output)."""
        kept = (machine.find_device, steps.STEPS, gpu_check.find_setup)
        machine.find_device = lambda: (device, None if device else "no GPU: none, says the test")
        if table is not None:
            steps.STEPS = table
            gpu_check.find_setup = lambda options, found: self.setup_for(options, found)
        out = io.StringIO()
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
                status = gpu_check.main(list(arguments))
        except SystemExit as ended:
            status = ended.code
        finally:
            machine.find_device, steps.STEPS, gpu_check.find_setup = kept
        return status, out.getvalue()

    def setup_for(self, options, device):
        return self.check_setup(device=device, quick=options.quick)

    def shell(self, name, script, kind=timetable.CORRECT):
        def plan(setup):
            return [processes.Command("sh", ["sh", "-c", script], setup.run_environment)]

        return runner.Step(name, "what", kind, 1, 30, plan,
                           lambda setup, done: runner.Outcome(done["sh"].strip()))

    def test_without_a_device(self):
        status, output = self.run_main()
        self.assertEqual(status, 77)
        self.assertIn("no GPU: none, says the test", output)

    def test_a_failing_step(self):
        table = (self.shell("build", "echo built"), self.shell("ops-fp32", "echo no; exit 3"),
                 self.shell("train", "echo trained"))
        status, output = self.run_main("--out", str(self.folder), device=DEVICE, table=table)
        self.assertEqual(status, 1)
        self.assertIn("failed: ops-fp32", output)
        self.assertIn("2 passed, 0 prepared, 0 measured, 1 failed, 0 not run", output)
        (path,) = self.folder.glob("*.json")
        self.assertEqual(report.check(json.loads(path.read_text(encoding="utf-8"))), [])

    def test_a_failing_build_ends_it(self):
        table = (self.shell("build", "exit 1"), self.shell("ops-fp32", "echo ran"))
        status, output = self.run_main("--out", str(self.folder), device=DEVICE, table=table)
        self.assertEqual(status, 1)
        self.assertIn("– ops-fp32", output)
        self.assertIn("not run: the build failed", output)

    def test_all_good(self):
        table = (self.shell("build", "echo built"), self.shell("ops-fp32", "echo fine"),
                 self.shell("ops-bf16", "exit 1"))
        status, output = self.run_main("--out", str(self.folder), "--skip", "ops-bf16",
                                       device=DEVICE, table=table)
        self.assertEqual(status, 0, output)
        (path,) = self.folder.glob("*.json")
        self.assertTrue(json.loads(path.read_text(encoding="utf-8"))["partial"])

    def test_choosing(self):
        for words, wanted in (
            (["--only", "ops-bf16,kernels"], ["build", "ops-bf16", "kernels"]),
            (["--only", "train"], ["build", "train-lenet5", "train-wrn-16-4"]),
            (["--only", "build"], ["build"]),
            (["--only", "speed-wrn-28-10-tf32"],  # and what it needs
             ["build", "images", "compile-wrn-28-10-tf32", "speed-wrn-28-10-tf32"]),
            (["--only", "p2p"], ["build", "images", "p2p"]),
            (["--only", "speed-wrn-28-10-tf32", "--skip", "compile"],
             ["build", "images", "speed-wrn-28-10-tf32"]),
            (["--quick", "--only", "speed-wrn-28-10-tf32"],
             ["build", "images", "speed-wrn-28-10-tf32"]),
            (["--quick", "--only", "compile-wrn-28-10-tf32"], ["build", "compile-wrn-28-10-tf32"]),
        ):
            self.assertEqual([step.name for step in gpu_check.parse(words).chosen], wanted)
        every = [step.name for step in steps.STEPS]
        self.assertEqual([step.name for step in gpu_check.parse([]).chosen], every)
        quick = [step.name for step in gpu_check.parse(["--quick"]).chosen]
        self.assertEqual(quick, [name for name in every if not name.startswith("compile")])
        status, output = self.run_main("--only", "nothing")
        self.assertEqual(status, 2)
        self.assertIn("there is no step 'nothing'", output)

    def test_every_plan(self):
        """Every step can say what it would run; labels name log files, so they differ."""
        setup = self.setup_for(gpu_check.parse(["--dry-run"]), DEVICE)
        setup.dry, setup.torch_python = True, "python3"
        for step in steps.STEPS:
            self.assertLessEqual(set(step.needs), {other.name for other in steps.STEPS})
            with self.subTest(step=step.name):
                commands = step.plan(setup)
                labels = [command.label for command in commands]
                self.assertTrue(labels and len(labels) == len(set(labels)))
                self.assertTrue(all(command.text() for command in commands))

    def test_help_and_list(self):
        tool = str(ROOT / "tools" / "gpu-check")
        for word, expected in (("--help", "--collect"), ("--list", "train-lenet5")):
            done = subprocess.run([tool, word], capture_output=True, text=True)
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            self.assertIn(expected, done.stdout)
        done = subprocess.run([tool, "--collect", "now"], capture_output=True, text=True)
        self.assertEqual(done.returncode, 2)

    def test_collect_spares_other_folders(self):
        (self.folder / "mine").write_text("keep")
        environment = {**os.environ, "PT_DEPS": str(self.folder)}
        done = subprocess.run([str(ROOT / "tools" / "gpu-check"), "--collect"],
                              capture_output=True, text=True, env=environment)
        self.assertEqual(done.returncode, 2)
        self.assertIn("in the way", done.stderr)
        self.assertEqual((self.folder / "mine").read_text(), "keep")

    def test_build_folder(self):
        """Kept while what it was made with stays, emptied when that changes, never taken away."""
        build = self.folder / "build-gpu"
        gpu_check.keep_or_clear(build, "one")
        (build / "object").touch()
        gpu_check.keep_or_clear(build, "one")
        self.assertTrue((build / "object").exists())
        gpu_check.keep_or_clear(build, "two")
        self.assertFalse((build / "object").exists())
        (build / "made-with.json").unlink()
        with self.assertRaisesRegex(deps.Missing, "was not made by gpu-check"):
            gpu_check.keep_or_clear(build, "two")


# ---- the tree that is checked --------------------------------------------------------------------


class Tree(Folder):
    """What the steps say of programs, files and options holds in this tree. No GPU is needed."""

    def setUp(self):
        super().setUp()
        self.setup = self.check_setup(torch_python="python3", dry=True)

    def commands(self):
        return [command for step in steps.STEPS for command in step.plan(self.setup)]

    def program(self):
        path = os.environ.get("PT_PROGRAM")
        if not path or not os.access(path, os.X_OK):
            self.skipTest("no pipetrain to ask: run it by meson test")
        return path

    def test_options(self):
        text = subprocess.run([self.program(), "--help"], capture_output=True, text=True).stdout
        known = set(re.findall(r"^  --(?:\[no-\])?([a-z0-9-]+)", text, re.MULTILINE))
        used = set()
        for command in self.commands():
            words = list(map(str, command.argv))
            if self.setup.program("pipetrain") in words:
                options = words[words.index(self.setup.program("pipetrain")) + 1:]
                used |= {word[2:].split("=")[0] for word in options if word.startswith("--")}
        self.assertIn("precision", used)
        self.assertEqual(used - known, set())

    def test_files(self):
        named = {word for command in self.commands() for word in map(str, command.argv)
                 if word.startswith(str(ROOT)) and word.endswith((".yaml", ".py"))}
        self.assertGreaterEqual(len(named), 6)
        self.assertEqual([path for path in sorted(named) if not os.path.isfile(path)], [])
        self.assertEqual(sorted(path.stem for path in (ROOT / "kernels").glob("*.cu")),
                         sorted(steps.KERNELS))

    def test_build_options(self):
        """meson knows what the build step sets, and the kernels are for the device alone."""
        (setup, _) = steps.plan_build(self.setup)
        known = set(re.findall(r"^option\('(\w+)'", (ROOT / "meson_options.txt").read_text(),
                               re.MULTILINE))
        used = {word[2:].split("=")[0] for word in map(str, setup.argv) if word.startswith("-D")}
        self.assertEqual((used - known, "gpu_arch" in used), (set(), True))
        self.assertIn("-Dgpu_arch=90", setup.argv)
        self.setup.facts = {**FACTS, "gpu_arch": None}
        self.assertIn("-Dgpu_arch=all", steps.plan_build(self.setup)[0].argv)

    def test_targets(self):
        """Builds with kernels for GPUs have every target that the build step asks for."""
        build = pathlib.Path(os.environ.get("PT_BUILD_ROOT", ""), "build.ninja")
        text = build.read_text(encoding="utf-8") if build.is_file() else ""
        if "kernels/flat.cu.o" not in text:
            self.skipTest("this build has no kernels for GPUs")
        targets = set(re.findall(r"^build ([^ :]+)", text, re.MULTILINE))
        self.assertEqual(set(steps.PROGRAMS.values()) - targets, set())

    def test_what_runs_leave(self):
        """Losses, times and weights of a real run, on the CPU, over an epoch's end."""
        run = steps.training(self.setup, "lenet5", "ref", "--schedule=1f1b", "--batch=32",
                             "--micro-batch=16", "--samples=64", "--steps=3", "--lr=0.02",
                             f"--log={self.folder}/log", f"--timing={self.folder}/timing",
                             f"--save={self.folder}/weights")
        run = [self.program(), *("--dataset=synthetic" if word.startswith("--dataset") else word
                                 for word in run[1:] if not word.startswith("--data="))]
        done = subprocess.run(run, capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        losses = judge.read_losses(self.folder / "log")
        self.assertEqual([math.isfinite(loss) for loss in losses], [True] * 3)
        ends, samples = judge.read_timing(self.folder / "timing")
        self.assertEqual((samples, ends == sorted(ends) and ends[0] > 0), ([32] * 3, True))
        self.assertEqual(judge.compare_weights([self.folder / "weights"]), 5)

    def test_images_are_linked_once(self):
        """Steps that run side by side read the same files: none is taken away from another."""
        real = self.folder / steps.REAL_IMAGES
        real.mkdir(parents=True)
        (real / "t10k-images-idx3-ubyte.gz").touch()
        self.setup.dry = False
        said = steps.images(self.setup)
        links = sorted((self.folder / "images").iterdir())
        self.assertEqual([link.name for link in links],
                         [f"{half}-images-idx3-ubyte.gz" for half in ("t10k", "train")])
        before = [(link.lstat().st_ino, link.lstat().st_ctime_ns) for link in links]
        self.assertEqual(steps.images(self.setup), said)
        self.assertEqual([(link.lstat().st_ino, link.lstat().st_ctime_ns) for link in links],
                         before)

    def test_lacking_mpi(self):
        """Ranks want an MPI to run and to build with, links one that knows CUDA too."""
        for mpi, pkg_config, words in (
            (None, "true", "no MPI on this machine"),
            ({"version": "MPI", "cuda_aware": True}, "false", "no MPI to build with"),
            ({"version": "MPI", "cuda_aware": False}, "true", "not CUDA-aware"),
            ({"version": "MPI", "cuda_aware": True}, "true", None),
        ):
            # An empty PATH has no mpicc; the absolute names stand for a pkg-config that knows.
            self.setup.build_environment = {"PATH": "", "PKG_CONFIG": f"/bin/{pkg_config}"}
            self.setup.facts = {**FACTS, "mpi": mpi}
            with self.subTest(mpi=mpi, pkg_config=pkg_config):
                self.assertIn(words or "None", str(speed.lacks_cuda_aware(self.setup)))

    def test_sanitizer_summaries(self):
        """Only a clean summary passes: a program that the tool never looked at has none."""
        by_name = {step.name: step for step in steps.STEPS}
        for tool, text, clean in (
            ("memcheck", "========= ERROR SUMMARY: 0 errors\n", True),
            ("memcheck", "========= ERROR SUMMARY: 10 errors\n", False),
            ("racecheck", "========= RACECHECK SUMMARY: 0 hazards displayed (0 errors)\n", True),
            ("racecheck", "========= RACECHECK SUMMARY: 2 hazards displayed (2 errors)\n", False),
            ("racecheck", "", False),
        ):
            with self.subTest(tool=tool, text=text):
                if clean:
                    by_name[tool].judge(self.setup, {"kernels": text})
                else:
                    with self.assertRaises(judge.Wrong):
                        by_name[tool].judge(self.setup, {"kernels": text})


if __name__ == "__main__":
    tap.main()
