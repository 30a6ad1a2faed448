#!/usr/bin/env python3
"""Alternates the two sides (engine, Python, engine, …) and prints a table of seconds per epoch and their ratio.

    run.py BUILD_DIR [--pairs 3] [--only mlp] [--quick]
"""
import argparse
import glob
import json
import os
import platform
import statistics
import subprocess

HERE = os.path.dirname(os.path.abspath(__file__))
DEPS = os.environ.get("PARE_DEPS_DIR", os.path.expanduser("~/.cache/pare/deps"))
# model, optimizer, batch, threads, shards, samples
SETTINGS = [
    ("mlp", "adam", 60, 1, 1, 60000), ("mlp", "adam", 60, 2, 1, 60000),
    ("mlp", "sgd", 128, 1, 1, 60000), ("mlp", "sgd", 128, 2, 2, 60000),
    ("lenet5", "adam", 60, 1, 1, 60000), ("lenet5", "adam", 60, 2, 2, 60000),
    ("lenet5", "sgd", 128, 1, 2, 60000), ("lenet5", "sgd", 128, 2, 2, 60000),
    ("resnet20", "sgd", 128, 1, 2, 1280), ("resnet20", "sgd", 128, 2, 2, 1280),
]


def call(command, threads):
    env = dict(os.environ, OMP_NUM_THREADS=str(threads))
    # The wheel's Python module needs CUDA libraries even on a machine without a GPU; README.md says how to get them.
    env["LD_LIBRARY_PATH"] = ":".join(glob.glob(f"{DEPS}/bench-venv/lib/python3*/site-packages/nvidia/*/lib"))
    return json.loads(subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE, text=True).stdout)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("build")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    python = f"{DEPS}/bench-venv/bin/python"
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "unknown")
    print(f"{cpu}, {os.cpu_count()} CPUs, {platform.system()} {platform.release()}, torch 2.11.0\n")
    print("| model | optimizer | batch | threads | shards | samples | engine s/epoch | Python s/epoch | Python / engine (min–max) | accuracy engine, Python |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for model, optimizer, batch, threads, shards, samples in SETTINGS:
        if arguments.only not in model:
            continue
        ours, theirs, ratios, accuracy = [], [], [], ("", "")
        for _ in range(arguments.pairs):
            common = [model, optimizer, str(batch), str(threads)]
            tail = [str(arguments.epochs), str(samples)]
            # The first epoch warms caches and allocators up on both sides.
            a = call([f"{arguments.build}/bin/bench_train", *common, str(shards), *tail], 1)
            b = call([python, f"{HERE}/train.py", *common, *tail], threads)
            ours.append(statistics.median(a["seconds"][1:]))
            theirs.append(statistics.median(b["seconds"][1:]))
            ratios.append(theirs[-1] / ours[-1])
            accuracy = (a["accuracy"], b["accuracy"])
        print(f"| {model} | {optimizer} | {batch} | {threads} | {shards} | {samples} | {statistics.median(ours):.3f} | "
              f"{statistics.median(theirs):.3f} | {statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f}) | "
              f"{accuracy[0]:.3f}, {accuracy[1]:.3f} |", flush=True)


if __name__ == "__main__":
    main()
