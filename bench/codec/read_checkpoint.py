"""read_checkpoint.py FILE [STORE/blobs]: SHA-256 of the tensors of a checkpoint, as docs/formats.md says"""
import ctypes, hashlib, io, json, math, sys
def sha256(data): return "-" if data is None else hashlib.sha256(data).hexdigest()
def uint(r, size): return int.from_bytes(r.read(size), "little")
def slots(frequencies): return [(s, f, k) for s, f in frequencies for k in range(f)]  # the 4096 of a model
def ans(r, models):  # an ANS string; one model for each symbol
    x = [uint(r, 4) for _ in range(4)]
    for model in models:
        symbol, frequency, offset = model[x[0] % 4096]
        new = frequency * (x[0] // 4096) + offset
        x = x[1:] + [new if new >= 65536 else 65536 * new + uint(r, 2)]
        yield symbol
    assert x == [65536] * 4 and not r.read()
def plane(r, n):  # a byte plane
    method = uint(r, 1)
    if method in (0, 3): return r.read(n) if method == 0 else r.read(1) * n
    r = io.BytesIO(r.read(uint(r, 4)))
    if method == 2: return bytes(ans(r, [slots((uint(r, 1), uint(r, 2)) for _ in range(uint(r, 1) + 1))] * n))
    data, out, size = r.read(), ctypes.create_string_buffer(n), ctypes.c_size_t
    assert ctypes.CDLL("libzstd.so.1").ZSTD_decompress(out, size(n), data, size(len(data))) == n
    return out.raw
def mask_model(p):  # p / 65536: the probability of a 1
    f = [max(1, p ** k * (65536 - p) ** (4 - k) >> 52) for k in (bin(s).count("1") for s in range(16))]
    f[0 if p < 32768 else 15] += 4096 - sum(f)
    return slots(enumerate(f))
def tensor(data, dtype, shape):  # the bytes of its values, and of its mask (one per element) or None
    r, n, size = io.BytesIO(data), math.prod(shape), int(dtype.strip("BFIUOL") or 8) // 8
    rows, values, mask = shape[0] if len(shape) > 1 and n else 1, [], []
    columns = n // rows
    block = 262144 // max(columns, 1) * columns or 262144
    stored, coding = r.read(2)
    book = [uint(r, size) for _ in range(uint(r, 1) + 1 if coding == 2 else coding)]
    flags = uint(r, 1) if stored else 0
    row_class, column_class = (plane(r, k) if flags & f else bytes(k) for f, k in ((1, rows), (2, columns)))
    order = sorted(range(columns), key=column_class.__getitem__)
    for at in (range(i, min(i + block, n)) for i in range(0, n, block)):
        b, keep = io.BytesIO(r.read(uint(r, 4))), [1] * len(at)  # empty where all is stored and constant
        if stored:
            numbers = [8 * row_class[i // columns] + column_class[order[i % columns]] for i in at[::4]]
            models = {m: mask_model(uint(b, 2)) for m in sorted(set(numbers))}
            symbols = list(ans(io.BytesIO(b.read(uint(b, 4))), [models[m] for m in numbers]))
            for i in range(len(at)): keep[i - i % columns + order[i % columns]] = symbols[i // 4] >> i % 4 & 1
        m = sum(keep) if stored in (1, 3) else len(at)
        if coding: got = iter([book[i] for i in (plane(b, m) if coding == 2 else bytes(m))])
        else: got = (int.from_bytes(v, "little") for v in zip(*[plane(b, m) for _ in range(size)]))
        if not coding and "F" in dtype: got = (v >> 1 | (v & 1) << 8 * size - 1 for v in got)
        values += [next(got) if k or stored == 2 else 0 for k in keep]
        mask += keep
    assert not r.read()
    return b"".join(v.to_bytes(size, "little") for v in values), bytes(mask) if stored in (1, 2) else None
def main(path, blobs=None):
    file = open(path, "rb").read()
    header = file[-48 - int.from_bytes(file[-48:-40], "little"):-48]
    assert file.startswith(b"PARECKPT\1\0") and file[-40:] == hashlib.sha256(header).digest() + b"TPKCERAP"
    for name, t in sorted(json.loads(header)["tensors"].items()):
        source = path if "offset" in t else f"{blobs}/{t['digest'][:2]}/{t['digest']}"
        data = open(source, "rb").read()[t.get("offset", 0):][:t["length"]]
        assert sha256(data) == t["digest"]
        print(name, t["dtype"], t["shape"], *map(sha256, tensor(data, t["dtype"], t["shape"])))
if __name__ == "__main__": main(*sys.argv[1:])
