"""Runs of a study: how each is started and ended, what it leaves in its folder, and its progress.

  command  key          what was asked for; another key is another run
  output                what the run said
  log.jsonl  summary.json
  failed                why it has no result"""

import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time

BAR = 24
POLL_S = 0.05
DIVERGED = "diverged"


def command_of(program, grid, run):
    words = [str(program), str(grid.partition), *run.arguments]
    if run.stages == 1:
        return words
    return ["mpirun", "-np", str(run.stages), "--oversubscribe", "--bind-to", "none", *words]


def read_summary(folder):
    """None while the run is under way: it opens the file at its start and fills it at its end."""
    try:
        text = (folder / "summary.json").read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    return json.loads(text) if text else None


def state_of(grid, run, folder):
    """done, failed or missing. What a run of another kind left behind does not count."""
    try:
        if (folder / "key").read_text(encoding="utf-8") != grid.key(run):
            return "missing"
    except OSError:
        return "missing"
    if (folder / "failed").exists():
        return "failed"
    return "done" if read_summary(folder) else "missing"


class Started:
    """A run that is under way."""

    def __init__(self, program, grid, run, folder):
        self.run, self.folder = run, folder
        command = command_of(program, grid, run)
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("key", "failed", "summary.json", "log.jsonl"):
            (folder / name).unlink(missing_ok=True)
        (folder / "command").write_text(shlex.join(command) + "\n", encoding="utf-8")
        (folder / "key").write_text(grid.key(run), encoding="utf-8")
        # Jobs that share Open MPI's folder of sessions may fail to start: one removes it at its end.
        self.sessions = tempfile.TemporaryDirectory(prefix="pipetrain-study-",
                                                    ignore_cleanup_errors=True)
        environment = dict(os.environ, OMPI_MCA_orte_tmpdir_base=self.sessions.name)
        with open(folder / "output", "w", encoding="utf-8") as output:
            self.process = subprocess.Popen(command, cwd=folder, env=environment,
                                            stdin=subprocess.DEVNULL, stdout=output,
                                            stderr=subprocess.STDOUT, start_new_session=True)

    def ended(self):
        """Has it? Then its folder says how."""
        status = self.process.poll()
        if status is None:
            return False
        self.sessions.cleanup()
        failed = self.folder / "failed"
        if status != 0:
            failed.write_text(f"exit status {status}: {self.last_words()}\n", encoding="utf-8")
        elif read_summary(self.folder)["train_loss"] is None:
            failed.write_text(f"{DIVERGED}: the loss is no number any more\n", encoding="utf-8")
        return True

    def last_words(self):
        with open(self.folder / "output", encoding="utf-8", errors="replace") as output:
            lines = [line.strip() for line in output if line.strip()]
        errors = [line for line in lines if "error:" in line]
        return (errors or lines or ["it said nothing"])[0 if errors else -1]

    def end(self):
        """Ends it, with its ranks: the study was interrupted."""
        for word in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, word)
                self.process.wait(timeout=10)
                break
            except subprocess.TimeoutExpired:
                continue
            except ProcessLookupError:
                break
        self.sessions.cleanup()


class Progress:
    """A bar on a terminal, else a line a run."""

    def __init__(self, states):
        self.states, self.total = states, len(states)
        self.begun, self.ran = time.monotonic(), 0
        self.terminal = sys.stderr.isatty()

    def remaining(self, done):
        if not self.ran:
            return ""
        seconds = (time.monotonic() - self.begun) / self.ran * (self.total - done)
        hours, rest = divmod(int(seconds), 3600)
        return f", about {hours}:{rest // 60:02}:{rest % 60:02} left"

    def say(self, run):
        """run: the one that begins; None at the end."""
        count = list(self.states.values()).count
        failed = count("failed")
        done = count("done") + failed
        filled = BAR * done // max(self.total, 1)
        words = (f"[{'=' * filled}{' ' * (BAR - filled)}] {done}/{self.total} runs"
                 + (f", {failed} failed" if failed else "") + self.remaining(done)
                 + (f" | {run.words}" if run else ""))
        if self.terminal:
            print(f"\r\033[K{words}", end="" if run else "\n", file=sys.stderr, flush=True)
        else:
            print(words, file=sys.stderr, flush=True)


def run_all(program, grid, out, todo, states):
    """Runs them, grid.jobs at a time, and notes in `states` how each ended. Ctrl-C ends those that
    are under way."""
    progress, todo, under_way = Progress(states), list(todo), []
    try:
        while todo or under_way:
            while todo and len(under_way) < grid.jobs:
                run = todo.pop(0)
                progress.say(run)
                under_way.append(Started(program, grid, run, out / run.slug))
            time.sleep(POLL_S)
            for started in [s for s in under_way if s.ended()]:
                under_way.remove(started)
                states[started.run] = state_of(grid, started.run, started.folder)
                progress.ran += 1
    finally:
        for started in under_way:
            started.end()
    progress.say(None)
