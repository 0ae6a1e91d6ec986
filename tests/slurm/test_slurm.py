#!/usr/bin/env python3
"""tools/slurm under a real Slurm: jobs that are interrupted end with the bits of one that was not.

The cluster is two daemons on one machine (cluster.py): what they start, signal, kill and requeue is
what they would on two machines; only the network between these is not there. A node is lost by
telling Slurm so. Ranks are held (SIGSTOP) while something is to happen to them, so that short
trainings are long enough.
"""

import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import unittest

import cluster

sys.path.insert(0, str(cluster.ROOT / "tests" / "fault"))

import checkpoints  # noqa: E402
import launch  # noqa: E402
import program  # noqa: E402
import tap  # noqa: E402

README = (program.ROOT / "README.md").read_text(encoding="utf-8")
TOOLS = program.ROOT / "tools" / "slurm"
RANKS = 2
EPOCHS = 50
LAST = EPOCHS * checkpoints.STEPS // 3
EVERY = 25
SYNC = ["--schedule=1f1b"]  # where it drains, and so which steps are interrupted, is of no account
RUN_ME_AGAIN = 75
LIMIT_S = 60  # the shortest limit that Slurm has
# Slurm looks every 30 s for jobs that are near their end, or will be before it looks again.
WARN_S = 35


class Slurm(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        try:
            cls.slurm = cls.enterClassContext(cluster.Cluster())
        except cluster.Unavailable as missing:
            raise unittest.SkipTest(str(missing)) from None
        cls.folder = pathlib.Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        cls.partition = checkpoints.write_model(cls.folder)
        # Meanwhile the others run; one of them loses the second node.
        near = ["-N1", f"--nodelist={cluster.NODES[0]}", "--time=1", f"--warn={WARN_S}"]
        cls.near_its_limit = cls.submit("limit", *SYNC, slurm=near)
        cls.hold(cls.near_its_limit, "limit")
        cls.straight = {}
        for name, options in (("async", []), ("sync", SYNC)):
            ended = launch.run(RANKS, *cls.words(name, *options)[1:])
            if ended.status != 0:
                raise AssertionError(str(ended))
            cls.straight[name] = checkpoints.bytes_of(cls.folder / name, LAST)

    @classmethod
    def words(cls, name, *options):
        """A training with checkpoints in the folder of this name."""
        return [
            program.PROGRAM,
            str(cls.partition),
            f"--epochs={EPOCHS}",
            f"--every={EVERY}",
            f"--checkpoint={cls.folder / name}",
            f"--resume={cls.folder / name}",
            *options,
        ]

    @classmethod
    def submit(cls, name, *options, slurm=()):
        """Its number. Two ranks, on a node each."""
        asked = ["-N2", f"-n{RANKS}", f"--output={cls.folder / name}.txt", *slurm]
        said = cls.slurm.call(TOOLS / "sbatch", *asked, "--", *cls.words(name, *options))
        return int(re.fullmatch(r"Submitted batch job (\d+)\n", said)[1])

    @classmethod
    def hold(cls, job, name):
        """Stops a job's ranks in mid-training, after a checkpoint; their pids. They are found while
        MPI starts, and get on in short turns: however fast they train, they are not done before."""
        latest = cls.folder / name / "latest"
        cls.slurm.wait_for("ranks", lambda: len(cls.slurm.ranks(job)) == RANKS)
        ranks = cls.slurm.ranks(job)

        def has_checkpoint():
            cls.send(signal.SIGSTOP, ranks)
            found = latest.exists()
            if not found:
                cls.send(signal.SIGCONT, ranks)
            return found

        cls.slurm.wait_for("checkpoint", has_checkpoint)
        return ranks

    @staticmethod
    def send(number, ranks):
        for pid in ranks:
            os.kill(pid, number)

    def said(self, name):
        """What the job wrote, in all its starts."""
        return (self.folder / f"{name}.txt").read_text(errors="replace")

    def wait_for_words(self, name, pattern):
        return self.slurm.wait_for(
            f"{pattern!r} in {name}.txt", lambda: re.search(pattern, self.said(name))
        )

    def assert_bits(self, name, schedule):
        self.assertEqual(checkpoints.bytes_of(self.folder / name, LAST), self.straight[schedule])

    def assert_went_on(self, job, name, schedule):
        """The job ends, after another start that went on from a checkpoint, with the right bits."""
        over = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")
        self.slurm.wait_for(f"end of {name}", lambda: self.slurm.job(job)["JobState"] in over)
        end = self.slurm.job(job)
        self.assertEqual((end["JobState"], end["ExitCode"]), ("COMPLETED", "0:0"), self.said(name))
        self.assertGreaterEqual(int(end["Restarts"]), 1)
        self.assertRegex(self.said(name), rf"from step \d+ of {LAST}\b")
        self.assert_bits(name, schedule)

    def salloc(self, name, *options, slurm=()):
        return self.slurm.try_call(
            TOOLS / "salloc", "-N2", f"-n{RANKS}", *slurm, "--", *self.words(name, *options)
        )

    # ---- to the end -------------------------------------------------------------------------

    def test_salloc(self):
        done = self.salloc("salloc")
        self.assertEqual(done.returncode, 0, done)
        self.assert_bits("salloc", "async")

    # ---- interrupted ------------------------------------------------------------------------

    def test_requeue(self):
        """Killed by Slurm at any moment: what was done since the last checkpoint is done again."""
        job = self.submit("requeue")
        self.hold(job, "requeue")
        self.slurm.call("scontrol", "requeue", job)
        self.assert_went_on(job, "requeue", "async")
        self.assertIn(f"pipetrain job {job}: start 2 on", self.said("requeue"))

    def test_srun(self):
        """As the README has it, on one node: across nodes Slurm's pmix wants two machines."""
        script = self.folder / "srun.sh"
        words = "#SBATCH --signal=USR1@120", "./pipetrain --checkpoint ck --resume ck"
        lines = [line for line in README.splitlines() if any(word in line for word in words)]
        lines = [line.strip() for line in lines if "SBATCH" in line or "srun" in line]
        self.assertEqual(len(lines), 2, lines)
        run = " ".join(self.words("srun", *SYNC))
        script.write_text("#!/bin/sh\n" + "\n".join(lines).replace(words[1], run) + "\n")
        asked = [f"-n{RANKS}", "--requeue", "--open-mode=append", f"--output={self.folder}/srun.txt"]
        job = int(self.slurm.call("sbatch", "--parsable", *asked, script))
        ranks = self.hold(job, "srun")
        self.slurm.call("scancel", "--signal=USR1", job)
        self.send(signal.SIGCONT, ranks)
        self.assert_went_on(job, "srun", "sync")

    def test_lost_node(self):
        """The run cannot go on, but the job does, as soon as there are nodes again."""
        job = self.submit("lost")
        self.hold(job, "lost")
        node = cluster.NODES[-1]
        self.slurm.call("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
        self.wait_for_words("lost", f"node {node} was lost: requeued")
        self.assertNotIn("DUE TO NODE FAIL", self.said("lost"))
        self.slurm.call("scontrol", "update", f"nodename={node}", "state=resume")
        self.assert_went_on(job, "lost", "async")

    def test_signal(self):
        """What the README says to do by hand."""
        job = self.submit("signal", *SYNC)
        ranks = self.hold(job, "signal")
        self.slurm.call("scancel", "--batch", "--signal=USR1", job)
        self.wait_for_words("signal", "SIGUSR1: checkpoint and end")
        self.send(signal.SIGCONT, ranks)
        self.wait_for_words("signal", "stopped with a checkpoint: requeued")
        self.assert_went_on(job, "signal", "sync")

    def test_time_limit(self):
        """Slurm itself warns, a real minute being nearly over."""
        job, name = self.near_its_limit, "limit"
        self.wait_for_words(name, "SIGUSR1: checkpoint and end")
        self.send(signal.SIGCONT, self.slurm.ranks(job))
        self.wait_for_words(name, "stopped with a checkpoint: requeued")
        self.assertNotIn("DUE TO TIME LIMIT", self.said(name))
        self.assert_went_on(job, name, "sync")

    def test_time_limit_of_salloc(self):
        """tools/slurm/job watches the clock; the same line again goes on."""
        command = [TOOLS / "salloc", "-N2", f"-n{RANKS}", "--job-name=alloc", "--time=1"]
        command += [f"--warn={LIMIT_S - 5}", "--", *self.words("alloc", *SYNC)]
        with open(self.folder / "alloc.txt", "wb") as output:
            running = self.slurm.start(*command, stdout=output, stderr=output)
        granted = self.wait_for_words("alloc", r"Granted job allocation (\d+)\n")
        job = int(granted[1])
        ranks = self.hold(job, "alloc")
        self.wait_for_words("alloc", "SIGUSR1: checkpoint and end")
        self.send(signal.SIGCONT, ranks)
        self.assertEqual(running.wait(cluster.CALL_S), RUN_ME_AGAIN, self.said("alloc"))
        self.assertIn("the same command line goes on from it", self.said("alloc"))
        again = self.salloc("alloc", *SYNC)
        self.assertEqual(again.returncode, 0, again)
        self.assertRegex(again.stdout, rf"from step \d+ of {LAST}\b")
        self.assert_bits("alloc", "sync")


class Ending(unittest.TestCase):
    """A cluster whose tests were killed leaves nothing behind."""

    DYING = (
        "import cluster, os, signal\n"
        "slurm = cluster.Cluster().__enter__()\n"
        "slurm.call('sbatch', '--output=/dev/null', '--wrap=sleep 600')\n"
        "slurm.wait_for('job', lambda: slurm.job(1)['JobState'] == 'RUNNING')\n"
        "print(slurm.folder, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )

    def test_killed(self):
        try:
            cluster.place()
        except cluster.Unavailable as missing:
            self.skipTest(str(missing))
        # The guard has the pipe, too: the output ends when it has done its work.
        died = subprocess.run(
            [sys.executable, "-B", "-c", self.DYING],
            stdout=subprocess.PIPE,
            text=True,
            timeout=cluster.CALL_S,
            cwd=pathlib.Path(cluster.__file__).parent,
        )
        self.assertEqual(died.returncode, -signal.SIGKILL)
        folder = pathlib.Path(died.stdout.strip())
        self.assertTrue(folder.name.startswith("pt-slurm-"), died)
        self.assertFalse(folder.exists())
        self.assertEqual(cluster.processes(folder / "slurm.conf"), {})


class Early(unittest.TestCase):
    """tools/slurm/job without a Slurm: scripts stand in for scontrol and mpirun."""

    def setUp(self):
        self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.asked = self.folder / "asked"
        self.stand_in("scontrol", f'echo "$@" >> {self.asked}')
        for name in ("squeue", "sinfo"):
            self.stand_in(name, "exit 1")

    def stand_in(self, name, script):
        path = self.folder / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def end(self, script, ask=False):
        self.stand_in("mpirun", script)
        path = f"{self.folder}:{os.environ['PATH']}"
        command = [TOOLS / "job", "program"]
        with launch.Run(0, command=["env", f"PATH={path}", "SLURM_JOB_ID=7", *command]) as running:
            if ask:
                running.wait_for("stderr", "^up")
                running.process.send_signal(signal.SIGUSR1)
            return running.end()

    def test_asked_while_it_starts(self):
        """The signal ends an mpirun that has no handler yet."""
        ended = self.end("echo up >&2; exec sleep 60", ask=True)
        self.assertEqual(ended.status, 128 + signal.SIGUSR1, ended)
        self.assertEqual(self.asked.read_text(), "requeue 7\n", ended)

    def test_nobody_asked(self):
        ended = self.end("kill -USR1 $$")
        self.assertEqual(ended.status, 128 + signal.SIGUSR1, ended)
        self.assertFalse(self.asked.exists(), ended)


class CommandLines(unittest.TestCase):
    """Those that would lose work are refused before Slurm is asked."""

    def run_tool(self, name, *words):
        environment = {k: v for k, v in os.environ.items() if not k.startswith("SLURM")}
        return subprocess.run(
            [str(TOOLS / name), *words],
            capture_output=True,
            text=True,
            timeout=cluster.CALL_S,
            env=environment,
        )

    def refuse(self, *words):
        found = []
        for name in ("sbatch", "salloc"):
            done = self.run_tool(name, *words)
            self.assertEqual((done.returncode, done.stdout), (2, ""), done)
            found.append(done.stderr.removeprefix(f"tools/slurm/{name}: "))
        self.assertEqual(*found)
        return found[0]

    def test_no_run(self):
        self.assertIn("behind '--'", self.refuse("-n2"))

    def test_no_checkpoints(self):
        self.assertIn("add --checkpoint D --resume D", self.refuse("--", "./pipetrain"))
        self.assertIn("add --resume ck;", self.refuse("--", "./pipetrain", "--checkpoint=ck"))
        self.assertIn(
            "add --checkpoint ck --resume ck;", self.refuse("--", "./pipetrain", "--resume", "ck")
        )

    def test_two_directories(self):
        words = ["--checkpoint", "new", "--resume=old"]
        self.assertIn("from old again, and not from new", self.refuse("--", "./pipetrain", *words))

    def test_warning(self):
        for value in ("0", "2m", "-5", ""):
            with self.subTest(value):
                self.assertIn(f"not '{value}'", self.refuse(f"--warn={value}", "--", "x"))
        self.assertIn("--warn SECONDS", self.refuse("--signal=B:TERM@30", "--", "x"))

    def test_dry_run(self):
        """Slurm's words before mpirun's and the program's, blanks and all."""
        run = ["--map-by", "node", "./pipetrain", "a b.yaml", "--checkpoint", "c k", "--resume=c k"]
        job = str(TOOLS / "job")
        for name, asked in (
            ("sbatch", ["sbatch", "--signal=B:USR1@90", "-n", "3", job]),
            ("salloc", ["salloc", "--job-name=pipetrain", "--no-kill", "-n", "3", job]),
        ):
            with self.subTest(name):
                done = self.run_tool(name, "--warn=90", "--dry-run", "-n", "3", "--", *run)
                own = ["--ends-in", "90"] if name == "salloc" else []
                said = "".join(f"'{word}' " for word in [*asked, *own, *run]).rstrip() + "\n"
                self.assertEqual((done.returncode, done.stdout), (0, said), done)

    def test_no_job(self):
        """What is meant for inside a job says so outside of one."""
        done = self.run_tool("job", "./pipetrain")
        self.assertEqual(done.returncode, 2, done)
        self.assertIn("tools/slurm/sbatch", done.stderr)


if __name__ == "__main__":
    tap.main()
