#!/usr/bin/env python3
"""The other side: the best in-memory training loop of Python PyTorch. Samples are normalized once and stay in memory as
float32, a batch is one index_select, the optimizer is fused. No DataLoader, no autocast, no torch.compile.

    train.py MODEL OPTIMIZER BATCH THREADS EPOCHS SAMPLES
"""
import gzip
import json
import sys
import time

import numpy
import torch
from torch import nn
from torch.nn import functional as f

ROOT = "/usr/share/datasets/fashion-mnist"


def load(split):
    with gzip.open(f"{ROOT}/{split}-images-idx3-ubyte.gz") as images, gzip.open(f"{ROOT}/{split}-labels-idx1-ubyte.gz") as labels:
        x = numpy.frombuffer(images.read(), numpy.uint8, offset=16).reshape(-1, 1, 28, 28)
        y = numpy.frombuffer(labels.read(), numpy.uint8, offset=8)
    return (torch.from_numpy(x.astype(numpy.float32)) / 255 - 0.2860) / 0.3530, torch.from_numpy(y.astype(numpy.int64))


class Block(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x):
        y = self.bn2(self.conv2(f.relu(self.bn1(self.conv1(x)), inplace=True)))
        return f.relu(y + self.shortcut(x), inplace=True)


def build(name):
    if name == "mlp":
        return nn.Sequential(nn.Flatten(), nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10))
    if name == "lenet5":
        return nn.Sequential(
            nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10))
    layers, width = [nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(inplace=True)], 16
    for stage in range(3):
        for block in range(3):
            layers.append(Block(width, 16 << stage, 2 if stage > 0 and block == 0 else 1))
            width = 16 << stage
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def main():
    name, kind, batch, threads, epochs, samples = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:7])
    torch.set_num_threads(threads)
    torch.manual_seed(1)
    x, y = load("train")
    x, y = x[:samples].contiguous(), y[:samples].contiguous()
    model = build(name)
    if kind == "sgd":
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, fused=True)
    else:
        optimizer = torch.optim.Adam(model.parameters(), lr=0.0012, fused=True)
    seconds = []
    for _ in range(epochs):
        start = time.perf_counter()
        order = torch.randperm(samples)
        for rows in order.split(batch):
            loss = f.cross_entropy(model(x[rows]), y[rows])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        seconds.append(time.perf_counter() - start)
    model.eval()
    x, y = load("t10k")
    with torch.no_grad():
        accuracy = sum((model(a).argmax(1) == b).sum().item() for a, b in zip(x.split(batch), y.split(batch))) / len(y)
    print(json.dumps({"seconds": seconds, "loss": loss.item(), "accuracy": accuracy}))


if __name__ == "__main__":
    main()
