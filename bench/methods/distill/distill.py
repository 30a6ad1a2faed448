#!/usr/bin/env python3
"""The other side: distillation as the best in-memory loop of Python PyTorch. Samples are normalized once and stay in memory as
float32, a batch is one index_select, the optimizer is fused. No DataLoader, no autocast, no torch.compile.

    distill.py cached|loop TEACHER_HIDDEN STUDENT_HIDDEN BATCH THREADS EPOCHS SAMPLES        (hidden widths: 1200,1200)
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
TEMPERATURE, HARDNESS = 2.0, 0.5


def load():
    with gzip.open(f"{ROOT}/train-images-idx3-ubyte.gz") as images, gzip.open(f"{ROOT}/train-labels-idx1-ubyte.gz") as labels:
        x = numpy.frombuffer(images.read(), numpy.uint8, offset=16).reshape(-1, 784)
        y = numpy.frombuffer(labels.read(), numpy.uint8, offset=8)
    return (torch.from_numpy(x.astype(numpy.float32)) / 255 - 0.2860) / 0.3530, torch.from_numpy(y.astype(numpy.int64))


def mlp(hidden):
    layers, width = [], 784
    for w in map(int, hidden.split(",")):
        layers += [nn.Linear(width, w), nn.ReLU()]
        width = w
    return nn.Sequential(*layers, nn.Linear(width, 10))


def main():
    way, teacher_hidden, student_hidden, batch, threads, epochs, samples = *sys.argv[1:4], *map(int, sys.argv[4:8])
    torch.set_num_threads(threads)
    torch.manual_seed(1)
    x, y = load()
    x, y = x[:samples].contiguous(), y[:samples].contiguous()
    teacher, student = mlp(teacher_hidden).eval(), mlp(student_hidden)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.05, momentum=0.9, fused=True)
    start = time.perf_counter()
    with torch.no_grad():
        answers = torch.cat([teacher(part) for part in x.split(500)]) if way == "cached" else None
    pass_seconds, seconds = time.perf_counter() - start, []
    for _ in range(epochs):
        start = time.perf_counter()
        for rows in torch.randperm(samples).split(batch):
            inputs = x[rows]
            if way == "cached":
                target = answers[rows]
            else:
                with torch.no_grad():
                    target = teacher(inputs)
            logits = student(inputs)
            soft = f.kl_div(f.log_softmax(logits / TEMPERATURE, 1), f.softmax(target / TEMPERATURE, 1), reduction="batchmean")
            loss = (1 - HARDNESS) * f.cross_entropy(logits, y[rows]) + HARDNESS * TEMPERATURE ** 2 * soft
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        seconds.append(time.perf_counter() - start)
    print(json.dumps({"seconds": seconds, "pass_seconds": pass_seconds, "loss": loss.item()}))


if __name__ == "__main__":
    main()
