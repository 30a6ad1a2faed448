#!/usr/bin/env python3
"""How long it takes until something happens.

    startup.py BIN_DIR [--runs 20]

CLI start: `pare version`, `pare list` on a store with a finished job, and `pare --help`; the baseline is /bin/true, started the same way.
Coordinator ready: from its start to the line `ready {…}`, on a new store and on one with a finished job. Memory: what is resident then,
and the largest so far. Medians, with the least and the largest.
"""
import argparse
import os
import shutil
import statistics
import subprocess
import tempfile
import time


def spent(command):
    begin = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    return 1000 * (time.perf_counter() - begin)


def resident_mb(pid):
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024


def ready(binary, store):
    """Milliseconds to the ready line, and resident MB then."""
    begin = time.perf_counter()
    process = subprocess.Popen([binary, "--store", store], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    line = process.stdout.readline()
    took = 1000 * (time.perf_counter() - begin)
    assert line.startswith("ready "), line
    memory = resident_mb(process.pid)
    process.terminate()
    process.wait()
    return took, memory


def row(name, values, unit="ms"):
    print(f"| {name} | {statistics.median(values):.1f} {unit} | {min(values):.1f}–{max(values):.1f} |", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("bin")
    parser.add_argument("--recipe", default="recipes/tiny.yaml")
    parser.add_argument("--runs", type=int, default=20)
    arguments = parser.parse_args()
    directory = tempfile.mkdtemp(prefix="pare-startup-")
    used = f"{directory}/used"
    pare, coordinator = f"{arguments.bin}/pare", f"{arguments.bin}/pare-coordinator"
    try:
        subprocess.run([pare, "run", arguments.recipe, "--store", used], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
        print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n\n| what | median | least–largest |\n| --- | --- | --- |")
        runs = range(arguments.runs)
        row("/bin/true (baseline)", [spent(["/bin/true"]) for _ in runs])
        row("pare version", [spent([pare, "version"]) for _ in runs])
        row("pare --help", [spent([pare, "--help"]) for _ in runs])
        row("pare list", [spent([pare, "list", "--store", used]) for _ in runs])
        row("same recipe again, pare run", [spent([pare, "run", arguments.recipe, "--store", used]) for _ in range(min(5, arguments.runs))])
        fresh = [ready(coordinator, f"{directory}/new-{i}") for i in runs]
        again = [ready(coordinator, used) for _ in runs]
        row("coordinator ready, new store", [r[0] for r in fresh])
        row("coordinator ready, used store", [r[0] for r in again])
        row("coordinator's memory, used store", [r[1] for r in again], "MB")
    finally:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
