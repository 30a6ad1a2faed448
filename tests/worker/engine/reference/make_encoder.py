#!/usr/bin/env python3
"""Writes encoder.json: loss, logits and gradients of a small BERT put together from PyTorch 2.11's own modules (TransformerEncoderLayer,
post-norm, GELU, key padding mask), in double precision, on stored weights and token ids.

    ./scripts/setup --bench
    ~/.cache/pare/deps/bench-venv/bin/python tests/worker/engine/reference/make_encoder.py
"""
import json
import math
import os
import struct

import torch

torch.set_num_threads(1)
VOCABULARY, LENGTH, TYPES, LAYERS, HIDDEN, HEADS, INTERMEDIATE, CLASSES = 19, 9, 2, 2, 8, 2, 12, 3
PAD, SEPARATOR, TABLE = 0, 2, 12
LINEARS = {"attention.output.dense": "self_attn.out_proj", "intermediate.dense": "linear1", "output.dense": "linear2",
           "attention.output.LayerNorm": "norm1", "output.LayerNorm": "norm2"}


def f32(v):
    return struct.unpack("f", struct.pack("f", v))[0]


def fill(shape, ordinal):
    """Rows unlike each other: tokens alike would leave query and key without gradients."""
    n = math.prod(shape)
    return torch.tensor([f32(0.8 * math.sin(0.731 * (i * i) + 1.3 * ordinal)) for i in range(n)], dtype=torch.float64).reshape(shape)


def samples():
    """Two segments of words, of every length; the rest is padding. One sample has a third separator, one has no padding."""
    rows = []
    for i in range(6):
        words = [3 + (i * 7 + k * 5) % (VOCABULARY - 3) for k in range(LENGTH)]
        words[0], words[2 + i % 2], words[4 + i % 3] = 1, SEPARATOR, SEPARATOR
        if i == 4:
            words[5] = SEPARATOR
        end = LENGTH - i % 4
        rows.append(words[:end] + [PAD] * (LENGTH - end))
    return torch.tensor(rows)


class Bert(torch.nn.Module):
    def __init__(self, pooling):
        super().__init__()
        n = torch.nn
        self.pooling = pooling
        self.word, self.position, self.segment = n.Embedding(VOCABULARY, HIDDEN), n.Embedding(TABLE, HIDDEN), n.Embedding(TYPES, HIDDEN)
        self.norm = n.LayerNorm(HIDDEN, eps=1e-12)
        self.layers = n.ModuleList(n.TransformerEncoderLayer(HIDDEN, HEADS, INTERMEDIATE, dropout=0.0, activation="gelu", layer_norm_eps=1e-12,
                                                             batch_first=True, norm_first=False) for _ in range(LAYERS))
        self.pooler, self.classifier = n.Linear(HIDDEN, HIDDEN), n.Linear(HIDDEN, CLASSES)

    def forward(self, ids):
        ends = (ids == SEPARATOR).long()
        types = (ends.cumsum(1) - ends).clamp(max=TYPES - 1)
        h = self.norm(self.word(ids) + self.position(torch.arange(LENGTH)) + self.segment(types))
        for layer in self.layers:
            h = layer(h, src_key_padding_mask=ids == PAD)
        if self.pooling == "first":
            return self.classifier(torch.tanh(self.pooler(h[:, 0])))
        seen = (ids != PAD).unsqueeze(2).double()
        return self.classifier((h * seen).sum(1) / seen.sum(1))

    def places(self):
        """Our names, each with the tensor that holds it and the rows of that."""
        out = {"embeddings.word_embeddings.weight": (self.word.weight, slice(None)), "embeddings.position_embeddings.weight": (self.position.weight, slice(None)),
               "embeddings.token_type_embeddings.weight": (self.segment.weight, slice(None))}
        for role in ("weight", "bias"):
            out["embeddings.LayerNorm." + role] = (getattr(self.norm, role), slice(None))
        for i, layer in enumerate(self.layers):
            for k, part in enumerate(("query", "key", "value")):
                for role in ("weight", "bias"):
                    out[f"encoder.layer.{i}.attention.self.{part}.{role}"] = (getattr(layer.self_attn, "in_proj_" + role), slice(k * HIDDEN, (k + 1) * HIDDEN))
            for ours, theirs in LINEARS.items():
                for role in ("weight", "bias"):
                    out[f"encoder.layer.{i}.{ours}.{role}"] = (getattr(layer.get_submodule(theirs), role), slice(None))
        for name in (["pooler"] if self.pooling == "first" else []) + ["classifier"]:
            for role in ("weight", "bias"):
                out[("pooler.dense." if name == "pooler" else "classifier.") + role] = (getattr(getattr(self, name), role), slice(None))
        return out


def case(pooling):
    model = Bert(pooling).double()
    places = model.places()
    with torch.no_grad():
        for ordinal, (tensor, rows) in enumerate(places.values()):
            tensor[rows] = fill(tensor[rows].shape, ordinal)
    ids = samples()
    logits = model(ids)
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor([i % CLASSES for i in range(len(ids))]))
    loss.backward()
    return {"pooling": pooling, "order": list(places), "ids": ids.tolist(), "logits": logits.flatten().tolist(), "loss": loss.item(),
            "gradients": {name: tensor.grad[rows].flatten().tolist() for name, (tensor, rows) in places.items()}}


def main():
    fields = {"vocabulary": VOCABULARY, "length": TABLE, "types": TYPES, "layers": LAYERS, "hidden": HIDDEN, "heads": HEADS,
              "intermediate": INTERMEDIATE, "padding": PAD, "separator": SEPARATOR, "dropout": 0}
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "encoder.json")
    with open(path, "w") as out:
        json.dump({"torch": torch.__version__, "fields": fields, "classes": CLASSES, "cases": [case("first"), case("mean")]}, out)
        out.write("\n")


if __name__ == "__main__":
    main()
