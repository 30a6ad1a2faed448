#!/usr/bin/env python3
"""The evidence for Pare's methods: runs a study's recipes for several seeds and writes its tables.

  bench/methods/evidence/evidence.py STUDY --bin build/release/bin --store DIR [--seeds 1 2 3] [--workers N] [--trial] [--out FILE]

STUDY is retraining_rules, han_shape, low_rank, quantization or distillation. A recipe's rows are its lines `#| label | step`.
Interrupted, the same command goes on where it was: the store keeps every finished step. --trial trains one epoch instead of
many, to try the command; such tables say so. With --out, what people wrote above the first table stays. Standard library only.
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
MARK = "<!-- made by bench/methods/evidence/evidence.py"
STUDIES = {"retraining_rules": ["retraining_rules"], "han_shape": ["han_lenet_300_100", "han_lenet5"], "low_rank": ["low_rank"],
           "quantization": ["quantization"], "distillation": ["distill_few_labels", "distill_all_labels", "distill_self"]}


def text_of(name):
    with open(os.path.join(HERE, name + ".yaml"), encoding="utf-8") as recipe:
        return recipe.read()


def title_of(name):
    return re.match(r"# (.*?)[.:] ", text_of(name)).group(1)


def rows_of(name):
    """(label, step) of each line `#| label | step`."""
    return [(m.group(1).strip(), m.group(2).strip()) for m in re.finditer(r"^#\| (.*?) \| (.*)$", text_of(name), flags=re.M)]


def recipe(name, seed, trial):
    text = re.sub(r"^seed: \d+$", f"seed: {seed}", text_of(name), flags=re.M)
    text = re.sub(r"init_seed: \d+", f"init_seed: {1000 + seed}", text)
    if trial:
        # Of the baseline's schedule only what a single epoch allows is left.
        text = re.sub(r"\bepochs: \d+", "epochs: 1", text)
        text = re.sub(r", schedule: multi_step, milestones: \[\d+, \d+\]|, milestones: \[\d+, \d+\]|, end_epoch: \d+", "", text)
        text = re.sub(r"to: \d+\}", "to: init}", text)
    return text


class Pare:
    def __init__(self, options):
        self.options, self.program = options, os.path.join(options.bin, "pare")

    def call(self, *arguments):
        return subprocess.run([self.program, *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout

    def report(self, name, seed):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, f"{name}-{seed}.yaml")
            with open(path, "w", encoding="utf-8") as out:
                out.write(recipe(name, seed, self.options.trial))
            run = ["run", path, "--store", self.options.store, "--workers", str(self.options.workers)]
            subprocess.run([self.program, *run], check=True, stdout=sys.stderr)
            # Once more, without progress: the report of this very job, which is not the last one if it was resumed.
            return json.loads(self.call(*run, "--json"))

    def machine(self):
        cpu = platform.machine()
        if os.path.exists("/proc/cpuinfo"):
            with open("/proc/cpuinfo", encoding="utf-8") as info:
                cpu = next((line.split(":", 1)[1].strip() for line in info if line.startswith("model name")), cpu)
        runner = subprocess.run([os.path.join(self.options.bin, "pare-runner"), "--version"], check=True, stdout=subprocess.PIPE, text=True).stdout
        libraries = runner[runner.find("(") + 1:runner.rfind(")")]
        commit = subprocess.run(["git", "-C", HERE, "describe", "--always", "--dirty"], stdout=subprocess.PIPE, text=True).stdout.strip()
        return (f"{cpu}, {os.cpu_count()} processors, {platform.system()}; {self.call('version').splitlines()[0]}, commit {commit or 'unknown'}; "
                f"{libraries}")


def cell(values, unit=""):
    """Mean and half the range over the seeds."""
    if not values or any(v is None for v in values):
        return "not measured"
    return f"{sum(values) / len(values):.2f}{unit}" + (f" ± {(max(values) - min(values)) / 2:.2f}" if len(values) > 1 else "")


def steps_of(report):
    return {"baseline": report["baseline"], **{c["step"]: c for c in report["candidates"]}}


def rows_table(name, reports, seeds):
    """One row per network: how much smaller than the baseline, test accuracy of every seed."""
    out = ["| network | parameters not zero | bytes of the file | float32 / file | test % | " + " | ".join(f"seed {s}" for s in seeds) + " |",
           "| --- " * (5 + len(seeds)) + "|"]
    steps = [steps_of(report) for report in reports]
    for label, step in rows_of(name):
        missing = [s for s in steps if step not in s]
        if missing:
            sys.exit(f"{name}: row '{label}' names step {step}; the report has {', '.join(sorted(missing[0]))}")
        of_row = [s[step] for s in steps]
        accuracy = [r["test_accuracy"] for r in of_row]
        smaller = [4 * s["baseline"]["parameters"] / r["bytes"] for s, r in zip(steps, of_row)]
        out.append(f"| {label} | {of_row[0]['parameters_nonzero']} | {of_row[0]['bytes']} | {cell(smaller)} | {cell(accuracy)} | "
                   + " | ".join(f"{a:.2f}" for a in accuracy) + " |")
    return out + comparisons(reports, seeds)


def comparisons(reports, seeds):
    """Of taught networks against the same network trained as long without a teacher, on the same test images."""
    lines = [(s, c) for s, report in zip(seeds, reports) for c in report.get("comparisons", [])]
    if not lines:
        return []
    out = ["", "Against the same network trained as long without a teacher (paired, on the test images):", "",
           "| seed | kept | difference in pp | 95 % interval |", "| --- | --- | --- | --- |"]
    out += [f"| {s} | {c['step']} | {c['difference']:+.2f} | {c['interval'][0]:+.2f} to {c['interval'][1]:+.2f} |" for s, c in lines]
    return out + [f"| all | | {cell([c['difference'] for _, c in lines])} | |"]


ROUNDS = [3, 5, 8, 10]
RULES = [("one-shot, none", "none"), ("one-shot + fine-tune", "tuned"), ("iterative fine-tune", "iterative-tuned"),
         ("one-shot + LR replay", "replayed"), ("iterative + LR replay", "iterative-replayed"), ("cubic, one run", "cubic"),
         ("lottery, rewind to epoch 1", "lottery-epoch-1"), ("lottery, rewind to init", "lottery-init"),
         ("ticket mask, new init", "ticket-new-init")]


def after_round(report, variant, rounds):
    """Test accuracy of the candidate that `rounds` rounds left: a variant of its own, or a step of an iterative one."""
    lines = [c for c in report["candidates"] if c["variant"] == variant]
    if variant in ("iterative-tuned", "iterative-replayed", "lottery-epoch-1", "lottery-init"):
        lines.sort(key=lambda c: c["step"])
        return lines[rounds - 1]["test_accuracy"] if len(lines) >= rounds else None
    lines = [c for c in report["candidates"] if c["variant"] == f"{variant}-{rounds}"]
    return lines[-1]["test_accuracy"] if lines else None


def rules_table(reports):
    out = ["Dense: " + cell([r["baseline"]["test_accuracy"] for r in reports]) + " % test.", ""]
    out.append("| kept | " + " | ".join(name for name, _ in RULES) + " |")
    out.append("| --- " * (len(RULES) + 1) + "|")
    for rounds in ROUNDS:
        cells = [cell([after_round(r, variant, rounds) for r in reports]) for _, variant in RULES]
        out.append(f"| {100 * 0.64 ** rounds:.1f} % | " + " | ".join(cells) + " |")
    return out


def tables(pare, study, seeds):
    out = []
    for name in STUDIES[study]:
        reports = [pare.report(name, seed) for seed in seeds]
        if len(STUDIES[study]) > 1:
            out += [f"## {title_of(name)}", ""]
        out += rules_table(reports) if study == "retraining_rules" else rows_table(name, reports, seeds)
        out.append("")
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=sorted(STUDIES))
    parser.add_argument("--bin", required=True)
    parser.add_argument("--store", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--trial", action="store_true")
    parser.add_argument("--out")
    options = parser.parse_args()
    pare = Pare(options)
    lines = [f"{MARK} {options.study} -->", f"Seeds {', '.join(map(str, options.seeds))}: mean ± half the range. {pare.machine()}.", ""]
    if options.trial:
        lines += ["TRIAL with one epoch: says nothing about the method.", ""]
    text = "\n".join(lines + tables(pare, options.study, options.seeds)).rstrip("\n") + "\n"
    print(text, end="")
    if not options.out:
        return
    above = ""
    if os.path.exists(options.out):
        with open(options.out, encoding="utf-8") as before:
            above = before.read().split(MARK)[0]
    with open(options.out, "w", encoding="utf-8") as out:
        out.write(above + text)


if __name__ == "__main__":
    main()
