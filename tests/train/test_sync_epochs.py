#!/usr/bin/env python3
"""--sync-epochs: the first epochs are those of 1f1b, bit for bit; then asynchrony begins, with every
rule counted from there, as the independent simulation has it."""

import dataclasses
import json
import pathlib
import tempfile
import unittest

import async_reference
import program
import tap
import test_async

BATCH, STEPS = test_async.BATCH, test_async.STEPS  # ten steps an epoch, two epochs and three steps
LENET5 = program.ROOT / "partitions" / "lenet5.yaml"


def variants(stages):
    """(name, options) of all that late forwards may be met with."""

    def of(**options):
        return async_reference.Options(**{"batch": BATCH, "micro_batch": 2, **options})

    yield "none", of()
    yield "msnag", of(predict="msnag", decay=0.02)
    yield "stash", of(stash=True)
    yield "msnag, stash", of(predict="msnag", stash=True)
    yield "spectrain", of(predict="spectrain", micro_batch=BATCH)
    yield "pipemare-lr", of(pipemare_lr=0.7, micro_batch=BATCH)
    yield "pipemare-dc", of(pipemare_dc=0.135)
    yield "gap-aware", of(gap_aware=True)
    yield "aggmsnag", of(predict="aggmsnag")
    yield "recompute", of(recompute=True)
    yield "nesterov-last", of(nesterov_last=True)
    yield "in flight", of(in_flight=2)
    yield "adam", test_async.adam("adam", predict="msnag", decay=0.1)
    if stages <= 3:
        yield "2bw", of(two_versions=True)
    if stages == 2:
        yield "2bw, M = 1", of(two_versions=True, micro_batch=BATCH)


class SyncEpochs(test_async.Comparing):
    def test_against_the_simulation(self):
        """The short last epoch may be the only asynchronous one."""
        for stages in (2, 3, 4):
            for name, options in variants(stages):
                for epochs in (1, 2):
                    with self.subTest(name, stages=stages, sync_epochs=epochs):
                        chosen = dataclasses.replace(options, sync_epochs=epochs)
                        self.compare(stages, chosen, STEPS)

    def test_that_the_simulation_tells_them_apart(self):
        """One epoch more or fewer of them is far above the tolerance of the comparison."""
        for stages in (2, 3, 4):
            for name, options in variants(stages):
                final = []
                for epochs in range(3):
                    chosen = dataclasses.replace(options, sync_epochs=epochs)
                    problem = test_async.problem(stages)
                    _, history = async_reference.simulate(*problem, STEPS, chosen)
                    final.append([w for stage in history[-1] for w in stage])
                for a, b in ((0, 1), (1, 2)):
                    with self.subTest(name, stages=stages, epochs=(a, b)):
                        apart = max(abs(x - y) for x, y in zip(final[a], final[b]))
                        self.assertGreater(apart, 10 * test_async.TOLERANCE)

    def losses(self, ranks, folder, **options):
        """{epoch: losses of its steps}"""
        log = folder / "log.jsonl"
        chosen = {"samples": 100, "batch": 16, "micro_batch": 4, **options}
        program.run(ranks, LENET5, log=log, dataset="synthetic", eval_every=0, threads=1, **chosen)
        found = {}
        for record in map(json.loads, log.read_text(encoding="utf-8").splitlines()):
            if record["type"] == "step":
                found.setdefault(record["epoch"], []).append(record["loss"])
        return found

    def test_first_epochs_have_the_bits_of_1f1b(self):
        epochs = 4
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            for ranks in (2, 4):
                flushed = self.losses(ranks, folder, epochs=epochs, schedule="1f1b")
                for predict in ("none", "msnag"):
                    for stash in (False, True):
                        with self.subTest(ranks=ranks, predict=predict, stash=stash):
                            late = self.losses(ranks, folder, epochs=epochs, predict=predict,
                                               stash=stash, sync_epochs=epochs - 1)
                            for epoch in range(epochs - 1):
                                self.assertEqual(late[epoch], flushed[epoch])
                            self.assertNotEqual(late[epochs - 1], flushed[epochs - 1])

    def test_lists_of_ones_own_and_peaks(self):
        """Late on the first stage alone, which then has two micro-batches where 1f1b has three."""
        late = [("F", 0), ("F", 1), ("B", 0), ("B", 1), ("F", 2), ("F", 3), ("B", 2), ("F", 4),
                ("B", 3), ("B", 4), ("F", 5), ("B", 5)]
        plain = [(kind, m) for m in range(6) for kind in "FB"]
        lines = ["rank,action,micro_batch"]
        for rank, order in enumerate((late, plain, plain)):
            for kind, m in order:
                words = ("FORWARD",) if kind == "F" else ("BACKWARD_INPUT", "BACKWARD_WEIGHT")
                lines += [f"{rank},{word},{m}" for word in words]
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            (folder / "own.csv").write_text("\n".join(lines) + "\n")
            same = {"samples": 12, "batch": 6, "micro_batch": 2, "epochs": 3}
            late = self.losses(3, folder, schedule=folder / "own.csv", sync_epochs=2, predict="none",
                               stash=True, summary=folder / "summary.json", **same)
            stages = json.loads((folder / "summary.json").read_text())["stages"]
            flushed = self.losses(3, folder, schedule="1f1b", **same)
        self.assertEqual([late[0], late[1]], [flushed[0], flushed[1]])
        self.assertNotEqual(late[2], flushed[2])
        self.assertEqual([s["stash_peak"] for s in stages], [3, 2, 1])
        self.assertEqual([s["staleness_max"] for s in stages], [1, 0, 0])
        for stage in stages:
            self.assertEqual(stage["predicted_bytes"], stage["peak_bytes"])

    def test_predicted_time_is_the_mean(self):
        """Two stages, each 50 ms a forward and twice 50 ms a backward, four steps an epoch. A step
        that is flushed takes F F B B W = 250 ms, so 1.0 s an epoch. Else the second stage has the
        first micro-batch after 50 ms and is then busy for 4 x 150 ms, and the first one's last
        backward ends 50 ms behind its last: 0.7 s."""
        with tempfile.TemporaryDirectory() as name:
            times = pathlib.Path(name) / "times.csv"
            times.write_text("stage,forward_us,backward_input_us,backward_weight_us,update_us\n"
                             "*,50000,50000,50000,0\n")
            for sync_epochs, seconds in ((0, "0.7"), (1, "0.8"), (2, "0.9")):
                text = program.run(2, LENET5, backend="clock", clock=times, dataset="synthetic",
                                   samples=4, batch=1, micro_batch=1, epochs=3,
                                   sync_epochs=sync_epochs, predict="none")
                with self.subTest(sync_epochs=sync_epochs):
                    self.assertIn(f"predicted  {seconds} s an epoch", text)
                    said = "1f1b for" in text
                    self.assertEqual(said, sync_epochs > 0, text)


if __name__ == "__main__":
    tap.main()
