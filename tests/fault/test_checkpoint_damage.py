#!/usr/bin/env python3
"""Checkpoints that were damaged, half-written or could not be written; runs that were killed.

tests/unit/test_checkpoint_faults.c fails, and kills, the writer at each of its system calls; here the
whole program says what happened and goes on.
"""

import os
import shutil
import signal

import checkpoints
import launch  # first: it finds the modules below
import tap

SYNC = ["--schedule=1f1b"]
EPOCHS, EVERY = 30, 10  # long enough to be killed on the way
TOO_SMALL = ["bash", "-c", 'ulimit -f 1; exec "$@"', "limited"]  # files of 1 KiB at most


class Damage(checkpoints.Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.straight = cls.folder / "straight"
        checkpoints.train(1, cls.partition, cls.straight, *SYNC)

    def again(self, spoil):
        """A copy up to step 16, which `spoil` does something to."""
        shutil.rmtree(self.folder / "again", ignore_errors=True)
        directory = checkpoints.cut_back(self.straight, 16, self.folder / "again")
        spoil(checkpoints.step_folder(directory, 16))
        return directory

    def go_on(self, directory, words, begin=12):
        """It passes over step 16 with a word, and ends as it should."""
        ended = checkpoints.train(1, self.partition, directory, f"--resume={directory}", *SYNC)
        said = "\n".join(ended.err)
        for word in ("step-000016", *words, "passed over"):
            self.assertIn(word, said)
        self.assertIn(f"from step {begin} of", "\n".join(ended.out))
        for step in (16, checkpoints.STEPS):
            self.assertTrue(checkpoints.is_good(directory, step))
            self.assertEqual(
                checkpoints.bytes_of(directory, step), checkpoints.bytes_of(self.straight, step)
            )
        self.assertEqual(checkpoints.latest(directory), checkpoints.STEPS)

    def test_a_byte_is_another(self):
        def flip(folder):
            path = folder / "layer-003-conv2.safetensors"
            blob = bytearray(path.read_bytes())
            blob[-7] ^= 0x10
            path.write_bytes(blob)

        directory = self.again(flip)
        self.go_on(directory, ["broken", "layer-003-conv2.safetensors", "checksum"])
        aside = directory / "step-000016.broken"
        self.assertTrue((aside / "manifest.json").exists(), "it may be looked at")

    def test_truncated(self):
        def cut(folder):
            path = folder / "layer-009-fc.safetensors"
            path.write_bytes(path.read_bytes()[:-4])

        self.go_on(self.again(cut), ["broken", "layer-009-fc.safetensors", "bytes"])

    def test_swapped(self):
        def swap(folder):
            one, other = (folder / f"layer-00{n}.safetensors" for n in ("0-conv1", "1-bn1"))
            first, second = one.read_bytes(), other.read_bytes()
            one.write_bytes(second)
            other.write_bytes(first)

        self.go_on(self.again(swap), ["broken", "layer-000-conv1.safetensors"])

    def test_the_manifest(self):
        def change(folder):
            path = folder / "manifest.json"
            text = path.read_text()
            path.write_text(text.replace('"epoch_step": 4', '"epoch_step": 5'))
            self.assertNotEqual(path.read_text(), text)

        def cut(folder):
            path = folder / "manifest.json"
            path.write_text(path.read_text()[:-20])

        for spoil, words in ((change, "checksum is another"), (cut, "not all of one")):
            with self.subTest(words):
                self.go_on(self.again(spoil), ["broken", "manifest.json", words])

    def test_half_written(self):
        self.go_on(self.again(lambda folder: (folder / "manifest.json").unlink()), ["half-written"])

    def test_nothing_is_whole(self):
        """Whoever has checkpoints does not want to start from the beginning unasked."""
        directory = self.again(lambda folder: None)
        for step in checkpoints.steps(directory):
            (checkpoints.step_folder(directory, step) / "layer-009-fc.safetensors").unlink()
        ended = checkpoints.train(
            1, self.partition, directory, f"--resume={directory}", *SYNC, expect=2
        )
        self.assertIn("none of its 4 steps is whole", "\n".join(ended.err))

    def test_only_half_written(self):
        directory = self.folder / "begun"
        (directory / "step-000004").mkdir(parents=True)
        (directory / "step-000004" / "layer-000-conv1.safetensors").write_bytes(b"part")
        ended = checkpoints.train(1, self.partition, directory, f"--resume={directory}", *SYNC)
        self.assertIn("starts from the beginning", "\n".join(ended.err + ended.out))
        self.assertEqual(
            checkpoints.bytes_of(directory, 4), checkpoints.bytes_of(self.straight, 4)
        )

    def test_files_are_too_large(self):
        """Each failure is a warning; that the last one failed is the run's."""
        directory = self.folder / "full"
        ended = checkpoints.train(
            1, self.partition, directory, *SYNC, prefix=TOO_SMALL, expect=1
        )
        said = "\n".join(ended.err)
        for step in (4, 8, 12, 16, 18):
            self.assertIn(f"no checkpoint of step {step}: ", said)
        self.assertIn("layer-003-conv2.safetensors: cannot be written: File too large", said)
        self.assertIn("the last checkpoint, of step 18, could not be written", said)
        self.assertIn("done: 18 steps", "\n".join(ended.out))
        self.assertEqual(sorted(p.name for p in directory.iterdir()), ["hosts.json", "launch"])


class Killed(checkpoints.Case):
    def command(self, directory):
        return [
            self.partition,
            f"--checkpoint={directory}",
            f"--resume={directory}",
            f"--every={EVERY}",
            f"--epochs={EPOCHS}",
        ]

    def test_killed_ranks(self):
        """Asynchronous, on two ranks, each of which is killed once: the same bits at the end."""
        straight, often = self.folder / "straight", self.folder / "often"
        ended = launch.run(2, *self.command(straight))
        self.assertEqual(ended.status, 0, ended)
        for rank in range(2):
            with launch.Run(2, *self.command(often)) as running:
                pids = running.rank_pids()
                running.wait_for("stdout", r"^checkpoint of step")
                os.kill(pids[rank], signal.SIGKILL)
                self.assertNotEqual(running.end().status, 0)
            self.assertTrue(checkpoints.is_good(often, checkpoints.latest(often)))
        ended = launch.run(2, *self.command(often))
        self.assertEqual(ended.status, 0, ended)
        self.assertEqual((often / "launch").read_text(), "3\n")
        last = EPOCHS * 6
        self.assertEqual(
            checkpoints.bytes_of(often, last), checkpoints.bytes_of(straight, last)
        )


if __name__ == "__main__":
    tap.main()
