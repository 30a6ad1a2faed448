#!/usr/bin/env python3
"""Masks of torch.nn.utils.prune on stored random inputs, for tests/methods/parity_test.cc.

  python tests/methods/reference/make_prune_reference.py > tests/methods/reference/prune_reference.json

The environment of ./scripts/setup --bench has torch. Weights are multiples of 1/1024 without ties in what a method ranks: torch
breaks ties as topk happens to, Pare by index. ln_structured takes whole rows by their L1 norm; Pare's structured pruning of a
linear ranks rows by the sum of magnitudes.
"""
import json

import torch
from torch.nn.utils import prune

torch.manual_seed(7)


def distinct(shape):
    n = int(torch.tensor(shape).prod())
    values = (torch.randperm(n) + 1).float() / 1024
    return (values * torch.sign(torch.randn(n))).reshape(shape)


def layer(weight):
    if weight.dim() == 2:
        module = torch.nn.Linear(weight.shape[1], weight.shape[0])
    else:
        module = torch.nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[2:])
    with torch.no_grad():
        module.weight.copy_(weight)
    return module


def numbers(tensor):
    return [round(float(v) * 1024) for v in tensor.flatten()]


def bits(mask):
    return "".join("1" if v else "0" for v in mask.flatten().tolist())


cases = []
for shape, amount in [((12, 20), 0.35), ((6, 3, 5, 5), 0.8), ((40, 7), 0.5)]:
    module = layer(distinct(shape))
    weight = module.weight.detach().clone()
    prune.l1_unstructured(module, "weight", amount=amount)
    cases.append({"method": "l1_unstructured", "amount": amount, "shapes": [list(shape)], "weights": [numbers(weight)], "masks": [bits(module.weight_mask)]})

# Twice: the second amount is of what is left.
module = layer(distinct((16, 30)))
weight = module.weight.detach().clone()
prune.l1_unstructured(module, "weight", amount=0.5)
prune.l1_unstructured(module, "weight", amount=0.25)
cases.append({"method": "l1_unstructured_twice", "amount": [0.5, 0.25], "shapes": [[16, 30]], "weights": [numbers(weight)], "masks": [bits(module.weight_mask)]})

# Several layers ranked together; all magnitudes differ.
shapes = [(20, 15), (8, 20), (4, 2, 3, 3)]
flat = distinct((sum(int(torch.tensor(s).prod()) for s in shapes),))
modules, weights = [], []
for shape in shapes:
    n = int(torch.tensor(shape).prod())
    modules.append(layer(flat[:n].reshape(shape)))
    weights.append(flat[:n].clone())
    flat = flat[n:]
prune.global_unstructured([(m, "weight") for m in modules], pruning_method=prune.L1Unstructured, amount=0.7)
cases.append({"method": "global_unstructured", "amount": 0.7, "shapes": [list(s) for s in shapes], "weights": [numbers(w) for w in weights],
              "masks": [bits(m.weight_mask) for m in modules]})

for norm in (1, 2):
    module = layer(torch.randn(14, 9).mul(1024).round().div(1024))
    weight = module.weight.detach().clone()
    prune.ln_structured(module, "weight", amount=0.5, n=norm, dim=0)
    cases.append({"method": f"l{norm}_structured", "amount": 0.5, "shapes": [[14, 9]], "weights": [numbers(weight)], "masks": [bits(module.weight_mask)]})

print(json.dumps({"torch": torch.__version__, "cases": cases}, indent=0))
