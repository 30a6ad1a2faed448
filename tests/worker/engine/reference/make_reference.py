#!/usr/bin/env python3
"""Writes reference.json: optimizer trajectories, schedules, losses and gradient norms computed by PyTorch 2.11.

    ./scripts/setup --bench
    ~/.cache/pare/deps/bench-venv/bin/python tests/worker/engine/reference/make_reference.py
"""
import json
import math
import os
import struct

import torch

torch.set_num_threads(1)
SIZE, STEPS = 37, 5


def f32(values):
    return [struct.unpack("f", struct.pack("f", v))[0] for v in values]


def start():
    return torch.tensor(f32([math.sin(0.7 * i + 0.3) for i in range(SIZE)]))


def gradient(step):
    return torch.tensor(f32([math.cos(1.3 * i + 0.9 * step) * (1 + 0.1 * step) for i in range(SIZE)]))


def optimizer(kind, rate, **options):
    p = torch.nn.Parameter(start())
    names = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    arguments = dict(options)
    if kind != "sgd":
        arguments["betas"] = (arguments.pop("beta1", 0.9), arguments.pop("beta2", 0.999))
        arguments["eps"] = arguments.pop("epsilon", 1e-8)
        arguments.setdefault("weight_decay", 0.0)
    o = names[kind]([p], lr=rate, **arguments)
    values = []
    for step in range(STEPS):
        p.grad = gradient(step)
        o.step()
        values.append(p.detach().tolist())
    return {"kind": kind, "learning_rate": rate, "options": options, "values": values}


def schedule(name, epochs, batches, rate, **options):
    p = torch.nn.Parameter(torch.zeros(1))
    o = torch.optim.SGD([p], lr=rate)
    s = torch.optim.lr_scheduler
    if name == "multi_step":
        plan, per_batch = s.MultiStepLR(o, options["milestones"], options["gamma"]), False
    else:
        plan, per_batch = s.CosineAnnealingLR(o, epochs * batches, options["final_learning_rate"]), True
    rates = []
    for _ in range(epochs):
        for _ in range(batches):
            rates.append(o.param_groups[0]["lr"])
            o.step()
            if per_batch:
                plan.step()
        if not per_batch:
            plan.step()
    return {"kind": name, "epochs": epochs, "batches": batches, "learning_rate": rate, "options": options, "rates": rates}


def loss(smoothing):
    x = torch.tensor([[math.sin(1.1 * r + 0.7 * c) * 3 for c in range(5)] for r in range(7)], requires_grad=True)
    labels = torch.tensor([r * 2 % 5 for r in range(7)])
    value = torch.nn.functional.cross_entropy(x, labels, label_smoothing=smoothing)
    value.backward()
    return {"label_smoothing": smoothing, "logits": x.detach().flatten().tolist(), "labels": labels.tolist(),
            "loss": value.item(), "bias_gradient": x.grad.sum(0).tolist()}


def clip():
    p = torch.nn.Parameter(start())
    p.grad = gradient(1)
    norm = torch.nn.utils.clip_grad_norm_([p], 1.0)
    return {"gradient": gradient(1).tolist(), "norm": norm.item()}


def fill(shape, ordinal):
    n = math.prod(shape)
    return torch.tensor(f32([0.3 * math.sin(0.37 * i + 0.11 * ordinal + 0.05) for i in range(n)])).reshape(shape)


class Basic(torch.nn.Module):
    """conv-bn-relu, a residual block, global pooling, linear: a small ResNet."""

    def __init__(self):
        super().__init__()
        n = torch.nn
        self.conv1, self.bn1 = n.Conv2d(1, 4, 3, padding=1, bias=False), n.BatchNorm2d(4)
        self.conv2, self.bn2 = n.Conv2d(4, 4, 3, padding=1, bias=False), n.BatchNorm2d(4)
        self.fc = n.Linear(4, 3)

    def forward(self, x):
        h = torch.relu(self.bn1(self.conv1(x)))
        return self.fc(torch.relu(self.bn2(self.conv2(h)) + h).mean((2, 3)))


class Attention(torch.nn.Module):
    """Embedding, one encoder block (post-norm, GELU), a linear head over all tokens."""

    def __init__(self):
        super().__init__()
        n = torch.nn
        self.embedding = n.Embedding(11, 8)
        self.query, self.key, self.value, self.out = (n.Linear(8, 8) for _ in range(4))
        self.norm1, self.up, self.down, self.norm2 = n.LayerNorm(8), n.Linear(8, 16), n.Linear(16, 8), n.LayerNorm(8)
        self.head = n.Linear(48, 3)

    def forward(self, x):
        h = self.embedding(x.long())
        split = lambda t: t.reshape(t.shape[0], 6, 2, 4).transpose(1, 2)
        q, k, v = split(self.query(h)), split(self.key(h)), split(self.value(h))
        a = torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(h.shape)
        h = self.norm1(h + self.out(a))
        h = self.norm2(h + self.down(torch.nn.functional.gelu(self.up(h))))
        return self.head(h.flatten(1))


class Lenet(torch.nn.Module):
    def __init__(self):
        super().__init__()
        n = torch.nn
        self.conv1, self.conv2 = n.Conv2d(1, 6, 5, padding=2), n.Conv2d(6, 16, 5)
        self.fc1, self.fc2, self.fc3 = n.Linear(400, 120), n.Linear(120, 84), n.Linear(84, 10)

    def forward(self, x):
        f = torch.nn.functional
        x = f.max_pool2d(torch.relu(self.conv1(x)), 2)
        x = f.max_pool2d(torch.relu(self.conv2(x)), 2).flatten(1)
        return self.fc3(torch.relu(self.fc2(torch.relu(self.fc1(x)))))


class Mlp(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.fc2, self.fc3 = torch.nn.Linear(12, 9), torch.nn.Linear(9, 7), torch.nn.Linear(7, 3)

    def forward(self, x):
        return self.fc3(torch.relu(self.fc2(torch.relu(self.fc1(x)))))


def network(name, model, shape, classes, ids=False):
    """Weights are fill(shape, ordinal of the tensor in graph order): the test computes the same ones."""
    batch = 6
    with torch.no_grad():
        for ordinal, p in enumerate(model.parameters()):
            p.copy_(fill(p.shape, ordinal))
    n = batch * math.prod(shape)
    x = torch.tensor(f32([float(i * 7 % 11) if ids else math.sin(0.23 * i) for i in range(n)])).reshape(batch, *shape)
    labels = torch.tensor([i % classes for i in range(batch)])
    logits = model(x)
    value = torch.nn.functional.cross_entropy(logits, labels)
    value.backward()
    gradients = {}
    for k, p in model.named_parameters():
        g = p.grad.flatten()
        # Whole small tensors; for large ones every 17th element.
        gradients[k] = g[:: 17 if g.numel() > 500 else 1].tolist()
    buffers = {k: b.tolist() for k, b in model.named_buffers() if "running" in k}
    return {"name": name, "order": [k for k, _ in model.named_parameters()], "loss": value.item(), "gradients": gradients,
            "buffers": buffers}


def main():
    result = {
        "torch": torch.__version__,
        "optimizers": [
            optimizer("sgd", 0.1), optimizer("sgd", 0.1, momentum=0.9), optimizer("sgd", 0.05, momentum=0.9, nesterov=True),
            optimizer("sgd", 0.05, momentum=0.8, weight_decay=0.01), optimizer("adam", 0.01),
            optimizer("adam", 0.01, weight_decay=0.1), optimizer("adam", 0.02, beta1=0.8, beta2=0.95, epsilon=1e-4),
            optimizer("adamw", 0.01, weight_decay=0.1)],
        "schedules": [schedule("multi_step", 8, 3, 0.5, milestones=[2, 5], gamma=0.1),
                      schedule("cosine", 4, 5, 0.3, final_learning_rate=0.01)],
        "losses": [loss(0.0), loss(0.1)],
        "clip": clip(),
        "networks": [network("mlp", Mlp(), (12,), 3), network("lenet5", Lenet(), (1, 28, 28), 10),
                     network("resnet", Basic(), (1, 8, 8), 3), network("attention", Attention(), (6,), 3, ids=True)],
    }
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "reference.json")
    with open(path, "w") as out:
        json.dump(result, out)
        out.write("\n")


main()
