#!/usr/bin/env python3
"""Writes quantization.json: weights and outputs of PyTorch 2.11's dynamic int8 quantization (torch.ao.quantization, engine fbgemm).

    ./scripts/setup --bench
    ~/.cache/pare/deps/bench-venv/bin/python tests/worker/engine/reference/make_quantization.py
"""
import json
import os
import warnings

import torch

warnings.filterwarnings("ignore")  # torch.ao.quantization is deprecated: that is why it is pinned here
torch.set_num_threads(1)
torch.backends.quantized.engine = "fbgemm"


def case(name, out, features, rows, outlier):
    generator = torch.Generator().manual_seed(len(name))
    linear = torch.nn.Linear(features, out)
    weight = torch.randn(out, features, generator=generator) / 8
    if outlier:
        weight[0, 0] = 3.0
        weight[1] = 0.0
    x = torch.randn(rows, features, generator=generator) + (2.0 if outlier else 0.0)
    with torch.no_grad():
        linear.weight.copy_(weight)
        linear.bias.copy_(torch.randn(out, generator=generator) / 4)
    linear.qconfig = torch.ao.quantization.per_channel_dynamic_qconfig
    quantized = torch.ao.nn.quantized.dynamic.Linear.from_float(linear)
    codes = quantized.weight()
    return {"name": name, "weight": weight.tolist(), "bias": linear.bias.tolist(), "input": x.tolist(),
            "codes": codes.int_repr().tolist(), "scales": codes.q_per_channel_scales().tolist(), "output": quantized(x).tolist()}


def main():
    cases = [case("plain", 6, 40, 5, False), case("outliers", 5, 33, 4, True), case("one row", 7, 16, 1, False)]
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "quantization.json")
    with open(path, "w") as out:
        json.dump({"torch": torch.__version__, "cases": cases}, out)
        out.write("\n")


if __name__ == "__main__":
    main()
