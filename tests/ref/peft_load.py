#!/usr/bin/env python3
"""peft_load.py BASE ADAPTER MERGED - an adapter that gantry wrote, read by PEFT itself.

The base's linear modules and convolutions are rebuilt from the tensors' names and shapes (no model code is needed); PEFT puts the
adapter on them; every A and B must be the file's, no key may be missing or left over, and PEFT's merged weights must be those of the
directory MERGED, which `gantry model merge` made. Needs torch, peft and safetensors.
"""
import sys
from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import load_file


def checkpoint(directory):
    return {k: v.float() for f in sorted(Path(directory).glob("model*.safetensors")) for k, v in load_file(f).items()}


def put(root, name, module):
    *path, last = name.split(".")
    for part in path:
        if not hasattr(root, part):
            root.add_module(part, torch.nn.Module())
        root = getattr(root, part)
    root.add_module(last, module)


def rebuild(tensors):
    root = torch.nn.Module()
    for name, value in tensors.items():
        if not name.endswith(".weight") or value.dim() not in (2, 4) or "embed_tokens" in name:
            continue
        module = torch.nn.Linear(value.shape[1], value.shape[0], bias=False) if value.dim() == 2 else \
            torch.nn.Conv2d(value.shape[1], value.shape[0], value.shape[2:], stride=value.shape[2:], bias=False)
        module.weight.data = value.clone()
        put(root, name.removesuffix(".weight"), module)
    return root


def main():
    base, adapter, merged = sys.argv[1:]
    written = {k: v for k, v in load_file(Path(adapter) / "adapter_model.safetensors").items() if "lora_" in k}
    model = PeftModel.from_pretrained(rebuild(checkpoint(base)), adapter)
    held = {k.replace(".default.", "."): v for k, v in model.state_dict().items() if "lora_" in k}
    assert held.keys() == written.keys(), sorted(held.keys() ^ written.keys())[:4]
    for name, value in written.items():
        assert torch.equal(held[name], value.float()), name
    assert any(value.abs().max() > 0 for name, value in written.items() if "lora_B" in name), "the adapter says nothing"
    weights = model.merge_and_unload().state_dict()
    worst = max(((weights[k] - v).abs().max() / v.abs().max()).item() for k, v in checkpoint(merged).items() if k in weights)
    assert worst < 1e-5, worst
    print(f"{len(written)} tensors, merged weights within {worst:.1e}")


if __name__ == "__main__":
    main()
