#!/usr/bin/env python3
"""Writes low_rank.json: singular values by torch.linalg.svd in float64, and a LoRA training run by PEFT, both on stored inputs.

    ./scripts/setup --bench
    ~/.cache/pare/deps/bench-venv/bin/python -m pip install peft==0.17.1 transformers==4.56.2 accelerate==1.10.1
    ~/.cache/pare/deps/bench-venv/bin/python tests/worker/engine/reference/make_low_rank.py
"""
import json
import math
import os

import peft
import torch

torch.set_num_threads(1)
STEPS, RATE, RANK, ALPHA = 6, 0.2, 2, 6.0


def fill(shape, ordinal):
    n = math.prod(shape)
    return torch.tensor([0.3 * math.sin(0.37 * i + 0.11 * ordinal + 0.05) for i in range(n)], dtype=torch.float32).reshape(shape)


def noise(shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def spectrum(rows, columns, seed):
    w = noise((rows, columns), seed)
    x = noise((3 * columns, columns), seed + 1)
    c = (x.T.double() @ x.double()) / x.shape[0]
    # The ridge of worker/engine/linalg.h.
    l = torch.linalg.cholesky(c + 1e-6 * c.diagonal().mean() * torch.eye(columns, dtype=torch.float64))
    return {"matrix": w.flatten().tolist(), "shape": [rows, columns], "covariance": c.flatten().tolist(),
            "plain": torch.linalg.svd(w.double()).S.tolist(), "whitened": torch.linalg.svd(w.double() @ l).S.tolist()}


class Mlp(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.fc2, self.fc3 = torch.nn.Linear(12, 9), torch.nn.Linear(9, 7), torch.nn.Linear(7, 3)

    def forward(self, x):
        return self.fc3(torch.relu(self.fc2(torch.relu(self.fc1(x)))))


def lora(kind):
    base = Mlp()
    with torch.no_grad():
        for ordinal, p in enumerate(base.parameters()):
            p.copy_(fill(p.shape, ordinal))
    config = peft.LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=["fc1", "fc3"], lora_dropout=0.0, bias="none")
    model = peft.get_peft_model(base, config)
    adapters = {k: p for k, p in model.named_parameters() if p.requires_grad}
    start = {}
    with torch.no_grad():
        for ordinal, (k, p) in enumerate(adapters.items()):
            if "lora_A" in k:
                p.copy_(fill(p.shape, 20 + ordinal))
            start[k] = p.flatten().tolist()
    make = {"sgd": lambda p: torch.optim.SGD(p, lr=RATE, momentum=0.9), "adamw": lambda p: torch.optim.AdamW(p, lr=0.02, weight_decay=0.01)}[kind]
    optimizer = make(adapters.values())
    x, labels = noise((8, 12), 5), torch.tensor([i % 3 for i in range(8)])
    losses = []
    for _ in range(STEPS):
        loss = torch.nn.functional.cross_entropy(model(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    end = {k: p.detach().flatten().tolist() for k, p in adapters.items()}
    merged = model.merge_and_unload()
    return {"optimizer": kind, "rank": RANK, "alpha": ALPHA, "samples": x.flatten().tolist(), "losses": losses, "start": start, "end": end,
            "merged": {k: p.detach().flatten().tolist() for k, p in merged.named_parameters()},
            "merged_logits": merged(x).detach().flatten().tolist()}


def main():
    result = {"torch": torch.__version__, "peft": peft.__version__,
              "spectra": [spectrum(5, 8, 1), spectrum(9, 6, 2), spectrum(20, 33, 3)], "lora": [lora("sgd"), lora("adamw")]}
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "low_rank.json")
    with open(path, "w") as out:
        json.dump(result, out)
        out.write("\n")


main()
