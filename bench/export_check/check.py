#!/usr/bin/env python3
"""Reads what `pare export` wrote with Python's safetensors and torch, and compares its test accuracy with the report's.

    check.py EXPORT_DIR [--data /usr/share/datasets/fashion-mnist]

--data is where Fashion-MNIST lies, or a directory with test.npy and test_labels.npy. Exit 0: equal. The first part is the ten lines that a user of a `mlp` export needs; the second runs graph.json of any export.
"""
import argparse
import gzip
import json
import os
import sys

import numpy
import torch
import torch.nn.functional as F
from safetensors.torch import load_file


def idx(path, offset):
    return torch.from_numpy(numpy.frombuffer(gzip.open(path).read(), numpy.uint8, offset=offset).copy())


def decoded(node, weights):
    """The weight of a node as float32, by the encodings of docs/formats.md."""
    name, encoding = node["name"], node.get("encoding", "dense")
    weight = weights.get(f"{name}.weight")
    if encoding == "int8":
        return weight.float() * weights[f"{name}.weight_scale"].view(-1, *[1] * (weight.dim() - 1))
    if encoding == "codebook":
        return weights[f"{name}.weight_values"][weight.long()]
    if encoding not in ("dense", "int8_fake"):
        sys.exit(f"check.py does not decode {encoding}")
    return weight


def rounded(node, x, weights):
    """The input of an integer linear, as its codes 0 to 127 say it."""
    activations = node.get("activations", "float")
    if activations == "float":
        return x
    if activations == "static":
        scale, zero = weights[f"{node['name']}.input_scale"], weights[f"{node['name']}.input_zero_point"]
    else:
        low, high = min(x.min().item(), 0.0), max(x.max().item(), 0.0)
        scale = (high - low) / 127 or 0.1
        zero = min(max(round(-low / scale), 0), 127)
    return ((x / scale + zero).round().clamp(0, 127) - zero) * scale


def mlp_accuracy(directory, data):
    weights = load_file(f"{directory}/model.safetensors")
    layers = sorted({name.split(".")[0] for name in weights})  # fc1, fc2, …: execution order
    norm = json.load(open(f"{directory}/config.json"))["data"]
    x = idx(f"{data}/t10k-images-idx3-ubyte.gz", 16).view(-1, 784).float()
    labels = idx(f"{data}/t10k-labels-idx1-ubyte.gz", 8)
    x = (x / norm["divisor"] - norm["offset"][0]) * norm["scale"][0]
    for layer in layers[:-1]:
        x = F.relu(F.linear(x, weights[f"{layer}.weight"], weights[f"{layer}.bias"]))
    x = F.linear(x, weights[f"{layers[-1]}.weight"], weights[f"{layers[-1]}.bias"])
    return 100 * (x.argmax(1) == labels).double().mean().item()


def pair(node, name, default):
    value = node.get(name, default)
    return tuple(value) if isinstance(value, list) else (node.get(name + "_h", value), node.get(name + "_w", value))


def attention(node, q, k, v, mask=None):
    heads = node.get("heads", 1)
    split = lambda t: t.view(*t.shape[:2], heads, -1).transpose(1, 2)
    seen = None if mask is None else mask.ne(0)[:, None, None, :]
    return F.scaled_dot_product_attention(split(q), split(k), split(v), attn_mask=seen).transpose(1, 2).flatten(2)


def segments(node, ids):
    ends = ids.eq(node.get("id", 0)).long()
    return (ends.cumsum(1) - ends).clamp(max=node.get("segments", 1) - 1)


def sequence_mean(x, mask=None):
    if mask is None:
        return x.mean(1)
    return (x * mask.unsqueeze(2)).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)


def run_node(node, inputs, weights):
    op, name = node["op"], node["name"]
    tensor = lambda part: weights.get(f"{name}.{part}")
    if op == "linear":
        return F.linear(rounded(node, inputs[0], weights), decoded(node, weights), tensor("bias"))
    if op == "conv2d":
        return F.conv2d(inputs[0], decoded(node, weights), tensor("bias"), pair(node, "stride", 1), pair(node, "padding", 0),
                        groups=node.get("groups", 1))
    if op == "batch_norm2d":
        return F.batch_norm(inputs[0], tensor("running_mean"), tensor("running_var"), tensor("weight"), tensor("bias"),
                            eps=node.get("epsilon", 1e-5))
    if op in ("max_pool2d", "avg_pool2d"):
        pool = F.max_pool2d if op == "max_pool2d" else F.avg_pool2d
        return pool(inputs[0], pair(node, "kernel", 1), pair(node, "stride", 1), pair(node, "padding", 0))
    if op == "global_avg_pool2d":
        return inputs[0].mean((2, 3), keepdim=True)
    if op == "layer_norm":
        return F.layer_norm(inputs[0], (node["features"],), tensor("weight"), tensor("bias"), node.get("epsilon", 1e-5))
    if op == "embedding":
        return F.embedding(inputs[0].long(), decoded(node, weights))
    if op == "attention":
        return attention(node, *inputs)
    if op == "positions":
        return torch.arange(inputs[0].shape[1]).expand_as(inputs[0])
    if op == "segments":
        return segments(node, inputs[0])
    if op == "key_mask":
        return inputs[0].ne(node.get("id", 0)).float()
    if op == "first":
        return inputs[0][:, 0]
    if op == "sequence_mean":
        return sequence_mean(*inputs)
    simple = {"relu": F.relu, "gelu": F.gelu, "tanh": torch.tanh, "sigmoid": torch.sigmoid, "silu": F.silu,
              "flatten": lambda x: x.flatten(1), "dropout": lambda x: x, "add": None}
    if op == "add":
        return sum(inputs[1:], inputs[0])
    if op not in simple:
        sys.exit(f"check.py does not run operator {op}")
    return simple[op](inputs[0])


def test_samples(data):
    if os.path.exists(f"{data}/test.npy"):
        return tuple(torch.from_numpy(numpy.load(f"{data}/{name}.npy")) for name in ("test", "test_labels"))
    return idx(f"{data}/t10k-images-idx3-ubyte.gz", 16).view(-1, 1, 28, 28), idx(f"{data}/t10k-labels-idx1-ubyte.gz", 8)


def graph_accuracy(directory, data):
    weights = load_file(f"{directory}/model.safetensors")
    graph = json.load(open(f"{directory}/graph.json"))
    norm = json.load(open(f"{directory}/config.json"))["data"]
    images, labels = test_samples(data)
    right = 0
    with torch.no_grad():
        # As Pare evaluates: an input with dynamic codes has its range in a slice of 250 samples.
        for at in range(0, len(images), 250):
            values = {}
            for node in graph["nodes"]:
                if node["op"] == "input" and node.get("dtype") == "I64":
                    values[node["name"]] = images[at:at + 250].float()  # token ids, as they are
                elif node["op"] == "input":
                    x = images[at:at + 250].float() / norm["divisor"]
                    values[node["name"]] = (x - norm["offset"][0]) * norm["scale"][0]
                else:
                    values[node["name"]] = run_node(node, [values[i] for i in node["inputs"]], weights)
            right += (values[graph["nodes"][-1]["name"]].argmax(1) == labels[at:at + 250]).sum().item()
    return 100 * right / len(images)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("directory")
    parser.add_argument("--data", default="/usr/share/datasets/fashion-mnist")
    arguments = parser.parse_args()
    config = json.load(open(f"{arguments.directory}/config.json"))
    reported = config["evidence"]["test_accuracy"]
    graph = json.load(open(f"{arguments.directory}/graph.json"))
    measured = {"graph.json": graph_accuracy(arguments.directory, arguments.data)}
    plain = all(node["op"] in ("input", "flatten", "linear", "relu") and "encoding" not in node for node in graph["nodes"])
    if plain:
        measured["ten lines"] = mlp_accuracy(arguments.directory, arguments.data)
    print(f"torch {torch.__version__}, {config['name']}@{config['version']}: report {reported:.2f} %, " +
          ", ".join(f"{how} {accuracy:.2f} %" for how, accuracy in measured.items()))
    # A float32 sum in another order may turn a tie: one sample of them all.
    allowed = 100.1 / len(test_samples(arguments.data)[1])
    sys.exit(0 if all(abs(accuracy - reported) < allowed + 1e-4 for accuracy in measured.values()) else 1)


if __name__ == "__main__":
    main()
