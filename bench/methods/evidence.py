#!/usr/bin/env python3
"""Evidence for pruning: runs a study's recipe for several seeds and writes the table of results.

  bench/methods/evidence.py retraining_rules|han_shape --pare build/release/bin/pare --store DIR [--seeds 1 2 3]
                            [--workers N] [--epochs N] [--out FILE]

Test accuracy, mean ± half the range over the seeds. --epochs N replaces the 20 epochs of the baseline's schedule (milestones
at half and three quarters) to try the command; such a table says so. Only finished jobs are reported; the same command goes
on where it was interrupted. Standard library only.
"""
import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
STUDIES = {"retraining_rules": ["retraining_rules.yaml"], "han_shape": ["han_shape.yaml", "han_shape_conv.yaml"]}
ROUNDS = [3, 5, 8, 10]
RULES = [("one-shot, none", "none"), ("one-shot + fine-tune", "tuned"), ("iterative fine-tune", "iterative-tuned"),
         ("one-shot + LR replay", "replayed"), ("iterative + LR replay", "iterative-replayed"), ("cubic, one run", "cubic"),
         ("lottery, rewind to epoch 1", "lottery-epoch-1"), ("lottery, rewind to init", "lottery-init"),
         ("ticket mask, new init", "ticket-new-init")]


def recipe(file, seed, epochs):
    text = open(os.path.join(HERE, file), encoding="utf-8").read()
    text = re.sub(r"^seed: \d+$", f"seed: {seed}", text, flags=re.M)
    text = text.replace("init_seed: 1001", f"init_seed: {1000 + seed}")
    if epochs:
        text = re.sub(r"(train: \{)epochs: \d+", rf"\1epochs: {epochs}", text)
        text = re.sub(r"milestones: \[\d+, \d+\]", f"milestones: [{max(1, epochs // 2)}, {max(1, epochs * 3 // 4)}]", text)
        text = re.sub(r", epochs: 20, end_epoch: 13", f", epochs: {epochs}, end_epoch: {max(1, epochs * 2 // 3)}", text)
        text = re.sub(r"to: init, epochs: \d+", "to: init", text)
        text = re.sub(r"retrain: \{epochs: \d+\}", "retrain: {epochs: 1}", text)
        if epochs == 1:
            text = text.replace("to: 1}", "to: init}")
    return text


def run(options, file, seed):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, f"{file[:-5]}-{seed}.yaml")
        with open(path, "w", encoding="utf-8") as out:
            out.write(recipe(file, seed, options.epochs))
        subprocess.run([options.pare, "run", path, "--store", options.store, "--workers", str(options.workers)], check=True,
                       stdout=sys.stderr)
    report = subprocess.run([options.pare, "report", "last", "--json", "--store", options.store], check=True, capture_output=True, text=True)
    return json.loads(report.stdout)


def cell(values):
    if not values or any(v is None for v in values):
        return "not measured"
    return f"{sum(values) / len(values):.2f} ± {(max(values) - min(values)) / 2:.2f}"


def after_round(report, variant, rounds):
    """Test accuracy of the candidate that `rounds` rounds left: a variant of its own, or a step of an iterative one."""
    lines = [c for c in report["candidates"] if c["variant"] == variant]
    if variant in ("iterative-tuned", "iterative-replayed", "lottery-epoch-1", "lottery-init"):
        lines.sort(key=lambda c: c["step"])
        return lines[rounds - 1]["test_accuracy"] if len(lines) >= rounds else None
    lines = [c for c in report["candidates"] if c["variant"] == f"{variant}-{rounds}"]
    return lines[-1]["test_accuracy"] if lines else None


def rules_table(reports):
    out = ["Dense: " + cell([r["baseline"]["test_accuracy"] for r in reports]) + " %", ""]
    out.append("| kept | " + " | ".join(name for name, _ in RULES) + " |")
    out.append("|---" * (len(RULES) + 1) + "|")
    for rounds in ROUNDS:
        cells = [cell([after_round(r, variant, rounds) for r in reports]) for _, variant in RULES]
        out.append(f"| {100 * 0.64 ** rounds:.1f} % | " + " | ".join(cells) + " |")
    return out


def han_table(groups):
    out = ["| network | dense | 12x smaller | difference | weights kept |", "|---|---|---|---|---|"]
    for name, reports in groups:
        last = [sorted(r["candidates"], key=lambda c: c["step"])[-1] for r in reports]
        dense, small = [r["baseline"]["test_accuracy"] for r in reports], [c["test_accuracy"] for c in last]
        out.append(f"| {name} | {cell(dense)} | {cell(small)} | {cell([b - a for a, b in zip(dense, small)])} pp | "
                   f"{100 * (1 - last[0]['sparsity']):.1f} % |")
    return out


def machine(options):
    cpu = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        names = [l.split(":", 1)[1].strip() for l in open("/proc/cpuinfo", encoding="utf-8") if l.startswith("model name")]
        cpu = f"{names[0]}, {len(names)} processors" if names else cpu
    version = subprocess.run([options.pare, "version"], capture_output=True, text=True, check=True).stdout.strip().splitlines()[0]
    return f"{cpu}; {version}"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("study", choices=sorted(STUDIES))
    parser.add_argument("--pare", required=True)
    parser.add_argument("--store", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=0)
    parser.add_argument("--out")
    options = parser.parse_args()
    groups = [(file, [run(options, file, seed) for seed in options.seeds]) for file in STUDIES[options.study]]
    lines = [f"Seeds {', '.join(map(str, options.seeds))}; {machine(options)}."]
    if options.epochs:
        lines.append(f"TRIAL with {options.epochs} epochs: says nothing about the method.")
    lines.append("")
    lines += rules_table(groups[0][1]) if options.study == "retraining_rules" else han_table([(f[:-5], r) for f, r in groups])
    text = "\n".join(lines) + "\n"
    print(text, end="")
    if options.out:
        with open(options.out, "w", encoding="utf-8") as out:
            out.write(text)


if __name__ == "__main__":
    main()
