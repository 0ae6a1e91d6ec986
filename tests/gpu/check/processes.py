"""Commands and the processes that carry them out: each in a session of its own, so that it ends
with everything that it started, and all of them when the check ends, however it does.
"""

import dataclasses
import os
import re
import shlex
import signal
import subprocess
import threading


@dataclasses.dataclass(frozen=True)
class Command:
    label: str  # unique within the step: names the log file
    argv: list
    environment: dict
    variables: dict = dataclasses.field(default_factory=dict)  # set beside environment, shown
    foreign: bool = False  # not ours: when it fails the step goes on without it
    excuse: str = ""  # a pattern: who fails and prints this could not be run on this machine
    limit_s: float = float("inf")  # its own, within the limit of the step

    def excused(self, output):
        return bool(self.excuse and re.search(self.excuse, output))

    def text(self):
        words = [f"{name}={shlex.quote(value)}" for name, value in self.variables.items()]
        return " ".join(words + [shlex.quote(str(word)) for word in self.argv])


def end_group(process):
    """Ends what is left of a process and of all that it started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


class Processes:
    def __init__(self):
        self.lock = threading.Lock()
        self.live = set()
        self.over = False

    def start(self, command, file):
        """The process, or None once end() was called. Raises OSError."""
        with self.lock:
            if self.over:
                return None
            process = subprocess.Popen([str(word) for word in command.argv],
                                       env={**command.environment, **command.variables},
                                       stdin=subprocess.DEVNULL, stdout=file,
                                       stderr=subprocess.STDOUT, start_new_session=True)
            self.live.add(process)
            return process

    def execute(self, command, log, limit_s):
        """(exit status or None when stopped, output); output goes to `log` too. Any thread may."""
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, "w+", encoding="utf-8", errors="replace") as file:
            try:
                process = self.start(command, file)
            except OSError as error:
                return 127, f"{command.argv[0]}: {error.strerror}"
            if process is None:
                return None, ""
            try:
                status = process.wait(timeout=max(0.1, limit_s))
            except subprocess.TimeoutExpired:
                status = None
            finally:  # stopped, or we were interrupted, or it left children behind
                end_group(process)
                with self.lock:
                    self.live.discard(process)
            file.seek(0)
            return status, file.read()

    def end(self):
        """Ends all, and lets none begin any more."""
        with self.lock:
            self.over = True
            for process in self.live:
                end_group(process)
