#!/usr/bin/env python3
"""What orchestration costs: wall time of a job against the work that its steps did themselves.

    overhead.py BIN_DIR [--recipe recipes/fashion-lenet.yaml] [--workers 2] [--runs 1]

Runs the recipe in a fresh store and reads the attempts from its index. A step's own work is the time that the runner spent
inside it (reading inputs, arithmetic, writing the artifact); what lies between is Pare's: process start, planning, messages,
commits, placement. Dependencies between steps leave workers without anything to do; that is the recipe's shape, so work is
divided by the workers that were busy, averaged over the time in which at least one was:

    overhead = wall / (work / busy workers)
"""
import argparse
import json
import os
import platform
import shutil
import sqlite3
import subprocess
import tempfile
import time


def largest_resident(pid):
    try:
        with open(f"/proc/{pid}/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return 0


def coordinator_of(store):
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            arguments = open(f"/proc/{pid}/cmdline").read().split("\0")
        except OSError:
            continue
        if arguments[0].endswith("pare-coordinator") and store in arguments:
            return int(pid)
    return None


def run(arguments, store):
    started = time.time()
    command = [f"{arguments.bin}/pare", "run", arguments.recipe, "--store", store, "--workers", str(arguments.workers), "--json"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    resident, coordinator = 0, None
    while process.poll() is None:
        coordinator = coordinator or coordinator_of(store)
        if coordinator:
            resident = max(resident, largest_resident(coordinator))
        time.sleep(0.2)
    wall = time.time() - started
    if process.returncode != 0:
        raise SystemExit(f"the job ended with exit code {process.returncode}")
    rows = sqlite3.connect(f"{store}/index.db").execute(
        "SELECT attempts.started_ms, attempts.ended_ms, attempts.busy_ms, steps.kind FROM attempts JOIN steps USING(key)").fetchall()
    first_training = min(row[0] for row in rows if row[3] == "train") / 1000 - started
    return wall, rows, resident, first_training


def busy_time(rows):
    """Seconds in which at least one attempt ran."""
    total, until = 0, 0
    for start, end, _, _ in sorted(rows):
        total += max(0, end - max(start, until))
        until = max(until, end)
    return total / 1000


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("bin")
    parser.add_argument("--recipe", default="recipes/fashion-lenet.yaml")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--runs", type=int, default=1)
    arguments = parser.parse_args()
    version = subprocess.run([f"{arguments.bin}/pare", "version"], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}, {version}\n")
    print("| steps | wall s | work s | busy workers | wall / (work / busy) | granted s - work s, per step ms | first training s | coordinator MB |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for _ in range(arguments.runs):
        store = tempfile.mkdtemp(prefix="pare-overhead-")
        try:
            wall, rows, resident, first = run(arguments, store)
        finally:
            shutil.rmtree(store, ignore_errors=True)
        work = sum(row[2] for row in rows) / 1000
        granted = sum(row[1] - row[0] for row in rows) / 1000
        busy = granted / busy_time(rows)
        print(f"| {len(rows)} | {wall:.2f} | {work:.2f} | {busy:.2f} | {wall / (work / busy):.3f} | {1000 * (granted - work) / len(rows):.1f} | "
              f"{first:.2f} | {resident / 1024:.1f} |", flush=True)


if __name__ == "__main__":
    main()
