#!/usr/bin/env python3
"""The baseline that people use: torch.save, then zstd -3, on the tensors of bench_codec. Needs torch and libzstd.so.1; says so and
ends with code 77 without them. Usage: torch_save.py [SIDE] | --file FILE [STORE/blobs]   (the masked tensors of a checkpoint)"""
import ctypes, io, json, sys, time
import read_checkpoint

try:
    import torch
    ZSTD = ctypes.CDLL("libzstd.so.1")
except (ImportError, OSError) as e:
    print(f"skipped: {e}")
    sys.exit(77)
ZSTD.ZSTD_compress.restype = ZSTD.ZSTD_compressBound.restype = ctypes.c_size_t

def save(tensor):
    buffer = io.BytesIO()
    torch.save({"weight": tensor}, buffer)
    data = buffer.getvalue()
    bound = ZSTD.ZSTD_compressBound(ctypes.c_size_t(len(data)))
    out = ctypes.create_string_buffer(bound)
    return ZSTD.ZSTD_compress(out, ctypes.c_size_t(bound), data, ctypes.c_size_t(len(data)), 3), len(data)

torch.set_num_threads(1)
print("torch", torch.__version__)
if sys.argv[1:2] == ["--file"]:
    types = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
             "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool}
    file, total = open(sys.argv[2], "rb").read(), 0
    for name, t in sorted(json.loads(file[-48 - int.from_bytes(file[-48:-40], "little"):-48])["tensors"].items()):
        data = file[t["offset"]:][:t["length"]] if "offset" in t else open(f"{sys.argv[3]}/{t['digest'][:2]}/{t['digest']}", "rb").read()
        values, mask = read_checkpoint.tensor(data, t["dtype"], t["shape"])
        if not mask: continue
        weight = torch.frombuffer(bytearray(values), dtype=types[t["dtype"]]).reshape(t["shape"])
        matrix = weight.reshape(t["shape"][0], -1) if weight.dim() > 1 else weight.reshape(1, -1)
        size, plain, csr = *save(weight), save(matrix.to_sparse_csr())[0]
        total += size
        print(f"{name}: payload {len(data)} bytes, torch.save {plain}, + zstd {size} ({size / len(data):.3f}x), torch.save of CSR + zstd {csr} ({csr / len(data):.3f}x)")
    print(f"all: torch.save + zstd {total}")
    sys.exit(0)
side = int(sys.argv[1]) if len(sys.argv) > 1 else 2048
for sparsity in (0.5, 0.8, 0.9, 0.95, 0.98):
    torch.manual_seed(3)
    bits = torch.randint(-2**31, 2**31 - 1, (side, side), dtype=torch.int64).to(torch.int32)
    tensor = torch.where(torch.rand(side, side) < sparsity, 0, bits).view(torch.float32)
    times = []
    for _ in range(3):
        start = time.perf_counter()
        size, plain = save(tensor)
        times.append(time.perf_counter() - start)
    csr = save(tensor.view(torch.int32).to_sparse_csr())[0]
    print(f"{100 * sparsity:.0f} % masked: torch.save {plain} bytes, + zstd {size} ({4 * side * side / 1e6 / min(times):.0f} MB/s), torch.save of CSR + zstd {csr}")
