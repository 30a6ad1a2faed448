#!/usr/bin/env python3
"""The evidence for distillation: runs Pare on the recipes below for three seeds and writes the tables of docs/evidence/distillation.md.

    study.py BUILD_DIR [--store DIR] [--seeds 3] [--workers 1] [--threads 1] [--only few-labels] [--out docs/evidence/distillation.md]

Interrupted, it goes on where it was: the store keeps every finished step. A baseline is shared by the recipes that have the same.
"""
import argparse
import json
import os
import platform
import statistics
import subprocess
import tempfile

DATA = "data: {dataset: fashion-mnist, validation: 5000}\n"
ADAM = "batch_size: 128, optimizer: adam, learning_rate: 0.001, schedule: cosine"
MLP = "{model: {architecture: mlp, hidden: [300, 100]}}"
SMALL = "{model: {architecture: mlp, hidden: [100]}}"
# name: (title, recipe without its name and seed, rows)
STUDIES = {
    "few-labels": (
        "3,000 labels, 55,000 images: a small CNN teaches an MLP",
        "model: {architecture: lenet5}\n" + DATA + f"train: {{epochs: 12, {ADAM}}}\n"
        "goal: {max_accuracy_drop: 3, minimize: multiply_adds}\n"
        "variants:\n"
        f"  labels-only: [{{student: {MLP}}}, {{retrain: {{labels: 3000, epochs: 60}}}}]\n"
        f"  taught: [{{student: {MLP}}}, {{distill: {{teacher: baseline, labels: 3000, temperature: 2, hardness: 0.9, epochs: 20}}}}]\n"
        f"  teacher-alone: [{{student: {MLP}}}, {{distill: {{teacher: baseline, labels: 0, hardness: 1, epochs: 20}}}}]\n"
        f"  all-labels: [{{student: {MLP}}}, {{retrain: {{epochs: 20}}}}]\n",
        [("teacher: LeNet-5, all labels", "baseline"), ("MLP 300-100, 3,000 labels", "labels-only/02-retrain"),
         ("MLP 300-100, 3,000 labels and the teacher", "taught/02-distill"), ("MLP 300-100, the teacher and no label", "teacher-alone/02-distill"),
         ("MLP 300-100, all labels", "all-labels/02-retrain")]),
    "all-labels": (
        "All labels: an MLP with 1200-1200 hidden units teaches one with 100",
        "model: {architecture: mlp, hidden: [1200, 1200]}\n" + DATA + f"train: {{epochs: 10, {ADAM}}}\n"
        "goal: {max_accuracy_drop: 2, minimize: multiply_adds}\n"
        "variants:\n"
        f"  alone: [{{student: {SMALL}}}, {{retrain: {{epochs: 20}}}}]\n"
        f"  taught: [{{student: {SMALL}}}, {{distill: {{teacher: baseline, temperature: 4, hardness: 0.7, epochs: 20}}}}]\n",
        [("teacher: MLP 1200-1200", "baseline"), ("MLP 100 alone", "alone/02-retrain"), ("MLP 100 taught", "taught/02-distill")]),
    "self": (
        "Self-distillation of LeNet-300-100 at 90 % sparsity, two generations of 4 epochs",
        "model: {architecture: mlp, hidden: [300, 100]}\n" + DATA + f"train: {{epochs: 12, {ADAM}}}\n"
        "goal: {max_accuracy_drop: 1, minimize: bytes}\n"
        "variants:\n"
        "  pruned:\n"
        "    - prune: {sparsity: 0.9}\n"
        "    - retrain: {epochs: 4, learning_rate: 0.0003, schedule: cosine}\n"
        "    - self_distill: {generations: 2, epochs: 4, learning_rate: 0.0003, schedule: cosine, temperature: 3, hardness: 0.7}\n",
        [("dense", "baseline"), ("pruned and retrained", "pruned/02-retrain"), ("generation 1", "pruned/03-distill"), ("generation 2", "pruned/05-distill")]),
}


def pare(arguments, *command):
    return subprocess.run([f"{arguments.build}/bin/pare", *command], check=True, stdout=subprocess.PIPE, text=True).stdout


def run(arguments, name, body, seed):
    recipe = f"version: 1\nname: study-{name}-{seed}\nseed: {seed}\n{body}"
    with tempfile.NamedTemporaryFile("w", suffix=".yaml", delete=False) as out:
        out.write(recipe)
    try:
        pare(arguments, "run", out.name, "--workers", str(arguments.workers), "--threads", str(arguments.threads), "--store", arguments.store)
        return json.loads(pare(arguments, "report", "last", "--json", "--store", arguments.store))
    finally:
        os.unlink(out.name)


def accuracies(report):
    values = {"baseline": report["baseline"]["test_accuracy"]}
    values.update({c["step"]: c["test_accuracy"] for c in report["candidates"]})
    return values


def cell(values):
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{spread}"


def study(arguments, name):
    title, body, rows = STUDIES[name]
    reports = [run(arguments, name, body, seed) for seed in range(1, arguments.seeds + 1)]
    tested = [accuracies(report) for report in reports]
    lines = [f"## {title}", "", "```yaml", body.strip(), "```", "",
             "| network | test % (mean ± deviation) | " + " | ".join(f"seed {s}" for s in range(1, arguments.seeds + 1)) + " |",
             "| --- " * (2 + arguments.seeds) + "|"]
    for label, step in rows:
        values = [t[step] for t in tested]
        lines.append(f"| {label} | {cell(values)} | " + " | ".join(f"{v:.2f}" for v in values) + " |")
    comparisons = [c for report in reports for c in report.get("comparisons", [])]
    if comparisons:
        lines += ["", "Against the same network trained as long without a teacher (paired, on the test images):", "",
                  "| seed | kept | difference in points | 95 % interval |", "| --- | --- | --- | --- |"]
        for seed, c in enumerate(comparisons, 1):
            lines.append(f"| {seed} | {c['step']} | {c['difference']:+.2f} | {c['interval'][0]:+.2f} to {c['interval'][1]:+.2f} |")
        lines.append(f"| mean | | {cell([c['difference'] for c in comparisons])} | |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("build")
    parser.add_argument("--store", default=os.path.expanduser("~/.cache/pare/study-distillation"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", default="")
    parser.add_argument("--out", default="")
    arguments = parser.parse_args()
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "unknown")
    text = (f"<!-- made by bench/methods/distillation/study.py -->\n{cpu}, {os.cpu_count()} CPUs, {platform.system()}, "
            f"{pare(arguments, '--version').strip()}, seeds 1 to {arguments.seeds}.\n\n")
    text += "\n".join(study(arguments, name) for name in STUDIES if arguments.only in name)
    print(text)
    if not arguments.out:
        return
    # What people wrote above the tables stays.
    mark = "<!-- made by"
    above = open(arguments.out).read().split(mark)[0] if os.path.exists(arguments.out) else ""
    with open(arguments.out, "w") as out:
        out.write(above + text)


if __name__ == "__main__":
    main()
