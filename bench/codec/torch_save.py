#!/usr/bin/env python3
"""The baseline that people use: torch.save, then zstd -3, on the tensors of bench_codec. Needs torch and libzstd.so.1; says so and
ends with code 77 without them. Usage: torch_save.py [SIDE]"""
import ctypes, io, sys, time

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

side = int(sys.argv[1]) if len(sys.argv) > 1 else 2048
torch.set_num_threads(1)
print("torch", torch.__version__)
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
