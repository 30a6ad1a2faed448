#!/usr/bin/env python3
"""Alternates the two sides (engine, Python, engine, …) and prints seconds per distillation epoch, with cached logits and with the
teacher in the loop. Exits with 1 if a bar of bench/methods/README.md is missed.

    run.py BUILD_DIR [--pairs 3] [--epochs 3] [--samples 60000] [--without-python]
"""
import argparse
import glob
import json
import os
import platform
import statistics
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
DEPS = os.environ.get("PARE_DEPS_DIR", os.path.expanduser("~/.cache/pare/deps"))
# teacher, student, batch, threads, shards
SETTINGS = [
    ("1200,1200", "100", 60, 1, 1),
    ("300,100", "300,100", 60, 1, 1),
    ("300,100", "300,100", 128, 1, 2),
    ("1200,1200", "1200,1200", 60, 1, 1),
]


def call(command, threads):
    env = dict(os.environ, OMP_NUM_THREADS=str(threads), MKL_NUM_THREADS=str(threads))
    # The wheel's Python module needs CUDA libraries even on a machine without a GPU; bench/train_vs_pytorch/README.md says how to get them.
    env["LD_LIBRARY_PATH"] = ":".join(glob.glob(f"{DEPS}/bench-venv/lib/python3*/site-packages/nvidia/*/lib"))
    return json.loads(subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE, text=True).stdout)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("build")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--samples", type=int, default=60000)
    parser.add_argument("--without-python", action="store_true")
    arguments = parser.parse_args()
    python = f"{DEPS}/bench-venv/bin/python"
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "unknown")
    print(f"{cpu}, {os.cpu_count()} CPUs, {platform.system()} {platform.release()}, torch 2.11.0\n")
    print("| teacher | student | batch | threads | cached s/epoch | in the loop s/epoch | loop / cached (min–max) | Python cached | Python loop "
          "| Python / engine, cached (min–max) | bytes of the logits | pass over the teacher s |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    bars = []
    for teacher, student, batch, threads, shards in SETTINGS:
        seconds = {"cached": [], "loop": [], "python cached": [], "python loop": []}
        size, passed = 0, []
        for _ in range(arguments.pairs):
            for way in ("cached", "loop"):
                common = [way, teacher, student, str(batch), str(threads)]
                tail = [str(arguments.epochs), str(arguments.samples)]
                # The first epoch warms caches and allocators up on both sides.
                result = call([f"{arguments.build}/bin/bench_distill", *common, str(shards), *tail], 1)
                seconds[way].append(statistics.median(result["seconds"][1:]))
                if way == "cached":
                    size = result["bytes"]
                    passed.append(result["pass_seconds"])
                if not arguments.without_python:
                    result = call([python, f"{HERE}/distill.py", *common, *tail], threads)
                    seconds[f"python {way}"].append(statistics.median(result["seconds"][1:]))

        def middle(way):
            return f"{statistics.median(seconds[way]):.3f}" if seconds[way] else "not measured"

        def ratios(a, b):
            list_ = [x / y for x, y in zip(seconds[a], seconds[b])]
            return f"{statistics.median(list_):.2f} ({min(list_):.2f}–{max(list_):.2f})" if list_ else "not measured"

        print(f"| {teacher} | {student} | {batch} | {threads} | {middle('cached')} | {middle('loop')} | {ratios('loop', 'cached')} | "
              f"{middle('python cached')} | {middle('python loop')} | {ratios('python cached', 'cached')} | {size} | "
              f"{statistics.median(passed):.2f} |", flush=True)
        if teacher == student:
            gain = statistics.median(x / y for x, y in zip(seconds["loop"], seconds["cached"]))
            bars.append((f"{teacher} teaches itself, batch {batch}: cached logits against the teacher in the loop", gain, 1.5))
        if (teacher, student) == ("1200,1200", "100") and seconds["python cached"]:
            gain = statistics.median(x / y for x, y in zip(seconds["python cached"], seconds["cached"]))
            bars.append(("1200,1200 teaches 100: cached logits against PyTorch's", gain, 1.0))
    print()
    for what, value, bar in bars:
        print(f"bar: {what} {value:.2f} (at least {bar}): {'met' if value >= bar else 'MISSED'}")
    sys.exit(0 if all(value >= bar for _, value, bar in bars) else 1)


if __name__ == "__main__":
    main()
