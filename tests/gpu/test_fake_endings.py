#!/usr/bin/env python3
"""How runs on the fake runtime end: calls of CUDA that fail, no device, Ctrl-C; and what else a run
can be asked for.

Every failure is one message, with the documented exit code. Where the program ends in an orderly
way, nothing of the device is left (fake_program sees to that).
"""

import json
import os
import signal
import unittest

import fake_program  # first: it finds the modules below
import launch
import program
import safetensors_io
import small_model
import tap

# (what fails, what its message holds). Early calls are made while a run is opened, later ones while
# it trains; with a rank, two ranks run and only that one has the failure.
MEMORY, COPIES, KERNELS = "out of memory", "invalid argument", "too many resources"
LATER = "CUDA_LAUNCH_BLOCKING"
FAULTS = (
    ("allocation:1", MEMORY),
    ("allocation:4", MEMORY),
    ("allocation:9", MEMORY),
    ("handle:2", MEMORY),
    ("handle:5", MEMORY),
    ("handle:30", MEMORY),
    ("copy:1", COPIES),
    ("copy:9", COPIES),
    ("copy:40", COPIES),
    ("launch:1", KERNELS),
    ("launch:30", KERNELS),
    ("launch:200", KERNELS),
    ("wait:1", LATER),
    ("wait:40", LATER),
    ("wait:200", LATER),
)
OPENING = (
    ("allocation:4@1", MEMORY),
    ("allocation:12@1", MEMORY),
    ("allocation:13@1", MEMORY),
    ("handle:20@0", MEMORY),
    ("copy:2@1", COPIES),
    ("launch:10@0", KERNELS),
    ("wait:2@1", LATER),
)
TRAINING = (
    ("copy:40@0", COPIES),
    ("launch:130@1", KERNELS),
    ("wait:100@1", LATER),
)
INTERRUPTED = 130
# Probabilities have six decimals; sums of a few dozen products in fp32 change the last one.
PROBABILITY = 5e-6
LIMIT_S = 2.0  # from Ctrl-C to the end


class Endings(fake_program.Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.small = small_model.write(cls.folder)

    def run_small(self, ranks, fake, *arguments, backend="cuda"):
        with fake_program.told(fake):
            return launch.run(
                ranks, self.small, f"--backend={backend}", "--threads=1", "--epochs=1", *arguments
            )

    # ---- failures -----------------------------------------------------------------------------

    def test_failures_of_one_rank(self):
        for fault, words in FAULTS:
            with self.subTest(fault):
                ended = self.run_small(1, {"fail": fault})
                self.assert_one_message(ended, 1, f"^error: .*{words}")

    def test_failures_while_two_ranks_open(self):
        for fault, words in OPENING:
            with self.subTest(fault):
                rank = fault.partition("@")[2]
                ended = self.run_small(2, {"fail": fault})
                self.assert_one_message(ended, 1, f"^error: rank {rank}: .*{words}")

    def test_failures_while_two_ranks_train(self):
        for fault, words in TRAINING:
            with self.subTest(fault):
                rank = fault.partition("@")[2]
                ended = self.run_small(2, {"fail": fault})
                where = f"rank {rank}, stage {rank}, [A-Z_]+ of micro-batch \\d+, epoch 0"
                self.assert_one_message(ended, 1, f"^rank {rank}: error: {where}.*{words}")

    def test_failure_of_the_reservation(self):
        """The device has the memory and does not give it: no micro-batch is recommended."""
        ended = self.run_small(1, {"fail": "allocation:2"})
        self.assert_one_message(ended, 1, MEMORY)
        self.assertNotIn("that fits", ended.err[0])

    # ---- devices ------------------------------------------------------------------------------

    def test_no_device(self):
        for ranks in (1, 2):
            with self.subTest(ranks=ranks):
                ended = self.run_small(ranks, {"devices": 0})
                self.assert_one_message(ended, 2, "^error: no CUDA device: .*--backend")

    def test_no_device_and_auto(self):
        expected = self.run_small(1, {}, backend="auto")
        self.assertIn("Fake GPU", expected.out[0])
        ended = self.run_small(1, {"devices": 0}, backend="auto")
        self.assert_one_message(ended, 0, "^warning: --backend auto: .*there is no CUDA device: ")
        self.assertNotIn("Fake GPU", ended.out[0])
        ended = self.run_small(2, {"devices": 0}, backend="auto")
        said = "^rank 0: warning: --backend auto: .*there is no CUDA device: "
        self.assert_one_message(ended, 0, said)  # once for a host

    def test_ranks_find_different_backends(self):
        ended = self.run_small(2, {"devices": "0@1"}, backend="auto")
        words = "--backend auto: the ranks found different ones .cuda and .*write --backend"
        self.assert_one_message(ended, 2, f"^error: {words}")

    def test_interrupted(self):
        never_ends = ["--epochs=100000", "--eval-every=0", "--log-every=1"]
        for ranks in (1, 2):
            with self.subTest(ranks=ranks), fake_program.told({}):
                arguments = [self.small, "--backend=cuda", "--threads=1", *never_ends]
                with launch.Run(ranks, *arguments) as running:
                    running.wait_for("stdout", r"^step \d+", times=2)
                    if ranks > 1:
                        running.rank_pids()
                    os.kill(running.process.pid, signal.SIGINT)
                    running.wait_until_gone(LIMIT_S, launcher_s=LIMIT_S)
                    ended = running.end()
                    self.assertEqual(running.left_behind(), [], ended)
                if ranks == 1:
                    self.assertEqual(ended.status, INTERRUPTED, ended)
                self.assertNotEqual(ended.status, 0, ended)  # else it is mpirun's
                self.assertEqual(len(ended.err), 1, ended)
                self.assertRegex(ended.err[0], "interrupted|ended by a signal")

    # ---- what else there is -------------------------------------------------------------------

    def outputs(self, ranks):
        kinds = ("save", "log", "timing", "trace", "summary")
        files = {kind: self.folder / f"{kind}-of-{ranks}" for kind in kinds}
        arguments = [f"--{kind}={path}" for kind, path in files.items()]
        ended = self.run_small(ranks, {}, *arguments, "--schedule=1f1b", "--eval-every=1")
        self.assertEqual((ended.status, ended.err), (0, []), ended)
        return files

    def infer(self, ranks, weights, backend="cuda"):
        out = self.folder / f"{weights.name}-{backend}-{ranks}.csv"
        ended = self.run_small(
            ranks, {}, "--infer=test", f"--weights={weights}", f"--out={out}", backend=backend
        )
        self.assertEqual((ended.status, ended.err), (0, []), ended)
        return out.read_text().splitlines()

    def test_outputs(self):
        """Everything is written, says the same on one rank and on two, and agrees with itself."""
        alone, pair = self.outputs(1), self.outputs(2)
        self.assert_same_files(alone["save"], pair["save"])
        self.assertEqual(program.losses(alone["log"]), program.losses(pair["log"]))
        summaries = [json.loads(files["summary"].read_text()) for files in (alone, pair)]
        for name in ("test_accuracy", "test_loss", "train_loss"):
            self.assertEqual(summaries[0][name], summaries[1][name], name)
        micro_batches = -(-small_model.TRAIN_SAMPLES // 16) * 2
        for ranks, files in ((1, alone), (2, pair)):
            head, *rows = files["timing"].read_text().splitlines()
            self.assertEqual(len(rows), micro_batches * ranks)
            for row in rows:
                cells = dict(zip(head.split(","), row.split(",")))
                for kind in ("fwd", "bwd"):
                    self.assertGreater(float(cells[f"{kind}_us"]), 0, row)
                self.assertLess(float(cells["fwd_start_us"]), float(cells["bwd_start_us"]), row)
            events = json.loads(files["trace"].read_text())["traceEvents"]
            self.assertGreater(len(events), len(rows))

        got = self.infer(1, alone["save"])
        self.assertEqual(len(got), small_model.TEST_SAMPLES + 1)
        self.assertEqual(got, self.infer(2, alone["save"]))
        known = self.infer(1, alone["save"], backend="ref")
        self.assertEqual(known[0], got[0])
        for one, other in zip(known[1:], got[1:]):
            for a, b in zip(one.split(","), other.split(",")):
                self.assertAlmostEqual(float(a), float(b), delta=PROBABILITY)

    def test_init(self):
        """What was saved is where training goes on."""
        saved = self.outputs(1)["save"]
        again = self.folder / "again"
        arguments = [f"--init={saved}", f"--save={again}", "--lr=0", "--eval-every=0"]
        ended = self.run_small(1, {}, *arguments)
        self.assertEqual((ended.status, ended.err), (0, []), ended)
        before, after = map(safetensors_io.read_folder, (saved, again))
        for name, tensor in before.items():
            if "running" not in name:
                self.assertTrue((tensor == after[name]).all(), name)


if __name__ == "__main__":
    tap.main()
