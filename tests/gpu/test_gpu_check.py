#!/usr/bin/env python3
"""The logic of tools/gpu-check, which needs no GPU: what counts as right, what the machine has,
tables and files."""

import json
import math
import os
import unittest

from gpu_check_case import ROOT, Folder, document, result  # first: it finds the rest
import deps
import judge
import machine
import report
import runner
import steps
import tap
import timetable


# ---- judging -------------------------------------------------------------------------------------


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


# ---- the machine ---------------------------------------------------------------------------------


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

    def test_driver(self):
        """A driver with one device of capability 9.0."""
        class Driver:
            def cuInit(self, _flags):
                return 0

            def cuDeviceGetCount(self, count):
                count._obj.value = 1

            def cuDeviceGetName(self, name, _size, _device):
                name.value = b"GPU"

            def cuDeviceTotalMem_v2(self, size, _device):
                size._obj.value = 80 * 2**30

            def cuDeviceGetAttribute(self, value, attribute, _device):
                value._obj.value = {75: 9, 76: 0}[attribute]

        device, _ = machine.from_driver(lambda name: Driver())
        self.assertEqual(device, {"name": "GPU", "memory_bytes": 80 * 2**30, "count": 1,
                                  "capability": "9.0"})
        none = (None, "not here")
        found, _ = machine.find_device(lambda: none, lambda: ({"name": "GPU"}, None))
        self.assertIsNone(found["capability"])

    def test_gpu_arch(self):
        """Kernels for the device alone, where nvcc can make them."""
        nvcc = self.folder / "bin" / "nvcc"
        nvcc.parent.mkdir()
        nvcc.write_text("#!/bin/sh\necho compute_80; echo compute_90; echo compute_100\n")
        nvcc.chmod(0o755)
        for capability, arch in (("9.0", "90"), ("10.0", "100"), ("8.6", None), (None, None)):
            with self.subTest(capability=capability):
                self.assertEqual(machine.gpu_arch(self.folder, capability), arch)
        self.assertIsNone(machine.gpu_arch(self.folder / "nowhere", "9.0"))

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


# ---- report --------------------------------------------------------------------------------------


class Report(Folder):
    BAR = {"what": "resnet-50 bf16 / PyTorch eager", "value": 0.93, "wanted": 1.0, "met": False}

    def test_what_counts_as_correct(self):
        good = result("build")
        slow = result("speed", runner.MEASURED, timetable.SPEED, bars=[self.BAR])
        for others, correct in (
            ((), True),
            ((slow,), True),
            ((result("ranks", runner.NOT_RUN),), True),  # no MPI
            ((result("p2p", runner.NOT_RUN, timetable.SPEED, out_of_time=True),), True),
            ((result("ranks", runner.NOT_RUN, out_of_time=True),), False),
            ((result("ops", runner.FAILED),), False),
            ((result("speed", runner.FAILED, timetable.SPEED),), False),
        ):
            with self.subTest(others=[(r["name"], r["verdict"]) for r in others]):
                self.assertEqual(document(good, *others)["correct"], correct)
        self.assertFalse(document(result("build", runner.NOT_RUN))["correct"])
        self.assertFalse(document()["correct"])

    def test_table(self):
        text = report.table(document(
            result("build"), result("ops-bf16", runner.FAILED), result("ranks", runner.NOT_RUN),
            result("speed", runner.MEASURED, timetable.SPEED, bars=[self.BAR])))
        for words in ("NVIDIA Example 1, 80 GiB", "✓ build", "✗ ops-bf16", "failed: a reason",
                      "– ranks", "not run: a reason", "NOT REACHED", "failed: ops-bf16\n",
                      "1 passed, 0 prepared, 1 measured, 1 failed, 1 not run"):
            self.assertIn(words, text)

    def test_schema(self):
        good = document(result("build"),
                        result("s", runner.MEASURED, timetable.SPEED, bars=[self.BAR]))
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


if __name__ == "__main__":
    tap.main()
