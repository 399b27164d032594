#!/usr/bin/env python3
"""Writes tests/golden/torch: small .pt files as torch.save writes them, and what is in them as .safetensors.

    tests/ref/make_torch_files.py tests/golden/torch        needs torch and safetensors

plain.pt       a state dict of every dtype that is read, empty and scalar tensors, one of more dimensions
module.pt      an OrderedDict from a module wrapped in DataParallel ("module." before every name), with torch's _metadata
views.pt       a transposed, a sliced and a strided view and a Parameter, all over one storage; a dict in the dict
hostile.pt     names os.system: must be refused
number.pt      has a number where a tensor is expected
far.pt         a scalar at the last offset there is: must be refused (written by hand, torch would not)
many.pt        a dict of twenty that are one, itself of twenty that are one, and so on: must be refused (by hand, too)
"""
import collections
import os
import struct
import sys
import zipfile

import torch
from safetensors.torch import save_file


def far(path):
    """A tensor of no dimensions at offset 2^63 - 1 of four floats."""
    def text(t):
        return b"X" + struct.pack("<I", len(t)) + t.encode()

    storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + b"K\x04tQ"
    offset = b"\x8a\x08" + (2**63 - 1).to_bytes(8, "little")
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + offset + b"))" + b"\x89ccollections\nOrderedDict\n)RtR"
    entries = {"data.pkl": b"\x80\x02}" + text("x") + tensor + b"s.", "byteorder": b"little", "data/0": bytes(16), "version": b"3\n"}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(zipfile.ZipInfo("far/" + name), content)


def many(path):
    """Eight levels: 20^8 names in 800 bytes."""
    keys = b"".join(b"X\x01\x00\x00\x00" + bytes([97 + i]) + b"q" + bytes([i]) + b"0" for i in range(20))
    dicts = b"}q" + bytes([100]) + b"0"
    for level in range(8):
        dicts += b"}(" + b"".join(b"h" + bytes([i]) + b"h" + bytes([100 + level]) for i in range(20)) + b"uq" + bytes([101 + level]) + b"0"
    entries = {"data.pkl": b"\x80\x02" + keys + dicts + b"h" + bytes([108]) + b".", "byteorder": b"little", "version": b"3\n"}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(zipfile.ZipInfo("many/" + name), content)


class Hostile:
    def __reduce__(self):
        return os.system, ("true",)


def main(out):
    os.makedirs(out, exist_ok=True)
    torch.manual_seed(1)
    plain = {str(d).split(".")[1]: (torch.randn(2, 3) * 50).to(d) for d in (
        torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)}
    plain |= {"empty": torch.zeros(0, 4), "scalar": torch.tensor(2.5), "deep": torch.randn(2, 1, 3, 2)}
    module = torch.nn.DataParallel(torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.GELU(), torch.nn.LayerNorm(4)))
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    views = {"whole": base, "transposed": base.t(), "slice": base[1:3, 2:5], "every_other": base[:, ::2],
             "parameter": torch.nn.Parameter(base[3]), "inner": {"half": base.half()}}
    files = {"plain": plain, "module": module.state_dict(), "views": views}
    for name, content in files.items():
        torch.save(content, f"{out}/{name}.pt")
    flat = {k: v for k, v in views.items() if k != "inner"} | {"inner.half": views["inner"]["half"]}
    dense = {"plain": plain, "module": {k.removeprefix("module."): v for k, v in module.state_dict().items()}, "views": flat}
    for name, content in dense.items():
        save_file({k: v.detach().clone().contiguous() for k, v in content.items()}, f"{out}/{name}.safetensors")
    torch.save({"weight": Hostile()}, f"{out}/hostile.pt")
    torch.save(collections.OrderedDict(weight=torch.zeros(2), epoch=3), f"{out}/number.pt")
    far(f"{out}/far.pt")
    many(f"{out}/many.pt")


main(sys.argv[1])
