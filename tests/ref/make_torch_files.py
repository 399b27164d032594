#!/usr/bin/env python3
"""Writes tests/golden/torch: small .pt files as torch.save writes them, and what is in them as .safetensors.

    tests/ref/make_torch_files.py tests/golden/torch        needs torch and safetensors

plain.pt       a state dict of every dtype that is read, empty and scalar tensors, one of more dimensions
module.pt      an OrderedDict from a module wrapped in DataParallel ("module." before every name), with torch's _metadata
views.pt       a transposed, a sliced and a strided view and a Parameter, all over one storage; a dict in the dict
hostile.pt     names os.system: must be refused
number.pt      has a number where a tensor is expected
"""
import collections
import os
import sys

import torch
from safetensors.torch import save_file


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


main(sys.argv[1])
