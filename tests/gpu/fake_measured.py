"""usage: fake_measured.py JOURNAL (pipetrain PARTITION | torch_models.py) OPTIONS…

Stands in for the two programs whose speed tools/gpu-check compares: leaves what they leave, in no
time. Ours trains 1,000 images/s, PyTorch 800 eager and 1,250 compiled. The journal gets a line for
each run. FAKE_OURS_FITS and FAKE_TORCH_FITS are the greatest batches that they take, and
FAKE_TORCH_FAILS is a mode that fails.
"""

import argparse
import csv
import json
import os
import sys

RATES = {"ours": 1000, "eager": 800, "compile": 1250}


def ours(options):
    fits = int(os.environ.get("FAKE_OURS_FITS", options.batch))
    if options.batch > fits:
        sys.exit(f"error: rank 0: training needs 2 bytes of device memory, but GPU 0 has 1 left; "
                 f"largest --micro-batch that fits is {fits}")
    with open(options.timing, "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["rank", "epoch", "step", "samples", "update_start_us", "update_us"])
        for step in range(options.steps):
            end_us = (step + 1) * options.batch / RATES["ours"] * 1e6
            rows.writerow([0, 0, step, options.batch, end_us - 1, 1])


def torch(options):
    for mode in options.modes.split(","):
        if mode == os.environ.get("FAKE_TORCH_FAILS"):
            sys.exit(f"Traceback\nRuntimeError: {mode} is ill")
        if options.batch > int(os.environ.get("FAKE_TORCH_FITS", options.batch)):
            sys.exit(f"{mode}: out of memory with a batch of {options.batch}")
        print(json.dumps({"mode": mode, "images_per_s": [RATES[mode]] * options.stretches,
                          "first_step_s": 40.0}))


def main():
    parser = argparse.ArgumentParser()
    for name in ("batch", "steps", "stretches"):
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--timing")
    parser.add_argument("--modes")
    journal, *words = sys.argv[1:]
    options, _ = parser.parse_known_args(words)
    with open(journal, "a", encoding="utf-8") as file:
        who = f"torch {options.modes}" if options.modes else "ours"
        file.write(f"{who} {options.batch}\n")
    (torch if options.modes else ours)(options)


if __name__ == "__main__":
    main()
