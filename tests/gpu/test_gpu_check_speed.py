#!/usr/bin/env python3
"""How tools/gpu-check measures: rates, the comparison with PyTorch, batches that do not fit, and
whether the plan fits into the minutes. No GPU is needed."""

import csv
import json
import pathlib
import subprocess
import sys
import types
import unittest

from gpu_check_case import DEVICE, ROOT, Folder  # first: it finds the rest
import deps
import judge
import make_images
import report
import runner
import speed
import steps
import tap
import timetable
import versus


class Speed(Folder):
    def test_windows(self):
        # Ten slow steps of 1 s, then four of 0.5 s and four of 0.25 s.
        ends = [float(i + 1) for i in range(10)]
        for seconds in [0.5] * 4 + [0.25] * 4:
            ends.append(ends[-1] + seconds)
        self.assertEqual(judge.windows(ends, [8] * 18, 10, 2), [16, 32])

    def test_windows_refuse(self):
        for ends in ([1.0, 2.0], [1.0, 2.0, 2.0, 2.0]):
            with self.subTest(ends=ends), self.assertRaises(judge.Wrong):
                judge.windows(ends, [8] * len(ends), 1, 3)

    def test_timing(self):
        path = self.folder / "timing.csv"
        with open(path, "w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            rows.writerow(["rank", "epoch", "step", "samples", "update_start_us", "update_us"])
            rows.writerows([[0, 0, 0, 4, "", ""], [0, 0, 0, 4, 900, 100], [0, 0, 1, 4, "", ""],
                            [0, 0, 1, 3, 1900, 100], [0, 1, 0, 5, 4900, 100],
                            [1, 0, 0, 8, 2900, 100]])
        self.assertEqual(judge.read_timing(path), ([0.001, 0.002, 0.005], [8, 7, 5]))
        self.assertEqual(judge.read_timing(path, rank=1), ([0.003], [8]))

    def test_kernels(self):
        def row(kernel, of_copy, bound="memory"):
            return {"kernel": kernel, "type": "bf16", "bound": bound, "of_copy": of_copy}

        rows = [{"copy_gb_per_s": 3000.0}, row("relu", 0.9), row("gelu", 0.1, "arithmetic")]
        text = "a line\n" + "\n".join(map(json.dumps, rows))
        outcome = speed.judge_kernels(None, {"kernels": text})
        self.assertTrue(outcome.bars[0]["met"] and outcome.bars[0]["value"] == 0.9)
        text += "\n" + json.dumps(row("sum", 0.79))
        outcome = speed.judge_kernels(None, {"kernels": text})
        self.assertFalse(outcome.bars[0]["met"])
        self.assertIn("sum bf16 0.79", outcome.says)
        with self.assertRaises(judge.Wrong):
            speed.judge_kernels(None, {"kernels": ""})

    def test_batch(self):
        for gib, batch in ((140, 256), (40, 128), (16, 64), (8, 32), (None, 32)):
            memory = None if gib is None else gib * 2**30
            self.assertEqual(judge.batch_for(memory, speed.BATCHES["resnet-50"]), batch)

    def test_images(self):
        path = self.folder / "images.safetensors"
        for count in (5, 50, 500):  # headers of different lengths
            make_images.write(path, count, 3, 4, 2, 3)
            data = path.read_bytes()
            size = int.from_bytes(data[:8], "little")
            header = json.loads(data[8:8 + size])
            self.assertEqual(header["x"]["shape"], [count, 3, 4, 2])
            self.assertEqual((size % 8, len(data)), (0, 8 + size + count * (24 + 8)))
            self.assertEqual(data[-8:], ((count - 1) % 3).to_bytes(8, "little"))


class Comparison(Folder):
    """Preparation and measurement of one case, with stand-ins for pipetrain and PyTorch."""

    CASE = speed.CASES[1]

    def compare(self, skip=(), device=DEVICE, **fake):
        """{step: result} of a check that compares the case, with what the stand-ins are told."""
        journal, stand_in = self.folder / "journal", self.folder / "python"
        journal.unlink(missing_ok=True)
        told = [f"FAKE_{name.upper()}={value}" for name, value in fake.items()]
        script = ["exec", "env", *told, sys.executable, "-B",
                  ROOT / "tests" / "gpu" / "fake_measured.py", journal]
        setup = self.check_setup(torch_python=str(stand_in), device=device)
        program = pathlib.Path(setup.program("pipetrain"))
        program.parent.mkdir(parents=True, exist_ok=True)
        for path in (stand_in, program):
            path.write_text("#!/bin/sh\n" + " ".join(map(str, script)) + ' "$@"\n')
            path.chmod(0o755)
        build = runner.Step("build", "what", timetable.CORRECT, 1, 9, lambda setup: [],
                            lambda setup, done: runner.Outcome())
        chosen = [step for step in steps.STEPS
                  if step.name in {self.CASE.speed, self.CASE.compile} - set(skip)]
        results = runner.Runner(setup, lambda text: None).run([build, *chosen])
        self.journal = journal.read_text().splitlines()
        return {result["name"]: result for result in results}

    def test_all_well(self):
        results = self.compare()
        prepared, measured = results[self.CASE.compile], results[self.CASE.speed]
        self.assertEqual((prepared["verdict"], prepared["says"]),
                         (runner.PREPARED, "compiled in 40 s"))
        self.assertEqual(self.journal, ["torch compile 256", "ours 256",
                                        "torch eager,compile 256", "ours 256"])
        self.assertEqual((measured["verdict"], measured["changes"]), (runner.MEASURED, []))
        self.assertIn("1,000 images/s with a batch of 256; PyTorch eager 800, ratio 1.25; "
                      "torch.compile 1,250, ratio 0.80", measured["says"])
        figures = measured["figures"]
        self.assertEqual(len(figures["images_per_s"]["stretches"]), 2 * speed.STRETCHES)
        self.assertEqual([bar["met"] for bar in measured["bars"]], [True])
        self.assertAlmostEqual(measured["bars"][0]["value"], 1.25)
        self.assertAlmostEqual(figures["drift"], 1)

    def test_both_take_the_batch_that_ours_takes(self):
        """What was compiled is of no use then, and is said to be."""
        measured = self.compare(ours_fits=200)[self.CASE.speed]
        self.assertEqual(self.journal[1:], ["ours 256", "ours 200", "torch eager 200", "ours 200"])
        self.assertEqual(measured["changes"],
                         ["a batch of 256 does not fit pipetrain: 200 for both"])
        self.assertEqual(measured["figures"]["batch"], 200)
        self.assertIn("torch.compile not run: it was compiled for a batch of 256",
                      measured["says"])
        # 200 images a step divide no file of 1,024.
        images = (self.folder / self.CASE.speed / "images.safetensors").read_bytes()
        self.assertIn(b'"shape": [800, 3, 32, 32]', images[:200])

    def test_both_take_half_where_pytorch_has_no_memory(self):
        """The preparation meets it first."""
        results = self.compare(torch_fits=128)
        self.assertEqual(self.journal, ["torch compile 256", "torch compile 128", "ours 128",
                                        "torch eager,compile 128", "ours 128"])
        self.assertEqual(results[self.CASE.compile]["changes"],
                         ["a batch of 256 does not fit PyTorch: 128 for both"])
        self.assertEqual(results[self.CASE.speed]["figures"]["batch"], 128)

    def test_pytorch_has_no_memory_when_measured(self):
        results = self.compare(skip=[self.CASE.compile], torch_fits=128)
        self.assertEqual(self.journal, ["ours 256", "torch eager 256", "ours 128",
                                        "torch eager 128", "ours 128"])
        self.assertIn("torch.compile not run: left out", results[self.CASE.speed]["says"])

    def test_changes_have_an_end(self):
        results = self.compare(torch_fits=1)
        self.assertEqual(self.journal[:3], [f"torch compile {n}" for n in (256, 128, 64)])
        self.assertEqual(results[self.CASE.compile]["verdict"], runner.NOT_RUN)
        measured = results[self.CASE.speed]
        self.assertEqual(measured["verdict"], runner.MEASURED)  # ours
        self.assertIn("PyTorch eager not run: torch: exit status 1: eager: out of memory with a "
                      "batch of 16", measured["says"])
        self.assertEqual(measured["bars"], [])

    def test_a_compilation_that_fails(self):
        """It is said, it fails nothing, and eager is measured all the same."""
        results = self.compare(torch_fails="compile")
        prepared, measured = results[self.CASE.compile], results[self.CASE.speed]
        self.assertEqual((prepared["verdict"], prepared["out_of_time"]), (runner.NOT_RUN, False))
        self.assertIn("compile is ill", prepared["reason"])
        self.assertEqual(self.journal, ["torch compile 256", "ours 256", "torch eager 256",
                                        "ours 256"])
        self.assertEqual(len(measured["bars"]), 1)
        self.assertEqual(measured["figures"]["compile"],
                         {"reason": f"{self.CASE.compile} was not"})
        self.assertIn(f"torch.compile not run: {self.CASE.compile} was not", measured["says"])
        self.assertTrue(report.correct(list(results.values())))

    def test_what_ended_before_the_failure_counts(self):
        """eager is printed before torch.compile fails where it is timed."""
        setup = self.check_setup(torch_python="python3")
        setup.verdicts[self.CASE.compile] = runner.PREPARED
        setup.compiled[self.CASE] = self.CASE.batch(setup)
        done = runner.Done()
        done["torch"] = '{"mode": "eager", "images_per_s": [1]}\nTraceback'
        done.missing["torch"] = "torch did not end within 120 s: Traceback"
        (_, eager, nothing), (_, none, reason) = versus.read(setup, self.CASE, done)
        self.assertEqual((eager["images_per_s"], nothing, none), ([1], None, None))
        self.assertIn("did not end", reason)

    def test_without_pytorch(self):
        setup = self.check_setup()
        labels = [command.label for command in speed.plan_speed(setup, self.CASE)]
        self.assertEqual(labels, list(speed.TURNS))
        self.assertEqual({reason for _, _, reason in versus.read(setup, self.CASE, {})},
                         {"no Python here has PyTorch"})
        self.assertIn("PyTorch", versus.lacks_compile(setup))

    def test_no_room_to_compile(self):
        small = {**DEVICE, "memory_bytes": 16 * 2**30}
        results = self.compare(device=small)
        self.assertIn("16 GiB have no room", results[self.CASE.compile]["reason"])
        self.assertEqual(self.journal, ["ours 128", "torch eager 128", "ours 128"])

    def test_refusals_about_something_else(self):
        setup = self.check_setup()
        for label, output in (("ours-1", "error: no CUDA device"), ("torch", "ImportError"),
                              ("ours-1", "not even --micro-batch 1 fits"),
                              ("ours-1", "largest --micro-batch that fits is 256"),
                              ("ours-1", "out of memory")):
            with self.subTest(label=label, output=output):
                self.assertIsNone(self.CASE.smaller_batch(setup, label, output))
        self.assertEqual(setup.batches, {})

    def test_what_is_compiled_is_what_is_measured(self):
        """The same program, model, precision, batch and cache; but out of the others' way."""
        setup = self.check_setup(torch_python="python3", dry=True)
        (step,) = (step for step in steps.STEPS if step.name == self.CASE.compile)
        (compiled,) = step.plan(setup)
        (measured,) = (command for command in speed.plan_speed(setup, self.CASE)
                       if command.label == versus.MEASURING)
        self.assertEqual(compiled.argv[:3], ["nice", "-n", "10"])
        self.assertEqual(compiled.environment, measured.environment)
        self.assertEqual(compiled.variables, measured.variables)
        self.assertIn("TORCHINDUCTOR_CACHE_DIR", compiled.variables)
        ours = ("--modes", "--warm-up", "--stretches", "--stretch")
        same = [[word for word in map(str, argv) if word.split("=")[0] not in ours]
                for argv in (compiled.argv[3:], measured.argv)]
        self.assertEqual(*same)
        self.assertIn("--modes=eager,compile", measured.argv)
        self.assertIn("--stretches=0", compiled.argv)

    def test_pytorch_itself(self):
        """The real program on a CPU prints what is read here; one object for each mode."""
        python = deps.python_with_torch()
        if not python:
            self.skipTest("no Python here has PyTorch")
        program = [python, "-B", ROOT / "tests" / "gpu" / "torch_models.py", "--model=wrn-28-10",
                   "--device=cpu", "--batch=1", "--size=8", "--warm-up=1", "--stretch=1"]
        done = runner.Done()
        done[versus.MEASURING] = subprocess.run([*program, "--stretches=2"], check=True,
                                                capture_output=True, text=True).stdout
        (_, eager, reason), _ = versus.read(self.check_setup(), self.CASE, done)
        self.assertEqual((len(eager["images_per_s"]), reason), (2, None))
        self.assertGreater(min(eager["images_per_s"] + [eager["first_step_s"]]), 0)
        bad = subprocess.run([*program, "--modes=eager,eager"], capture_output=True, text=True)
        self.assertEqual(bad.returncode, 2)
        self.assertIn("eager, compile, or eager,compile", bad.stderr)

    def test_drift_is_said(self):
        setup, done = self.check_setup(), runner.Done()
        for label, pace_us in zip(speed.TURNS, (1e6, 1.04e6)):
            with open(setup.folder(self.CASE.speed) / f"{label}.csv", "w") as file:
                rows = csv.writer(file)
                rows.writerow(["rank", "epoch", "step", "samples", "update_start_us", "update_us"])
                rows.writerows([0, 0, step, 256, step * pace_us, 1] for step in range(1, 29))
        outcome = speed.judge_speed(setup, self.CASE, done)
        self.assertAlmostEqual(outcome.figures["drift"], 1 / 1.04)
        self.assertIn("(first 256, then 246: the device is not steady)", outcome.says)


class Timetable(unittest.TestCase):
    def test_fits(self):
        """With a tenth of the minutes left over, even where every step can be run."""
        self.assertLessEqual(timetable.planned_s(steps.STEPS), timetable.PLANNED_S)
        self.assertLessEqual(timetable.PLANNED_S, 0.9 * timetable.TOTAL_S)
        self.assertLess(timetable.TOTAL_S, 480)

    def test_preparations_end_in_time(self):
        """Also when they are cut off: the measurements still fit."""
        preparing = timetable.planned_s([step for step in steps.STEPS
                                         if step.kind == timetable.PREPARATION])
        self.assertLess(preparing, timetable.PREPARED_BY_S)
        measuring = sum(step.about_s for step in steps.STEPS if step.kind == timetable.SPEED)
        self.assertLessEqual(timetable.PREPARED_BY_S + measuring, timetable.TOTAL_S)

    def test_every_step_has_its_row(self):
        self.assertEqual({step.name for step in steps.STEPS}, set(timetable.ABOUT_S))
        for step in steps.STEPS:
            self.assertEqual(step.about_s, timetable.ABOUT_S[step.name])
            self.assertLess(step.about_s, step.limit_s)
        names = [step.name for step in steps.STEPS]
        self.assertEqual(names[0], "build")
        self.assertEqual(len(names), len(set(names)))
        kinds = [step.kind for step in steps.STEPS[1:]]
        order = list(timetable.LANES)
        self.assertEqual(kinds, sorted(kinds, key=order.index))

    def test_a_comparison_leaves_ours_its_second_turn(self):
        for case in speed.CASES:
            (step,) = (step for step in steps.STEPS if step.name == case.speed)
            self.assertGreater(step.limit_s - versus.RUN_LIMIT_S, step.about_s / 2)
            self.assertGreater(versus.RUN_LIMIT_S, step.about_s)

    def test_makespan(self):
        for seconds, lanes, ends in (([], 2, 0), ([3, 4], 1, 7), ([3, 4], 2, 4),
                                     ([3, 4, 2, 2], 2, 6), ([1, 5, 1, 1], 2, 5)):
            self.assertEqual(timetable.makespan(seconds, lanes), ends)

    def test_planned(self):
        """By hand: a build of 10, two pairs of proofs, three preparations two at a time, speed."""
        def step(name, kind, about):
            return types.SimpleNamespace(name=name, kind=kind, about_s=about)

        proofs = [step(f"proof {n}", timetable.CORRECT, 20) for n in range(5)]
        early = [step(f"early {n}", timetable.PREPARATION, 50) for n in range(3)]
        table = [step("build", timetable.CORRECT, 10), *proofs, *early,
                 step("speed", timetable.SPEED, 30), step("p2p", timetable.SPEED, 7)]
        shared = timetable.SHARED
        self.assertAlmostEqual(timetable.planned_s(table), timetable.START_S + 100 * shared + 37)
        self.assertAlmostEqual(timetable.planned_s(table[:6]), timetable.START_S + 50 * shared)


if __name__ == "__main__":
    tap.main()
