#!/usr/bin/env python3
"""What an energy threshold keeps depends on how the weights began: LeNet-300-100 on Fashion-MNIST in PyTorch, trained from PyTorch's
own start (uniform in ±1/√fan_in) and from He's (normal, deviation √(2/fan_in)), every layer but the last cut to the rank of each threshold.

  ~/.cache/pare/deps/bench-venv/bin/python bench/methods/low_rank/initialization.py [--epochs 20] [--seed 1]

Needs `./scripts/setup --bench` and the Debian package dataset-fashion-mnist.
"""
import argparse
import copy
import gzip
import platform

import numpy
import torch

FOLDER = "/usr/share/datasets/fashion-mnist"


def read(name, header, shape):
    with gzip.open(f"{FOLDER}/{name}.gz") as file:
        return torch.from_numpy(numpy.frombuffer(file.read(), numpy.uint8, offset=header).reshape(shape).copy())


def split(name):
    samples = read(f"{name}-images-idx3-ubyte", 16, (-1, 784)).float() / 255
    return (samples - 0.2860) / 0.3530, read(f"{name}-labels-idx1-ubyte", 8, (-1,)).long()


def linears(network):
    return [layer for layer in network if isinstance(layer, torch.nn.Linear)]


def trained(he, data, epochs, seed):
    torch.manual_seed(seed)
    network = torch.nn.Sequential(torch.nn.Linear(784, 300), torch.nn.ReLU(), torch.nn.Linear(300, 100), torch.nn.ReLU(), torch.nn.Linear(100, 10))
    for layer in linears(network) if he else []:
        torch.nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        torch.nn.init.zeros_(layer.bias)
    optimizer = torch.optim.SGD(network.parameters(), 0.05, 0.9, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [epochs // 2, epochs * 3 // 4])
    samples, labels = data
    for _ in range(epochs):
        for batch in torch.randperm(len(labels)).split(128):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(network(samples[batch]), labels[batch]).backward()
            optimizer.step()
        schedule.step()
    return network


def accuracy(network, data):
    with torch.no_grad():
        return 100 * (network(data[0]).argmax(1) == data[1]).float().mean().item()


def cut(network, energy, layers):
    """(a copy whose first `layers` linears have the smallest rank that keeps `energy`, its ranks, its parameters)"""
    network, ranks, parameters = copy.deepcopy(network), [], 0
    for i, layer in enumerate(linears(network)):
        weight, kept = layer.weight.data, layer.weight.numel()
        if i < layers:
            u, s, v = torch.linalg.svd(weight.double(), full_matrices=False)
            rank = int((s.square().cumsum(0) < energy * s.square().sum()).sum()) + 1
            ranks.append(rank)
            if rank * sum(weight.shape) < kept:
                layer.weight.data, kept = ((u[:, :rank] * s[:rank]) @ v[:rank]).float(), rank * sum(weight.shape)
        parameters += kept + layer.bias.numel()
    return network, ranks, parameters


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    train, test = split("train"), split("t10k")
    print(f"{platform.processor() or platform.machine()}, torch {torch.__version__}, {options.epochs} epochs, seed {options.seed}")
    print("| start | energy | layers cut | ranks | fewer parameters | test % | dense % |\n| --- | --- | --- | --- | --- | --- | --- |")
    for start, he in (("uniform ±1/√fan_in", False), ("He, normal", True)):
        dense = trained(he, train, options.epochs, options.seed)
        total = sum(p.numel() for p in dense.parameters())
        for energy in (0.8, 0.5):
            for layers, words in ((2, "all but the last"), (3, "all")):
                network, ranks, parameters = cut(dense, energy, layers)
                print(f"| {start} | {energy} | {words} | {', '.join(map(str, ranks))} | {total / parameters:.2f}x | {accuracy(network, test):.2f} | {accuracy(dense, test):.2f} |", flush=True)


if __name__ == "__main__":
    main()
