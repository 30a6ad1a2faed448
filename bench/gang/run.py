#!/usr/bin/env python3
"""Training steps of one recipe on one worker, on a gang of two, and on one worker with two threads, in turn. Prints seconds per
step and ratios, and checks that all three end with one digest.

    run.py BUILD_DIR [--pairs 3] [--epochs 2]
"""
import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time

RECIPE = """version: 1
name: gang
seed: 1
model: {model}
data: {{dataset: fashion-mnist, validation: 5000}}
train: {{epochs: {epochs}, batch_size: {batch}, shards: 4, optimizer: adam, learning_rate: 0.001}}
{gang}variants:
  {variant}
"""
# Two jobs, so that nothing else is ready when a step that is measured begins.
VARIANTS = ["first: [{prune: {sparsity: 0.5}}]", "sparse: [{prune: {sparsity: 0.9}}, {retrain: {epochs: EPOCHS}}]"]
# model, batch
SETTINGS = [
    ("{architecture: mlp, hidden: [300, 100]}", 256),
    ("{architecture: mlp, hidden: [1200, 1200]}", 256),
    ("{architecture: lenet5}", 256),
]
# workers, threads of each
WAYS = {"alone": (1, 1), "gang": (2, 1), "threads": (1, 2)}
STEPS = {"baseline": "dense", "sparse/02-retrain": "90 % masked"}


class Cluster:
    """A coordinator and workers that have loaded their libraries."""

    def __init__(self, binaries, directory, workers, threads):
        self.processes = []
        coordinator = self.start(f"{binaries}/pare-coordinator", "--store", f"{directory}/store", "--listen", "tcp://127.0.0.1:0", stdout=subprocess.PIPE)
        line = coordinator.stdout.readline()
        self.endpoint = json.loads(line.removeprefix("ready "))["endpoint"]
        for number in range(workers):
            log = open(f"{directory}/worker-{number}.log", "w+")
            self.start(f"{binaries}/pare-worker", "--coordinator", self.endpoint, "--threads", str(threads), stderr=log)
            while "runner ready" not in open(log.name).read():
                time.sleep(0.05)

    def start(self, *command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
        self.processes.append(subprocess.Popen(command, stdout=stdout, stderr=stderr, text=True))
        return self.processes[-1]

    def stop(self):
        for process in reversed(self.processes):
            process.terminate()
            process.wait()


def run(binaries, model, batch, epochs, way):
    workers, threads = WAYS[way]
    with tempfile.TemporaryDirectory() as directory:
        cluster = Cluster(binaries, directory, workers, threads)

        def call(*arguments):
            command = [f"{binaries}/pare", *arguments, "--coordinator", cluster.endpoint]
            return subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout

        try:
            seconds = {}
            for variant in VARIANTS:
                path = f"{directory}/recipe.yaml"
                with open(path, "w") as file:
                    file.write(RECIPE.format(model=model, batch=batch, epochs=epochs, gang="gang: 2\n" if way == "gang" else "",
                                             variant=variant.replace("EPOCHS", str(epochs))))
                time.sleep(1)  # everybody idles
                call("submit", path, "--wait")
                for step in json.loads(call("describe", "last", "--json"))["steps"]:
                    if step["name"] not in STEPS or step["reused"]:
                        continue
                    last = step["attempts"][-1]
                    if len(last["workers"]) != workers:
                        sys.exit(f"{step['name']} ran on {last['workers']}")
                    seconds[step["name"]] = last["busy_ms"] / 1000
            return call("digest").strip().splitlines()[-1], seconds
        finally:
            cluster.stop()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("build")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=2)
    arguments = parser.parse_args()
    binaries = f"{arguments.build}/bin"
    version = subprocess.run([f"{binaries}/pare", "version"], check=True, stdout=subprocess.PIPE, text=True).stdout.strip().splitlines()[0]
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "unknown")
    print(f"{cpu}, {os.cpu_count()} CPUs, {platform.system()} {platform.release()}, {version}\n")
    print("| model | batch | step | one worker s | gang of two s | one worker, two threads s | one / gang (min–max) | one / two threads (min–max) |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for model, batch in SETTINGS:
        seconds = {step: {way: [] for way in WAYS} for step in STEPS}
        digests = set()
        for _ in range(arguments.pairs):
            for way in WAYS:
                digest, took = run(binaries, model, batch, arguments.epochs, way)
                digests.add(digest)
                for step in STEPS:
                    seconds[step][way].append(took[step])
        if len(digests) != 1:
            sys.exit(f"{model}: the digests differ: {sorted(digests)}")
        for step, name in STEPS.items():
            def ratio(way):
                list_ = [a / b for a, b in zip(seconds[step]["alone"], seconds[step][way])]
                return f"{statistics.median(list_):.2f} ({min(list_):.2f}–{max(list_):.2f})"

            middles = " | ".join(f"{statistics.median(seconds[step][way]):.2f}" for way in WAYS)
            print(f"| `{model}` | {batch} | {name} | {middles} | {ratio('gang')} | {ratio('threads')} |", flush=True)


if __name__ == "__main__":
    main()
