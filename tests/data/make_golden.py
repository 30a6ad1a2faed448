#!/usr/bin/env python3
"""Writes golden/: files of other writers (Python's zipfile and gzip) that the readers are tested with. No numpy needed."""
import gzip
import pathlib
import struct
import zipfile

GOLDEN = pathlib.Path(__file__).parent / "golden"


def npy(descr, shape, data):  # numpy.lib.format, version 1.0
    header = "{'descr': '%s', 'fortran_order': False, 'shape': %s, }" % (descr, shape)
    header += " " * ((64 - (10 + len(header) + 1) % 64) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + data


def npz(name, compression):  # as numpy.savez and numpy.savez_compressed write it
    members = {
        "x_train": npy("|u1", (4, 2, 3), bytes(range(24))),
        "y_train": npy("<i8", (4,), struct.pack("<4q", 0, 1, 2, 0)),
        "x_test": npy("|u1", (1, 2, 3), bytes([9] * 6)),
        "y_test": npy("<i8", (1,), struct.pack("<q", 1)),
    }
    with zipfile.ZipFile(GOLDEN / name, "w") as archive:
        for member, data in members.items():
            info = zipfile.ZipInfo(member + ".npy")
            info.compress_type = compression
            with archive.open(info, "w", force_zip64=True) as file:
                file.write(data)


GOLDEN.mkdir(exist_ok=True)
npz("stored.npz", zipfile.ZIP_STORED)
npz("deflated.npz", zipfile.ZIP_DEFLATED)
images = bytes([0, 0, 8, 3, 0, 0, 0, 4, 0, 0, 0, 2, 0, 0, 0, 3]) + bytes(range(24))
(GOLDEN / "images.idx.gz").write_bytes(gzip.compress(images, mtime=0))
