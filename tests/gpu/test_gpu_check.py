#!/usr/bin/env python3
"""The logic of tools/gpu-check, which needs no GPU: what counts as right, time, tables, files."""

import contextlib
import csv
import importlib.util
import io
import json
import math
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests" / "gpu" / "check"), str(ROOT / "tests" / "train")]

import deps
import judge
import machine
import make_images
import report
import runner
import speed
import steps
import tap

spec = importlib.util.spec_from_file_location(
    "gpu_check", ROOT / "tests" / "gpu" / "check" / "__main__.py")
gpu_check = importlib.util.module_from_spec(spec)
spec.loader.exec_module(gpu_check)

FACTS = {"date": "2026-01-31T10:00:00+00:00", "commit": "c" * 40, "cuda": "13.0.88",
         "cudnn": "9.19.0", "pytorch": None, "meson": "1.0.1",
         "mpi": {"version": "Open MPI", "cuda_aware": False},
         "processor": {"name": "a processor", "cores": 2}}
DEVICE = {"name": "NVIDIA Example 1", "driver": "580.1", "memory_bytes": 80 * 2**30, "count": 1}


class Folder(unittest.TestCase):
    """A case with a folder of its own."""

    def setUp(self):
        holder = tempfile.TemporaryDirectory(prefix="gpu-check-")
        self.addCleanup(holder.cleanup)
        self.folder = pathlib.Path(holder.name)


# ---- judging -----------------------------------------------------------------------------------


class Tap(unittest.TestCase):
    def test_counts(self):
        text = "1..3\nok 1 - a\nok 2 - b # SKIP no such type\nok 3 - c\n"
        self.assertEqual(judge.count_tap(text), (2, 1))

    def test_refuses(self):
        for text, words in (
            ("1..2\nok 1 - a\nnot ok 2 - conv 3x3\n", "1 of 2 cases failed.*conv 3x3"),
            ("", "no case ran"),
            ("1..1\nok 1 - a # skip all\n", "no case ran"),
            ("ok 1 - a\n", "before it said"),
            ("1..3\nok 1 - a\n", "3 cases were planned, 1 were run"),
        ):
            with self.subTest(text=text), self.assertRaisesRegex(judge.Wrong, words):
                judge.count_tap(text)


class Losses(Folder):
    CPU = [2.3, 2.2, 2.1, 2.0, 1.9]

    def test_within_and_beyond(self):
        near = [loss + 0.009 for loss in self.CPU]
        self.assertAlmostEqual(judge.compare_losses(self.CPU, near, 0.01, 5), 0.009)
        far = self.CPU[:3] + [2.0111, 1.9]
        with self.assertRaisesRegex(judge.Wrong, r"step 4: loss 2.011100 on the GPU"):
            judge.compare_losses(self.CPU, far, 0.01, 5)

    def test_refuses(self):
        for cpu, gpu, words in (
            (self.CPU, self.CPU[:4], "5 steps were wanted"),
            (self.CPU[:4], self.CPU, "5 steps were wanted"),
            (self.CPU, self.CPU[:4] + [math.nan], "step 5 is not a number"),
            ([math.inf] + self.CPU[1:], self.CPU, "CPU run is not a number"),
            ([2.3] * 5, [2.3] * 5, "learned nothing"),
        ):
            with self.subTest(words=words), self.assertRaisesRegex(judge.Wrong, words):
                judge.compare_losses(cpu, gpu, 0.01, 5)

    def test_early(self):
        """The first steps may have a narrower tolerance; those after them have the wide one."""
        for step, passes in ((judge.EARLY_STEPS - 1, False), (judge.EARLY_STEPS, True)):
            gpu = [loss + (0.009 if at == step else 0) for at, loss in enumerate(self.CPU)]
            with self.subTest(step=step + 1):
                if passes:
                    judge.compare_losses(self.CPU, gpu, 0.01, 5, 0.001)
                else:
                    with self.assertRaisesRegex(judge.Wrong, "step 4.*differ by 0.001"):
                        judge.compare_losses(self.CPU, gpu, 0.01, 5, 0.001)

    def test_log(self):
        log = self.folder / "log.jsonl"
        log.write_text('{"type":"run"}\n{"type":"step","loss":2.5}\n{"type":"eval","loss":9}\n'
                       '{"type":"step","loss":null}\n')
        losses = judge.read_losses(log)
        self.assertEqual(losses[0], 2.5)
        self.assertTrue(math.isnan(losses[1]) and len(losses) == 2)

    def test_every_run_has_a_tolerance(self):
        for model in steps.TRAINING:
            widths = [judge.LOSS_TOLERANCE[model, precision] for precision in steps.PRECISIONS]
            self.assertEqual(widths, sorted(widths))  # the coarser, the wider
            self.assertGreater(steps.TRAINING[model][0], judge.EARLY_STEPS)


class Weights(Folder):
    def save(self, name, **layers):
        folder = self.folder / name
        folder.mkdir()
        for layer, data in layers.items():
            (folder / f"{layer}.safetensors").write_bytes(data)
        return folder

    def test_equal(self):
        folders = [self.save(name, a=b"1", b=b"2") for name in "xyz"]
        self.assertEqual(judge.compare_weights(iter(folders)), 2)

    def test_refuses(self):
        first = self.save("first", a=b"1", b=b"2")
        for other, words in (
            (self.save("bit", a=b"1", b=b"3"), "differ in 1 of 2 layers, the first: b"),
            (self.save("less", a=b"1"), "other layers"),
            (self.save("none"), "other layers"),
        ):
            with self.subTest(words=words), self.assertRaisesRegex(judge.Wrong, words):
                judge.compare_weights([first, first, other])
        with self.assertRaisesRegex(judge.Wrong, "no weights"):
            judge.compare_weights([self.folder / "none", first])


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


# ---- the machine -------------------------------------------------------------------------------


class Machine(Folder):
    def test_smi(self):
        device, _ = machine.parse_smi("NVIDIA H100 80GB HBM3, 81559, 580.1\nB, 1, 580.1")
        self.assertEqual((device["name"], device["count"]), ("NVIDIA H100 80GB HBM3", 2))
        self.assertEqual(device["memory_bytes"], 81559 * 2**20)
        self.assertEqual(machine.parse_smi("No devices were found")[0], None)

    def test_find(self):
        gpu = {"name": "GPU", "memory_bytes": 1, "count": 1}
        none = (None, "not here")
        self.assertEqual(machine.find_device(lambda: (gpu, None), lambda: none)[0]["name"], "GPU")
        found, _ = machine.find_device(lambda: none, lambda: ({**gpu, "driver": "5"}, None))
        self.assertEqual(found["driver"], "5")
        device, reason = machine.find_device(lambda: none, lambda: (None, "nor there"))
        self.assertIsNone(device)
        self.assertEqual(reason, "no GPU: not here; nor there")

    def test_no_driver(self):
        def load(_):
            raise OSError

        self.assertIn("libcuda is not here", machine.from_driver(load)[1])

    def test_cudnn_version(self):
        (self.folder / "cudnn_version.h").write_text(
            "#define CUDNN_MAJOR 9\n#define CUDNN_MINOR 19\n#define CUDNN_PATCHLEVEL 0\n")
        self.assertEqual(machine.cudnn_version(self.folder), "9.19.0")
        self.assertIsNone(machine.cudnn_version(self.folder / "nowhere"))

    def test_parts(self):
        """A toolkit without cuDNN, and a Python package that has it under a versioned name only."""
        toolkit, package = self.folder / "toolkit", self.folder / "nvidia" / "cudnn"
        for root, names, ending in ((toolkit, deps.CUDA_PARTS[:-1], ""),
                                    (package, deps.CUDA_PARTS[-1:], ".9")):
            for header, library in names:
                for path in (root / "include" / header, root / "lib" / f"lib{library}.so{ending}"):
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.touch()
        with self.assertRaisesRegex(deps.Missing, "cudnn.h"):
            deps.cuda_parts([toolkit])
        parts = deps.cuda_parts([toolkit, package])
        self.assertEqual(parts["cudnn"][1].name, "libcudnn.so.9")
        environment, links = {}, self.folder / "links"
        folders = deps.cuda_environment(environment, parts, links, toolkit)
        self.assertEqual(folders, [toolkit / "lib", package / "lib"])
        self.assertFalse(links.exists())
        deps.link_names(parts, links)
        self.assertEqual([path.name for path in links.iterdir()], ["libcudnn.so"])
        self.assertEqual(os.readlink(links / "libcudnn.so"), str(parts["cudnn"][1]))
        self.assertIn(str(package / "include"), environment["CPATH"])
        self.assertTrue(environment["LIBRARY_PATH"].startswith(str(links)))

    def test_loaded_later(self):
        """cuDNN loads libnvrtc when it runs: its folder is looked for, and may be missing."""
        package = self.folder / "nvidia" / "cu13"
        self.assertEqual(deps.loaded_later([package]), [])
        (package / "lib").mkdir(parents=True)
        (package / "lib" / "libnvrtc.so.13").touch()
        self.assertEqual(deps.loaded_later([self.folder / "toolkit", package]), [package / "lib"])


# ---- running -----------------------------------------------------------------------------------


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class Setup:
    def __init__(self, scratch):
        self.scratch = scratch


class Running(Folder):
    def start(self, total=100, status=0, seconds=10, output=""):
        """Commands that take so long, on a clock that only they move."""
        clock = Clock()

        def run(command, _log, limit):
            self.commands.append(command.label)
            took = min(seconds, limit)
            clock.now += took
            return (status if took == seconds else None), output

        self.commands = []
        return runner.Runner(Setup(self.folder), total, lambda text: None, clock, run)

    def step(self, name="step", kind=runner.CORRECT, least=5, limit=50, judged=None, lacks=None,
             **of_command):
        command = runner.Command("one", ["true"], {}, **of_command)
        return runner.Step(name, "what", kind, least, limit, lambda setup: [command],
                           judged or (lambda setup, done: runner.Outcome("fine")),
                           lambda setup: lacks)

    def test_passes(self):
        result = self.start().step(self.step())
        self.assertEqual((result["verdict"], result["says"], result["seconds"]),
                         (runner.PASSED, "fine", 10))
        result = self.start().step(self.step(kind=runner.SPEED))
        self.assertEqual(result["verdict"], runner.MEASURED)

    def test_fails(self):
        result = self.start(status=3, output="the last words").step(self.step())
        self.assertEqual(result["verdict"], runner.FAILED)
        self.assertIn("exit status 3: the last words", result["reason"])

        def wrong(setup, done):
            raise judge.Wrong("the weights differ")

        def unreadable(setup, done):
            return {}["images_per_s"]

        for judged, words in ((wrong, "the weights differ"), (unreadable, "KeyError")):
            result = self.start().step(self.step(judged=judged))
            self.assertEqual(result["verdict"], runner.FAILED)
            self.assertIn(words, result["reason"])

    def test_foreign_failure_is_no_failure(self):
        for kwargs in ({"status": 1}, {"seconds": 60}):
            result = self.start(**kwargs).step(self.step(foreign=True))
            self.assertEqual((result["verdict"], result["out_of_time"]), (runner.NOT_RUN, False))

    def test_excuse(self):
        """Who fails and says why this machine can't has not failed; success needs no excuse."""
        for output, verdict in (("Error: Device not supported\n", runner.NOT_RUN),
                                ("Invalid read of size 4\n", runner.FAILED)):
            run = self.start(status=9, output=output)
            result = run.step(self.step(excuse=steps.CANNOT_LOOK))
            self.assertEqual(result["verdict"], verdict)

    def test_step_limit(self):
        result = self.start(seconds=60).step(self.step(limit=50))
        self.assertEqual(result["verdict"], runner.FAILED)
        self.assertIn("did not end within 50 s", result["reason"])

    def test_does_not_begin_what_does_not_fit(self):
        run = self.start(total=28)
        self.assertEqual(run.step(self.step())["verdict"], runner.PASSED)
        result = run.step(self.step("long", least=20))
        self.assertEqual((result["verdict"], result["out_of_time"]), (runner.NOT_RUN, True))
        self.assertIn("needs about 20 s, and 18 s of 28 s are left", result["reason"])
        self.assertEqual(run.step(self.step("short"))["verdict"], runner.PASSED)
        self.assertEqual(len(self.commands), 2)

    def test_cut_off_by_the_whole_time(self):
        result = self.start(total=8).step(self.step())
        self.assertEqual((result["verdict"], result["out_of_time"]), (runner.NOT_RUN, True))
        self.assertIn("the 8 s of the whole check were over", result["reason"])

    def test_lacking_and_broken(self):
        run = self.start()
        self.assertEqual(run.step(self.step(lacks="no MPI"))["reason"], "no MPI")
        run.broken = "the build failed"
        self.assertEqual(run.step(self.step())["reason"], "the build failed")
        self.assertEqual(self.commands, [])

    def test_real_commands(self):
        """The real thing: output, exit status, a program that is not there, one that hangs."""
        def execute(words, limit=60.0):
            command = runner.Command("c", words, dict(os.environ), {"GREETING": "hello"})
            return runner.execute(command, self.folder / "deep" / "c.log", limit)

        self.assertEqual(execute(["sh", "-c", "echo $GREETING; exit 4"]), (4, "hello\n"))
        self.assertEqual((self.folder / "deep" / "c.log").read_text(), "hello\n")
        self.assertEqual(execute([str(self.folder / "none")])[0], 127)
        begin = time.monotonic()
        status, output = execute(["sh", "-c", "echo begun; sleep 60 & wait"], 0.5)
        self.assertEqual((status, output), (None, "begun\n"))
        self.assertLess(time.monotonic() - begin, 30)


# ---- report ------------------------------------------------------------------------------------


def result(name, verdict=runner.PASSED, kind=runner.CORRECT, out_of_time=False, bars=()):
    reason = None if verdict in (runner.PASSED, runner.MEASURED) else "a reason"
    return {"name": name, "what": "what", "kind": kind, "verdict": verdict, "reason": reason,
            "out_of_time": out_of_time, "seconds": 1.5, "says": "words", "figures": {},
            "bars": list(bars), "commands": ["a command"]}


def document(*results):
    return report.document(DEVICE, FACTS, list(results), 12.34, False, False, "/somewhere")


class Report(Folder):
    BAR = {"what": "resnet-50 bf16 / PyTorch eager", "value": 0.93, "wanted": 1.0, "met": False}

    def test_what_counts_as_correct(self):
        good = result("build")
        slow = result("speed", runner.MEASURED, runner.SPEED, bars=[self.BAR])
        for others, correct in (
            ((), True),
            ((slow,), True),
            ((result("ranks", runner.NOT_RUN),), True),  # no MPI
            ((result("p2p", runner.NOT_RUN, runner.SPEED, out_of_time=True),), True),
            ((result("ranks", runner.NOT_RUN, out_of_time=True),), False),
            ((result("ops", runner.FAILED),), False),
            ((result("speed", runner.FAILED, runner.SPEED),), False),
        ):
            with self.subTest(others=[(r["name"], r["verdict"]) for r in others]):
                self.assertEqual(document(good, *others)["correct"], correct)
        self.assertFalse(document(result("build", runner.NOT_RUN))["correct"])
        self.assertFalse(document()["correct"])

    def test_table(self):
        text = report.table(document(
            result("build"), result("ops-bf16", runner.FAILED), result("ranks", runner.NOT_RUN),
            result("speed", runner.MEASURED, runner.SPEED, bars=[self.BAR])))
        for words in ("NVIDIA Example 1, 80 GiB", "✓ build", "✗ ops-bf16", "failed: a reason",
                      "– ranks", "not run: a reason", "NOT REACHED", "failed: ops-bf16\n",
                      "1 passed, 1 measured, 1 failed, 1 not run"):
            self.assertIn(words, text)

    def test_schema(self):
        good = document(result("build"),
                        result("s", runner.MEASURED, runner.SPEED, bars=[self.BAR]))
        self.assertEqual(report.check(good), [])
        for change, words in (
            (lambda d: d.pop("facts"), "facts is missing"),
            (lambda d: d.update(extra=1), "unknown key extra"),
            (lambda d: d.update(schema=2), "schema is 2"),
            (lambda d: d.update(correct=False), "does not follow"),
            (lambda d: d["device"].update(name=None), "device: name is None"),
            (lambda d: d["device"].update(count=True), "device: count is True"),
            (lambda d: d["steps"][0].update(verdict="maybe"), "unknown verdict"),
            (lambda d: d["steps"][0].update(reason="why"), "a reason stands"),
            (lambda d: d["steps"][1]["bars"][0].update(value="1"), "value is '1'"),
        ):
            with self.subTest(words=words):
                bad = json.loads(json.dumps(good))
                change(bad)
                self.assertIn(words, "; ".join(report.check(bad)))

    def test_files(self):
        value = document(result("build"))
        paths = [report.write(self.folder / "out", value) for _ in range(3)]
        stem = "2026-01-31-nvidia-example-1"
        self.assertEqual([p.name for p in paths],
                         [f"{stem}.json", f"{stem}-2.json", f"{stem}-3.json"])
        self.assertEqual(json.loads(paths[0].read_text()), value)

    def test_paths_of_the_machine_stay_out(self):
        one = {**result("build"), "commands": ["/somewhere/build/x /somewhere"]}
        self.assertEqual(document(one)["steps"][0]["commands"], ["build/x ."])

    def test_kept_results(self):
        for path in (ROOT / "tests" / "gpu" / "results").glob("*.json"):
            with self.subTest(file=path.name):
                self.assertEqual(report.check(json.loads(path.read_text(encoding="utf-8"))), [])


# ---- the whole tool ----------------------------------------------------------------------------


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
        return steps.Setup(ROOT, self.folder, self.folder, self.folder, dict(os.environ),
                           dict(os.environ), device, FACTS, None, options.quick)

    def shell(self, name, script, kind=runner.CORRECT):
        def plan(setup):
            return [runner.Command("sh", ["sh", "-c", script], setup.run_environment)]

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
        self.assertIn("2 passed, 0 measured, 1 failed, 0 not run", output)
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
        ):
            self.assertEqual([step.name for step in gpu_check.parse(words).chosen], wanted)
        every = [step.name for step in steps.STEPS]
        self.assertEqual([step.name for step in gpu_check.parse([]).chosen], every)
        quick = [step.name for step in gpu_check.parse(["--quick"]).chosen]
        self.assertEqual(quick, [name for name in every if not name.startswith("compile")])
        status, output = self.run_main("--only", "nothing")
        self.assertEqual(status, 2)
        self.assertIn("there is no step 'nothing'", output)

    def test_names_and_times(self):
        names = [step.name for step in steps.STEPS]
        self.assertEqual(len(names), len(set(names)))
        self.assertEqual(names[0], "build")
        kinds = [step.kind for step in steps.STEPS]
        self.assertEqual(kinds, sorted(kinds))  # "correctness" before "speed"
        self.assertLess(gpu_check.TOTAL_S, 480)
        for step in steps.STEPS:
            self.assertLess(step.least_s, step.limit_s)

    def test_every_plan(self):
        """Every step can say what it would run; labels name log files, so they differ."""
        setup = self.setup_for(gpu_check.parse(["--dry-run"]), DEVICE)
        setup.dry, setup.torch_python = True, "python3"
        for step in steps.STEPS:
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


# ---- the tree that is checked ------------------------------------------------------------------


class Tree(Folder):
    """What the steps say of programs, files and options holds in this tree. No GPU is needed."""

    def setUp(self):
        super().setUp()
        self.setup = steps.Setup(ROOT, self.folder, self.folder, self.folder, dict(os.environ),
                                 dict(os.environ), DEVICE, FACTS, "python3", dry=True)

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
