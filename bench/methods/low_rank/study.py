#!/usr/bin/env python3
"""The evidence for low rank: runs bands.yaml for three seeds and writes the table of docs/evidence/low_rank.md.

    study.py BUILD_DIR [--store DIR] [--seeds 3] [--workers 1] [--out docs/evidence/low_rank.md]

Interrupted, it goes on where it was: the store keeps every finished step.
"""
import argparse
import json
import os
import platform
import statistics
import subprocess
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROWS = [("dense", "baseline"), ("energy 0.8, plain", "plain-80/01-low_rank"), ("60 % of the parameters, plain", "plain-budget-60/01-low_rank"),
        ("60 % of the parameters, whitened", "whitened-60/01-low_rank"), ("energy 0.5, plain", "plain-50/01-low_rank"),
        ("20 % of the parameters, plain", "plain-budget-20/01-low_rank"), ("20 % of the parameters, whitened", "whitened-20/01-low_rank"),
        ("energy 0.5, plain, 10 epochs", "plain-20-retrained/02-retrain"), ("20 % whitened, 10 epochs", "whitened-20/02-retrain")]


def pare(arguments, *command):
    return subprocess.run([f"{arguments.build}/bin/pare", *command], check=True, stdout=subprocess.PIPE, text=True).stdout


def run(arguments, seed):
    recipe = open(f"{HERE}/bands.yaml").read().replace("name: low-rank-bands", f"name: low-rank-bands-{seed}", 1).replace("seed: 1", f"seed: {seed}", 1)
    with tempfile.NamedTemporaryFile("w", suffix=".yaml", delete=False) as out:
        out.write(recipe)
    try:
        pare(arguments, "run", out.name, "--workers", str(arguments.workers), "--store", arguments.store)
        return json.loads(pare(arguments, "report", "last", "--json", "--store", arguments.store))
    finally:
        os.unlink(out.name)


def lines_of(report):
    return {"baseline": report["baseline"], **{c["step"]: c for c in report["candidates"]}}


def cell(values, digits=2):
    return f"{statistics.mean(values):.{digits}f}" + (f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else "")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("build")
    parser.add_argument("--store", default=os.path.expanduser("~/.cache/pare/study-low-rank"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--out", default="")
    arguments = parser.parse_args()
    reports = [lines_of(run(arguments, seed)) for seed in range(1, arguments.seeds + 1)]
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "unknown")
    lines = [f"<!-- made by bench/methods/low_rank/study.py -->", f"{cpu}, {os.cpu_count()} CPUs, {platform.system()}, {pare(arguments, '--version').strip()}, "
             f"seeds 1 to {arguments.seeds}.", "", "| network | fewer parameters | test % (mean ± deviation) | " + " | ".join(f"seed {s}" for s in range(1, arguments.seeds + 1)) + " |",
             "| --- " * (3 + arguments.seeds) + "|"]
    for label, step in ROWS:
        accuracy = [r[step]["test_accuracy"] for r in reports]
        smaller = [r["baseline"]["parameters"] / r[step]["parameters"] for r in reports]
        lines.append(f"| {label} | {cell(smaller)}x | {cell(accuracy)} | " + " | ".join(f"{a:.2f}" for a in accuracy) + " |")
    text = "\n".join(lines) + "\n"
    print(text)
    if not arguments.out:
        return
    # What people wrote above the table stays.
    above = open(arguments.out).read().split("<!-- made by")[0] if os.path.exists(arguments.out) else ""
    with open(arguments.out, "w") as out:
        out.write(above + text)


if __name__ == "__main__":
    main()
