#!/usr/bin/env python3
"""Reads a checkpoint file by docs/formats.md, "Checkpoint file": prints each tensor's type, shape and SHA-256, and its mask's.
Usage: read_checkpoint.py FILE [BLOBS]   (BLOBS: store/blobs, for tensors that are blobs of their own). Needs libzstd.so.1 only."""
import ctypes, hashlib, json, sys

ZSTD = ctypes.CDLL("libzstd.so.1")
SIZE = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
BLOCK = 262144

class Reader:
    def __init__(self, data): self.data, self.at = data, 0
    def take(self, n):
        self.at += n
        return self.data[self.at - n:self.at]
    def number(self, n): return int.from_bytes(self.take(n), "little")

def ans(data, tables):  # tables: for each symbol the 4096 slots of its model: (symbol, frequency, slot - start)
    r, out = Reader(data), []
    x = [r.number(4) for _ in range(4)]
    for i, table in enumerate(tables):
        symbol, frequency, offset = table[x[i % 4] % 4096]
        x[i % 4] = frequency * (x[i % 4] // 4096) + offset
        if x[i % 4] < 65536: x[i % 4] = x[i % 4] * 65536 + r.number(2)
        out.append(symbol)
    assert x == [65536] * 4 and r.at == len(data)
    return out

def slots(frequencies): return [(s, f, k) for s, f in frequencies for k in range(f)]

def plane(r, n):
    method = r.number(1)
    if method == 3: return r.take(1) * n
    if method == 0: return r.take(n)
    data = r.take(r.number(4))
    if method == 1:
        out = ctypes.create_string_buffer(max(n, 1))
        assert ZSTD.ZSTD_decompress(out, ctypes.c_size_t(n), data, ctypes.c_size_t(len(data))) == n
        return out.raw[:n]
    p = Reader(data)
    table = slots([(p.number(1), p.number(2)) for _ in range(p.number(1) + 1)])
    return bytes(ans(data[p.at:], [table] * n))

def mask_model(p):
    f = [max(1, p ** k * (65536 - p) ** (4 - k) >> 52) for k in (bin(s).count("1") for s in range(16))]
    f[0 if p < 32768 else 15] += 4096 - sum(f)
    return slots(enumerate(f))

def mask_block(r, first, n, columns, row_class, column_class):
    order = sorted(range(columns), key=lambda c: column_class[c]) if column_class else None
    model = [8 * (row_class[i // columns] if row_class else 0) + (column_class[order[i % columns]] if order else 0) for i in range(first, first + n, 4)]
    tables = {m: mask_model(r.number(2)) for m in sorted(set(model))}
    bits = [s >> b & 1 for s in ans(r.take(r.number(4)), [tables[m] for m in model]) for b in range(4)][:n]
    if not order: return bits
    out = [0] * n
    for i, bit in enumerate(bits): out[i - i % columns + order[i % columns]] = bit
    return out

def payload(data, dtype, shape):
    r, size, n, rows = Reader(data), SIZE[dtype], 1, 1
    for d in shape: n *= d
    if len(shape) > 1 and n: rows = shape[0]
    columns, element = n // rows, lambda: int.from_bytes(r.take(size), "little")
    stored, coding = r.number(1), r.number(1)
    book = [element() for _ in range(1 if coding == 1 else r.number(1) + 1 if coding == 2 else 0)]
    flags = r.number(1) if stored else 0
    row_class = plane(r, rows) if flags & 1 else None
    column_class = plane(r, columns) if flags & 2 else None
    if not stored and coding == 1: return book[0].to_bytes(size, "little") * n, None
    block = BLOCK // columns * columns if 0 < columns <= BLOCK else BLOCK
    values, mask = [], []
    for first in range(0, n, block):
        count = min(block, n - first)
        b = Reader(r.take(r.number(4)))
        keep = mask_block(b, first, count, columns, row_class, column_class) if stored else [1] * count
        m = sum(keep) if stored in (1, 3) else count
        planes = [plane(b, m) for _ in range({0: size, 1: 0, 2: 1}[coding])]
        if coding == 0: got = [int.from_bytes(v, "little") for v in zip(*planes)]
        else: got = [book[i] for i in planes[0]] if coding == 2 else book * m
        if coding == 0 and "F" in dtype: got = [v >> 1 | (v & 1) << (8 * size - 1) for v in got]
        assert b.at == len(b.data)
        stream = iter(got)
        values += [next(stream) if k or stored == 2 else 0 for k in keep]
        mask += keep
    assert r.at == len(data)
    return b"".join(v.to_bytes(size, "little") for v in values), bytes(mask) if stored in (1, 2) else None

def main(path, blobs=None):
    file = open(path, "rb").read()
    assert file[:16] == b"PARECKPT\1\0\0\0\0\0\0\0" and file[-8:] == b"TPKCERAP"
    header = file[-48 - int.from_bytes(file[-48:-40], "little"):-48]
    assert hashlib.sha256(header).digest() == file[-40:-8]
    for name, t in sorted(json.loads(header)["tensors"].items()):
        data = file[t["offset"]:t["offset"] + t["length"]] if "offset" in t else open(f"{blobs}/{t['digest'][:2]}/{t['digest']}", "rb").read()
        assert hashlib.sha256(data).hexdigest() == t["digest"]
        raw, mask = payload(data, t["dtype"], t["shape"])
        print(name, t["dtype"], "[" + "x".join(map(str, t["shape"])) + "]", hashlib.sha256(raw).hexdigest(), hashlib.sha256(mask).hexdigest() if mask is not None else "-")

main(*sys.argv[1:])
