#!/usr/bin/env python3
"""What a run writes down: --log, --timing, --trace, --summary, and what tools/plot makes of it.

One asynchronous run on four ranks writes everything; the files are compared with each other, with
an independent simulation of the schedule, and with what the clock allows.
"""

import collections
import csv
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree

import launch  # first: it finds the modules below
import async_reference
import program
import small_model
import tap

RANKS, EPOCHS, BATCH, MICRO_BATCH = 4, 3, 16, 8
VECTOR = """name: vector
input: {shape: [4]}
layers:
  - {name: fc1, kind: linear, features: 4}
  - {name: fc2, kind: linear, features: 3}
loss: {kind: mse}
train: {dataset: synthetic, samples: 32, batch: 8, epochs: 1}
"""
COLUMNS = (
    "rank,stage,epoch,step,micro_batch,samples,version,staleness,fwd_start_us,fwd_us,bwd_start_us,"
    "bwd_us,update_start_us,update_us,recv_act_wait_us,recv_grad_wait_us,send_wait_us,"
    "weight_start_us,weight_us"
)

# Clocks of ranks are compared by messages, whose way there and back takes a few µs when nothing
# else runs; four ranks on two cores may wait for each other for longer.
CLOCK_TOLERANCE_US = 100
ROUNDING_US = 0.002  # times are written with three decimals; a sum of two is off by two halves
RELATIVE = 1e-6  # the same numbers, written with nine digits

ISSUED_OPTIONS = """help version check stages check-gradients infer weights out init save plan-out
    dataset data samples shuffle crop flip batch micro-batch accumulate epochs steps optimizer lr
    momentum weight-decay clip lr-schedule milestones warmup seed eval-every schedule predict stash
    in-flight blocking-sends backend threads log timing trace summary debug""".split()
SUMMARY = """test_accuracy test_loss train_loss images_per_s steps epochs world schedule predict
    stash wall_s stages""".split()
STAGE = """rank layers parameters busy_us bubble recv_wait_us send_wait_us staleness_mean
    staleness_max ops_again peak_bytes predicted_bytes""".split()


def plan():
    """The micro-batches of an epoch and, for each stage, (version within the epoch, staleness) of
    each."""
    options = async_reference.Options(batch=BATCH, micro_batch=MICRO_BATCH)
    steps = async_reference.cut_epoch(small_model.TRAIN_SAMPLES, options)
    items = [item for step in steps for item in step]
    lists = [async_reference.stage_list(RANKS - 1 - s, len(items), 0) for s in range(RANKS)]
    staleness = async_reference.count_staleness(lists, items)
    versions = []
    for order in lists:
        version, seen = 0, {}
        for kind, m in order:
            if kind == "forward":
                seen[m] = version
            else:
                version += items[m].ends_step
        versions.append([seen[m] for m in range(len(items))])
    return steps, items, versions, staleness


class Outputs(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory()
        cls.folder = pathlib.Path(cls.temporary.name)
        partition = small_model.write(cls.folder)
        cls.ended = launch.succeed(
            RANKS,
            partition,
            f"--epochs={EPOCHS}",
            f"--batch={BATCH}",
            f"--micro-batch={MICRO_BATCH}",
            "--schedule=async",
            "--lr=0.01",
            f"--log={cls.folder}/run.jsonl",
            f"--timing={cls.folder}/timing.csv",
            f"--trace={cls.folder}/trace.json",
            f"--summary={cls.folder}/summary.json",
        )
        with open(cls.folder / "run.jsonl", encoding="utf-8") as file:
            cls.log = [json.loads(line) for line in file]
        with open(cls.folder / "timing.csv", encoding="utf-8") as file:
            cls.head = file.readline().rstrip("\n")
            file.seek(0)
            cls.timing = list(csv.DictReader(file))
        cls.trace = json.loads((cls.folder / "trace.json").read_text())["traceEvents"]
        cls.summary = json.loads((cls.folder / "summary.json").read_text())
        cls.steps, cls.items, cls.versions, cls.staleness = plan()

    @classmethod
    def tearDownClass(cls):
        cls.temporary.cleanup()

    def records(self, kind):
        return [record for record in self.log if record["type"] == kind]

    def assert_near(self, a, b, message=None):
        self.assertLessEqual(abs(a - b), RELATIVE * max(abs(a), abs(b)), message)

    # ---- log ----------------------------------------------------------------------------------

    def test_log(self):
        steps = self.records("step")
        per_epoch = len(self.steps)
        self.assertEqual(self.log[0]["type"], "run")
        self.assertEqual(self.log[-1]["type"], "end")
        self.assertEqual([r["step"] for r in steps], list(range(1, EPOCHS * per_epoch + 1)))
        epochs = [epoch for epoch in range(EPOCHS) for _ in range(per_epoch)]
        self.assertEqual([r["epoch"] for r in steps], epochs)
        sizes = [sum(item.end - item.first for item in step) for step in self.steps]
        self.assertEqual([r["samples"] for r in steps], sizes * EPOCHS)
        self.assertTrue(all(r["lr"] == 0.01 and 0 < r["loss"] < 100 for r in steps))
        for record in steps:  # a share of whole samples
            right = record["accuracy"] * record["samples"]
            self.assertAlmostEqual(right, round(right), places=6)
        evaluations = self.records("eval")
        self.assertEqual([r["epoch"] for r in evaluations], list(range(EPOCHS)))
        self.assertEqual(
            [r["step"] for r in evaluations], [per_epoch * (e + 1) for e in range(EPOCHS)]
        )

    def test_log_says_what_ran(self):
        run = self.log[0]
        self.assertEqual(run["settings"]["batch"], BATCH)
        self.assertEqual(run["settings"]["micro-batch"], MICRO_BATCH)
        self.assertEqual(run["settings"]["schedule"], "async")
        self.assertEqual([stage["rank"] for stage in run["stages"]], list(range(RANKS)))

    def test_log_of_a_model_without_classes(self):
        """An accuracy that means nothing is null, not 0."""
        partition, log = self.folder / "vector.yaml", self.folder / "vector.jsonl"
        partition.write_text(VECTOR)
        for ranks in (1, 2):
            with self.subTest(ranks=ranks):
                ended = launch.succeed(ranks, partition, f"--log={log}")
                records = [json.loads(line) for line in log.read_text().splitlines()]
                steps = [r for r in records if r["type"] == "step"]
                self.assertGreater(len(steps), 1)
                self.assertTrue(all(r["loss"] > 0 and r["accuracy"] is None for r in steps), steps)
                self.assertIsNone(next(r for r in records if r["type"] == "eval")["test_accuracy"])
                self.assertNotIn("acc", "\n".join(ended.out))

    # ---- timing -------------------------------------------------------------------------------

    def test_timing_has_every_micro_batch(self):
        self.assertEqual(self.head, COLUMNS)
        steps_before = [sum(i.ends_step for i in self.items[:m]) for m in range(len(self.items))]
        expected = {
            (rank, epoch, m): (steps_before[m], item.end - item.first)
            for rank in range(RANKS)
            for epoch in range(EPOCHS)
            for m, item in enumerate(self.items)
        }
        got = {
            (int(r["rank"]), int(r["epoch"]), int(r["micro_batch"])): (
                int(r["step"]),
                int(r["samples"]),
            )
            for r in self.timing
        }
        self.assertEqual(len(self.timing), len(expected), "a row is there twice")
        self.assertEqual(got, expected)
        self.assertTrue(all(row["rank"] == row["stage"] for row in self.timing))

    def test_staleness_and_version(self):
        """Every epoch begins with an empty pipeline: so does the delay."""
        self.assertGreater(max(map(max, self.staleness)), 1)
        for row in self.timing:
            stage, m, epoch = int(row["stage"]), int(row["micro_batch"]), int(row["epoch"])
            version = epoch * len(self.steps) + self.versions[stage][m]
            with_where = f"stage {stage}, epoch {epoch}, micro-batch {m}"
            self.assertEqual(int(row["staleness"]), self.staleness[stage][m], with_where)
            self.assertEqual(int(row["version"]), version, with_where)

    def test_times(self):
        for row in self.timing:
            for name in ("fwd_us", "bwd_us"):
                self.assertGreater(float(row[name]), 0, row)
            for name in ("recv_act_wait_us", "recv_grad_wait_us", "send_wait_us"):
                self.assertGreaterEqual(float(row[name]), 0, row)
            if row["rank"] == "0":
                self.assertEqual(float(row["recv_act_wait_us"]), 0, row)
            updates = self.items[int(row["micro_batch"])].ends_step
            self.assertEqual(row["update_us"] != "", updates, row)
            self.assertEqual(row["update_start_us"] != "", updates, row)

    def test_a_rank_does_one_thing_at_a_time(self):
        for rank in range(RANKS):
            intervals = []
            for row in self.timing:
                if int(row["rank"]) != rank:
                    continue
                for kind in ("fwd", "bwd", "update"):
                    if row[f"{kind}_start_us"]:
                        start = float(row[f"{kind}_start_us"])
                        intervals.append((start, start + float(row[f"{kind}_us"]), kind))
            intervals.sort()
            for (_, end, _), (start, _, _) in zip(intervals, intervals[1:]):
                self.assertLessEqual(end, start + ROUNDING_US, f"rank {rank}: {intervals}")

    # ---- trace --------------------------------------------------------------------------------

    def events(self, kind):
        """{(stage, epoch, micro-batch): (start, end)} in µs."""
        found = {}
        for event in self.trace:
            if event["ph"] == "X" and event["cat"] == kind:
                m = int(re.fullmatch(rf"{kind} (\d+)", event["name"])[1])
                key = (event["pid"], event["args"]["epoch"], m)
                self.assertNotIn(key, found)
                found[key] = (event["ts"], event["ts"] + event["dur"])
        return found

    def test_trace_is_the_timing(self):
        for kind, column in (("forward", "fwd"), ("backward", "bwd"), ("update", "update")):
            events = self.events(kind)
            rows = [row for row in self.timing if row[f"{column}_us"]]
            self.assertEqual(len(events), len(rows))
            for row in rows:
                key = (int(row["rank"]), int(row["epoch"]), int(row["micro_batch"]))
                start = float(row[f"{column}_start_us"])
                self.assertAlmostEqual(events[key][0], start, delta=ROUNDING_US)
                end = start + float(row[f"{column}_us"])
                self.assertAlmostEqual(events[key][1], end, delta=ROUNDING_US)

    def test_trace_of_an_interrupted_run(self):
        """It is whole, with the epochs that were."""
        partition = small_model.write(pathlib.Path(self.enterContext(tempfile.TemporaryDirectory())))
        path = self.folder / "cut.json"
        for ranks in (1, 2):
            with self.subTest(ranks=ranks):
                arguments = ["--epochs=1000000", "--log-every=1", f"--trace={path}"]
                with launch.Run(ranks, partition, *arguments) as running:
                    running.wait_for("stdout", rf"^step {3 * small_model.TRAIN_SAMPLES // 16 + 4}/")
                    running.process.send_signal(signal.SIGTERM)
                    self.assertNotEqual(running.end().status, 0)
                events = json.loads(path.read_text())["traceEvents"]
                epochs = [e["args"]["epoch"] for e in events if e["ph"] == "X"]
                self.assertEqual(sorted(set(epochs)), list(range(max(epochs) + 1)))
                self.assertGreaterEqual(max(epochs), 2)

    def test_trace_in_a_pipe(self):
        partition = small_model.write(pathlib.Path(self.enterContext(tempfile.TemporaryDirectory())))
        pipe = self.folder / "pipe"
        os.mkfifo(pipe)
        with launch.Run(1, partition, "--epochs=3", f"--trace={pipe}") as running:
            events = json.loads(pipe.read_text())["traceEvents"]
            self.assertEqual(running.end().status, 0)
        self.assertEqual({e["args"]["epoch"] for e in events if e["ph"] == "X"}, {0, 1, 2})

    def test_trace_names_the_stages(self):
        names = {e["pid"]: e["args"]["name"] for e in self.trace if e["name"] == "process_name"}
        self.assertEqual(names, {rank: f"stage {rank}" for rank in range(RANKS)})

    def test_one_clock(self):
        """What a stage needs was finished before it began, by one clock."""
        forward, backward = self.events("forward"), self.events("backward")
        for (stage, epoch, m), (start, _) in forward.items():
            if stage > 0:
                before = forward[stage - 1, epoch, m][1]
                self.assertLess(before, start + CLOCK_TOLERANCE_US, f"forward {stage} {epoch} {m}")
            after = backward[stage, epoch, m][0]
            self.assertLessEqual(start, after)
            if stage + 1 < RANKS:
                before = backward[stage + 1, epoch, m][1]
                # The gradient of the inputs is sent before that of the weights is computed: the
                # whole backward need not be over, but must have begun.
                began = backward[stage + 1, epoch, m][0]
                self.assertLess(began, after + CLOCK_TOLERANCE_US, f"backward {stage} {epoch} {m}")
                self.assertLess(began, before)

    # ---- summary ------------------------------------------------------------------------------

    def test_summary_has_all_fields(self):
        self.assertEqual([name for name in SUMMARY if name not in self.summary], [])
        for stage in self.summary["stages"]:
            self.assertEqual([name for name in STAGE if name not in stage], [])

    def test_summary_of_the_run(self):
        s = self.summary
        steps = EPOCHS * len(self.steps)
        self.assertEqual((s["steps"], s["epochs"], s["world"]), (steps, EPOCHS, RANKS))
        self.assertEqual((s["schedule"], s["predict"], s["stash"]), ("async", "msnag", False))
        self.assertEqual((s["sync_epochs"], s["classes"]), (0, small_model.CLASSES))
        last = self.records("eval")[-1]
        self.assert_near(s["test_accuracy"], last["test_accuracy"])
        self.assert_near(s["test_loss"], last["test_loss"])
        right = s["test_accuracy"] * small_model.TEST_SAMPLES
        self.assertAlmostEqual(right, round(right), places=5)
        epoch = [r for r in self.records("step") if r["epoch"] == EPOCHS - 1]
        total = sum(r["loss"] * r["samples"] for r in epoch)
        self.assert_near(s["train_loss"], total / small_model.TRAIN_SAMPLES)
        self.assertTrue(0 < s["wall_s"] < self.ended.seconds, s["wall_s"])
        samples = EPOCHS * small_model.TRAIN_SAMPLES
        self.assertGreaterEqual(s["images_per_s"], samples / s["wall_s"])

    def test_summary_of_the_stages(self):
        stages = self.summary["stages"]
        self.assertEqual([stage["rank"] for stage in stages], list(range(RANKS)))
        layers = [name for stage in stages for name in stage["layers"]]
        self.assertEqual(layers, small_model.NAMES)
        sizes = collections.Counter()
        for name, shape in small_model.SHAPES.items():
            if "running" not in name:
                size = 1
                for dimension in shape:
                    size *= dimension
                sizes[name.split(".")[0]] += size
        for stage in stages:
            self.assertEqual(stage["parameters"], sum(sizes[name] for name in stage["layers"]))
            rank = stage["rank"]
            rows = [row for row in self.timing if int(row["rank"]) == rank]
            staleness = [int(row["staleness"]) for row in rows]
            self.assert_near(stage["staleness_mean"], sum(staleness) / len(staleness))
            self.assertEqual(stage["staleness_max"], max(staleness))
            self.assertTrue(0 <= stage["bubble"] <= 1, stage["bubble"])
            for name in ("busy_us", "peak_bytes", "predicted_bytes"):
                self.assertGreater(stage[name], 0)
            waits = stage["recv_wait_us"] + stage["send_wait_us"]
            self.assertGreaterEqual(waits, 0)
            self.assertLessEqual(stage["busy_us"] + waits, 1e6 * self.summary["wall_s"])
            at_work = sum(
                float(row[name] or 0) for row in rows for name in ("fwd_us", "bwd_us", "update_us")
            )
            # Busy is more than these by what is around them: loading, and starting messages.
            self.assertGreaterEqual(stage["busy_us"], at_work * (1 - RELATIVE))

    # ---- console ------------------------------------------------------------------------------

    def test_console(self):
        text = "\n".join(self.ended.out)
        self.assertRegex(text, r"model +small: \d+ parameters in 10 layers, 4 stages")
        last = self.records("step")[-1]
        steps = EPOCHS * len(self.steps)
        self.assertIn(f"step {steps}/{steps} | loss {last['loss']:.4f}", text)
        self.assertEqual(len(re.findall(r"^epoch \d+/3 ", text, re.M)), EPOCHS)
        accuracy = f"test accuracy {100 * self.summary['test_accuracy']:.2f}%"
        self.assertRegex(text, rf"(?m)^done: {steps} steps.*{accuracy}")

    def test_less_than_an_epoch(self):
        """What is predicted is said to be what it is."""
        ended = launch.succeed(1, self.folder / "small.yaml", "--steps=1", "--eval-every=0")
        self.assertRegex("\n".join(ended.out), r"predicted .* these steps")
        self.assertNotIn("an epoch took", "\n".join(ended.out))

    def test_no_room_for_the_output(self):
        for arguments in (["--help"], [self.folder / "small.yaml", "--eval-every=0"]):
            with self.subTest(str(arguments[0])), open("/dev/full", "w", encoding="utf-8") as full:
                command = [program.PROGRAM, *map(str, arguments)]
                done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False)
                self.assertEqual(done.returncode, 1, done.stderr)
                self.assertRegex(done.stderr.decode(), r"^error: .*output\n$")

    # ---- options ------------------------------------------------------------------------------

    def test_help(self):
        ended = launch.succeed(1, "--help")
        text = "\n".join(ended.out)
        found = set(re.findall(r"(?m)^  --(?:\[no-\])?([a-z0-9-]+)", text))
        self.assertEqual(set(ISSUED_OPTIONS) - found, set())
        self.assertEqual(set(self.summary["settings"]) - found, set())
        self.assertGreater(len(re.findall(r"(?m)^[A-Z][a-z ]+:$", text)), 3, "not grouped")
        self.assertLessEqual(max(map(len, ended.out)), 100)

    def test_version(self):
        ended = launch.succeed(1, "--version")
        self.assertRegex("\n".join(ended.out), r"^pipetrain \d+\.\d+\.\d+$")

    def test_never_evaluated(self):
        """--eval-every 0: not at the end either, and no test data is wanted."""
        data = self.folder / "untested"
        data.mkdir()
        for path in (self.folder / "data").glob("train-*"):
            (data / path.name).write_bytes(path.read_bytes())
        for ranks in (1, 2):
            with self.subTest(ranks=ranks):
                ended = launch.succeed(
                    ranks,
                    self.folder / "small.yaml",
                    f"--data={data}",
                    "--eval-every=0",
                    f"--log={self.folder}/untested.jsonl",
                    f"--summary={self.folder}/untested.json",
                )
                log = (self.folder / "untested.jsonl").read_text()
                summary = json.loads((self.folder / "untested.json").read_text())
                self.assertNotIn('"eval"', log)
                self.assertIsNone(summary["test_accuracy"])
                self.assertIsNone(summary["test_loss"])
                self.assertNotIn("test accuracy", "\n".join(ended.out))

    def test_evaluated_now_and_then(self):
        """--eval-every 2 of 3 epochs: after the second and at the end."""
        log = self.folder / "now-and-then.jsonl"
        options = ["--eval-every=2", "--epochs=3", f"--log={log}"]
        launch.succeed(2, self.folder / "small.yaml", *options)
        records = [json.loads(line) for line in log.read_text().splitlines()]
        self.assertEqual([r["epoch"] for r in records if r["type"] == "eval"], [1, 2])

    # ---- pictures -----------------------------------------------------------------------------

    def plot(self, *arguments):
        tool = program.ROOT / "tools" / "plot"
        return subprocess.run(
            [sys.executable, "-B", tool, *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=launch.TIME_LIMIT_S,
            check=False,
        )

    def test_plot(self):
        for kind, source in (("loss", "run.jsonl"), ("timeline", "timing.csv")):
            with self.subTest(kind):
                picture = self.folder / f"{kind}.svg"
                done = self.plot(kind, self.folder / source, "-o", picture)
                self.assertEqual(done.returncode, 0, done.stderr)
                root = xml.etree.ElementTree.parse(picture).getroot()
                self.assertEqual(root.tag, "{http://www.w3.org/2000/svg}svg")
                self.assertGreater(len(list(root.iter())), 20)

    def test_plot_of_validation(self):
        """Its own curve, dots and name beside those of the test set, and alone."""
        step = {"type": "step", "epoch": 0, "loss": 2.0, "accuracy": 0.5}
        held = {"type": "validation", "validation_loss": 1.5, "validation_accuracy": 0.25}
        test = {"type": "eval", "test_loss": 1.6, "test_accuracy": 0.75}
        log, picture = self.folder / "held.jsonl", self.folder / "held.svg"
        for kept, names in (((held,), {"held-out"}), ((held, test), {"held-out", "test"})):
            with self.subTest(names):
                records = [{**record, "step": at} for at in (1, 2, 3) for record in (step, *kept)]
                log.write_text("".join(json.dumps(record) + "\n" for record in records))
                done = self.plot("loss", log, "-o", picture)
                self.assertEqual(done.returncode, 0, done.stderr)
                elements = list(xml.etree.ElementTree.parse(picture).getroot().iter())
                kinds = [element.get("class") for element in elements]
                words = [element.text for element in elements if element.text]
                for kind, name in (("held-out", "validation"), ("test", "test")):
                    drawn = kind in names
                    # In two panels and the legend; of three evaluations in both, and there.
                    self.assertEqual(kinds.count(kind), 3 * drawn)
                    self.assertEqual(kinds.count(f"{kind}-dot"), 7 * drawn)
                    self.assertEqual(words.count(name), drawn)
                self.assertIn("valid. 25%", words)

    def test_plot_of_something_else(self):
        for kind, source in (("loss", "timing.csv"), ("timeline", "run.jsonl"), ("loss", "none")):
            with self.subTest(kind, source=source):
                picture = self.folder / "wrong.svg"
                done = self.plot(kind, self.folder / source, "-o", picture)
                self.assertEqual(done.returncode, 2, done.stderr)
                self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
                self.assertFalse(picture.exists())


if __name__ == "__main__":
    tap.main()
