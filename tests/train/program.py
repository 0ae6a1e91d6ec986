"""Starts the program under test and reads what it leaves behind.

PT_PROGRAM is the path of pipetrain, PT_SOURCE_ROOT that of the source tree; both have defaults that
fit a checkout after tools/test.
"""

import json
import os
import pathlib
import signal
import subprocess

ROOT = pathlib.Path(
    os.environ.get("PT_SOURCE_ROOT") or pathlib.Path(__file__).resolve().parents[2]
).resolve()
PROGRAM = os.environ.get("PT_PROGRAM") or str(ROOT / "build-test" / "src" / "app" / "pipetrain")

TIME_LIMIT_S = 120  # far above what any of these runs needs; only a hang gets there


def run(ranks, partition, **options):
    """Trains and returns what was printed. Options are those of the program, with "_" for "-"; True
    and False set and clear a flag. Raises AssertionError with the whole output when the run fails
    or hangs."""
    command = [PROGRAM, str(partition)]
    for name, value in options.items():
        name = name.replace("_", "-")
        if isinstance(value, bool):
            command.append(f"--{name}" if value else f"--no-{name}")
        else:
            command.append(f"--{name}={value}")
    if ranks > 1:
        place = ["--oversubscribe", "--bind-to", "none", "-np", str(ranks)]
        command = ["mpirun", *place, *command]
    environment = dict(os.environ)
    if os.geteuid() == 0:
        environment.update(OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=TIME_LIMIT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        words = " ".join(command)
        raise AssertionError(f"no end after {TIME_LIMIT_S} s: {words}\n{output}") from None
    if process.returncode != 0:
        raise AssertionError(f"exit status {process.returncode}: {' '.join(command)}\n{output}")
    return output


def losses(log):
    """The loss of every optimizer step, in order, from a --log file."""
    return of_steps(log, "loss")


def of_steps(log, key):
    """The same of anything that a step's record may hold; None where it does not."""
    with open(log, encoding="utf-8") as file:
        records = [json.loads(line) for line in file]
    return [record.get(key) for record in records if record.get("type") == "step"]
