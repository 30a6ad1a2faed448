#!/usr/bin/env python3
"""Writes distillation.json: losses and gradients of distillation computed by PyTorch 2.11 in double precision.

    ./scripts/setup --bench
    ~/.cache/pare/deps/bench-venv/bin/python tests/worker/engine/reference/make_distillation.py
"""
import json
import math
import os
import struct

import torch
from torch.nn import functional as f

torch.set_num_threads(1)
SAMPLES = 6


def f32(value):
    return struct.unpack("f", struct.pack("f", value))[0]


def logits(classes, scale, ordinal):
    return torch.tensor([[f32(scale * math.sin(0.7 * i + 1.9 * c + 0.31 * ordinal * c)) for c in range(classes)] for i in range(SAMPLES)],
                        dtype=torch.float64)


def rows(classes, scale, temperature, hardness, smoothing, labelled):
    """Per sample; the mean over the batch is the caller's."""
    student = logits(classes, scale, 1).requires_grad_()
    teacher = logits(classes, 1.5 * scale, 2)
    labels = torch.tensor([i * 3 % classes if i < labelled else -100 for i in range(SAMPLES)])
    hard = f.cross_entropy(student, labels, label_smoothing=smoothing, reduction="none", ignore_index=-100)
    soft = f.kl_div(f.log_softmax(student / temperature, 1), f.softmax(teacher / temperature, 1), reduction="none").sum(1)
    loss = (1 - hardness) * hard + hardness * temperature ** 2 * soft
    loss.mean().backward()
    return {"classes": classes, "scale": scale, "temperature": temperature, "hardness": hardness, "label_smoothing": smoothing,
            "labelled": labelled, "student": student.tolist(), "teacher": teacher.tolist(), "labels": labels.tolist(),
            "loss": loss.tolist(), "gradient": student.grad.tolist()}


def main():
    cases = [rows(*case) for case in [
        (10, 3.0, 2.0, 0.5, 0.0, 6), (10, 3.0, 1.0, 0.9, 0.1, 6), (10, 3.0, 8.0, 1.0, 0.0, 6), (10, 30.0, 2.0, 0.5, 0.05, 3),
        (2, 1.0, 4.0, 0.3, 0.0, 0), (37, 5.0, 0.5, 0.7, 0.2, 4), (10, 3.0, 2.0, 0.0, 0.1, 6)]]
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "distillation.json")
    with open(path, "w") as out:
        json.dump({"torch": torch.__version__, "cases": cases}, out, indent=1)
        out.write("\n")


if __name__ == "__main__":
    main()
