"""How the minutes are spent: what every step should take, how many run at a time, and when the
whole would end. ../test_gpu_check_speed.py holds the sum against the limit.

The estimates are for an H100 with 16 cores. None was at hand: they are CPU seconds that were
counted on another machine, divided by 16 where the work divides, and guesses at what CUDA's
libraries and PyTorch take. A run keeps `planned_s` beside `seconds`, so that the table can be mended.

  a process that uses the device begins    3 s    driver and context 1, cuDNN and cuBLASLt loaded 2
  plans of a model's convolutions          2 s    3.5 ms each without a device; more with one
  PyTorch is imported and has a context    8 s
"""

import heapq

PREPARATION, CORRECT, SPEED = "preparation", "correctness", "speed"

# What is wanted is less than 480 s. The rest is for ending what hangs, and for writing the report.
TOTAL_S = 470
# So much of it may be planned: estimates are wrong.
PLANNED_S = 0.9 * TOTAL_S
# Steps at a time. Preparations are nice(1), and leave most of the processors to the others; two are
# what the device's memory holds beside them. Where steps share the machine they slow each other
# down: SHARED is by how much.
LANES = {PREPARATION: 2, CORRECT: 4, SPEED: 1}
SHARED = 1.4
# Finding device, compiler, libraries and versions, before the first step.
START_S = 6
# When preparations are ended that have not ended by themselves: the measurements after them need
# the rest.
PREPARED_BY_S = 200

# What is measured takes its time from the steps of one run (speed.py), at a guess of images a
# second, and from how long the programs take to begin.
ABOUT_S = {
    # meson 3; 20 CPU s of gcc / 16, 2; kernels for one architecture, of which the slowest takes 5
    "build": 12,
    # 160 MB of random bytes
    "images": 2,
    # import 8; tracing and lowering in one thread 25 and 15; compiling 60 to 100 kernels of Triton
    # by several processes 20 and 15; two steps at most 10
    "compile-resnet-50-bf16": 60,
    "compile-resnet-50-tf32": 60,
    "compile-wrn-28-10-bf16": 45,
    "compile-wrn-28-10-tf32": 45,
    # ref on one core 1; begin 3; plans 2
    "ops-fp32": 7,
    "ops-tf32": 7,
    "ops-bf16": 7,
    # the CPU 1, and three times: begin 3, images 1
    "train-lenet5": 13,
    # 6 CPU s of oneDNN / 8 and images 2, and three times: begin 3, plans 2, images 1
    "train-wrn-16-4": 20,
    # seven times: mpirun 1, begin 4 (four ranks at once), LeNet-5's steps 1
    "ranks": 42,
    # twice: the tool attaches and patches what is loaded 12, the program runs ten times slower
    "memcheck": 35,
    "racecheck": 40,
    # begin 3, 45 cases of at most 24 launches of 0.3 ms, fp32 and bf16, their buffers filled 3
    "kernels": 8,
    # ours twice: begin 3, plans 2, images 1, steps 28 * 256 / (2,700 | 1,100) = 3 | 7
    # PyTorch: begin 8; eager: search for algorithms 8, steps 3 | 7; compiled: from the cache 14 (on
    # two loaded cores without a device the cache left 28 s of 398), steps 3 | 7
    "speed-resnet-50-bf16": 54,
    "speed-resnet-50-tf32": 70,
    # the same with steps 28 * 256 / (5,000 | 2,000) = 2 | 4, search 5, from the cache 9
    "speed-wrn-28-10-bf16": 42,
    "speed-wrn-28-10-tf32": 50,
    # three times: mpirun 1, begin 4, plans 2, 28 steps of 64 images 1, images 1
    "p2p": 27,
}


def makespan(seconds, lanes):
    """When the last of these ends that begin in this order, each as soon as a lane is free."""
    ends = [0.0] * lanes
    for duration in seconds:
        heapq.heapreplace(ends, ends[0] + duration)
    return max(ends)


def planned_s(steps):
    """When a check of these (Step) ends, if each takes what it should and runner.py runs them."""
    def together(kind):
        return makespan([step.about_s * (1 if kind == SPEED else SHARED) for step in steps
                         if step.kind == kind and step.name != "build"], LANES[kind])

    build = sum(step.about_s * SHARED for step in steps if step.name == "build")
    return START_S + max(together(PREPARATION), build + together(CORRECT)) + together(SPEED)
