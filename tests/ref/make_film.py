#!/usr/bin/env python3
"""make_film.py - numbers of modulated vision towers (FiLM, OpenVLA-OFT+) by torch, from the definition in words:

    e = mean of the embeddings of <s>, the prompt and </s>
    in each block of both towers, between attention and MLP:  x = x (1 + scale(e)) + shift(e)

    python tests/ref/make_film.py     writes tests/golden/film/film.safetensors and vision_backbone--30_checkpoint.pt

The dims are those of tests/golden/nano; values come from names and places by a formula that test_vision_film.c knows, too. Computed in
fp64. film.safetensors holds outputs and the gradients of sum(projector * w); the .pt the same towers as the training script leaves them:
blocks wrapped, adapters apart.
"""
import json
import struct
from pathlib import Path

import numpy as np
import torch

TOP = Path(__file__).resolve().parents[1] / "golden"
OUT = TOP / "film"
HIDDEN, SIDE, PATCH, DIM, MLP, HEADS, DEPTH = 32, 64, 16, 16, 32, 2, 2
TOWERS = {"featurizer": 5, "fused_featurizer": 0}               # prefix tokens
STATS = {"featurizer": ([.484375, .455078125, .40625], [.228515625, .2236328125, .224609375]), "fused_featurizer": ([.5] * 3, [.5] * 3)}
PROMPTS, END = [[1, 17, 300, 689], [1, 42, 5, 6, 7, 689]], 2
R = 3                                                           # of the adapters in the .pt


def drawn(name, n):
    """In [-0.2, 0.2): every value a float32."""
    seed = sum(name.encode())
    u = (np.arange(n, dtype=np.uint64) * 2654435761 + seed * 40503) % 2**32
    u = (u ^ (u >> 15)) * 2246822519 % 2**32
    return (((u >> 8) / 16777216.0 - .5) * .4).astype(np.float32)


def value(name, *shape):
    v = drawn(name, int(np.prod(shape)))
    if "norm" in name and name.endswith(".weight"):
        v = (v + np.float32(1)).astype(np.float32)
    return torch.tensor(v.reshape(shape), dtype=torch.float64, requires_grad=True)


def tower_values(tower):
    shapes = {"pos_embed": (1, 16, DIM), "patch_embed.proj.weight": (DIM, 3, PATCH, PATCH), "patch_embed.proj.bias": (DIM,)}
    if TOWERS[tower]:
        shapes |= {"cls_token": (1, 1, DIM), "reg_token": (1, 4, DIM)}
    for i in range(DEPTH):
        b = f"blocks.{i}."
        for name, out, inp in (("attn.qkv", 3 * DIM, DIM), ("attn.proj", DIM, DIM), ("mlp.fc1", MLP, DIM), ("mlp.fc2", DIM, MLP),
                               ("scale", DIM, HIDDEN), ("shift", DIM, HIDDEN)):
            shapes |= {f"{b}{name}.weight": (out, inp), f"{b}{name}.bias": (out,)}
        for name in ("norm1", "norm2"):
            shapes |= {f"{b}{name}.weight": (DIM,), f"{b}{name}.bias": (DIM,)}
        if TOWERS[tower]:
            shapes |= {f"{b}ls1.scale_factor": (DIM,), f"{b}ls2.scale_factor": (DIM,)}
    if not TOWERS[tower]:
        shapes |= {"norm.weight": (DIM,), "norm.bias": (DIM,)} | pool()
    else:
        shapes |= {"norm.weight": (DIM,), "norm.bias": (DIM,)}
    return {f"vision_backbone.{tower}.{k}": value(f"vision_backbone.{tower}.{k}", *s) for k, s in shapes.items()}


def pool():
    """In the file, never run."""
    shapes = {"attn_pool.latent": (1, 1, DIM), "attn_pool.norm.weight": (DIM,), "attn_pool.norm.bias": (DIM,)}
    for name, out, inp in (("q", DIM, DIM), ("kv", 2 * DIM, DIM), ("proj", DIM, DIM), ("mlp.fc1", MLP, DIM), ("mlp.fc2", DIM, MLP)):
        shapes |= {f"attn_pool.{name}.weight": (out, inp), f"attn_pool.{name}.bias": (out,)}
    return shapes


def picture(i):
    k = (np.arange(SIDE * SIDE * 3, dtype=np.uint64) + i * 977) * 2654435761 % 2**32
    return ((k >> 13) & 255).astype(np.uint8).reshape(SIDE, SIDE, 3)


def linear(w, name, x):
    return x @ w[name + ".weight"].T + w[name + ".bias"]


def norm(w, name, x):
    return torch.nn.functional.layer_norm(x, (DIM,), w[name + ".weight"], w[name + ".bias"], 1e-6)


def tower(w, which, pictures, e):
    p = f"vision_backbone.{which}."
    mean, std = (torch.tensor(v, dtype=torch.float32) for v in STATS[which])
    x = ((torch.tensor(np.stack(pictures)).float() / 255 - mean) / std).double().permute(0, 3, 1, 2)
    x = torch.nn.functional.conv2d(x, w[p + "patch_embed.proj.weight"], w[p + "patch_embed.proj.bias"], stride=PATCH).flatten(2).transpose(1, 2)
    x = x + w[p + "pos_embed"]
    n, extra = x.shape[0], TOWERS[which]
    if extra:
        x = torch.cat([w[p + "cls_token"].expand(n, -1, -1), w[p + "reg_token"].expand(n, -1, -1), x], 1)
    for i in range(DEPTH - 1):
        b = f"{p}blocks.{i}."
        q, k, v = linear(w, b + "attn.qkv", norm(w, b + "norm1", x)).reshape(n, -1, 3, HEADS, DIM // HEADS).permute(2, 0, 3, 1, 4)
        h = torch.softmax(q @ k.transpose(-1, -2) / (DIM // HEADS) ** .5, -1) @ v
        h = linear(w, b + "attn.proj", h.transpose(1, 2).reshape(n, -1, DIM))
        x = x + h * w.get(b + "ls1.scale_factor", 1)
        x = x * (1 + linear(w, b + "scale", e)[:, None]) + linear(w, b + "shift", e)[:, None]
        h = linear(w, b + "mlp.fc2", torch.nn.functional.gelu(linear(w, b + "mlp.fc1", norm(w, b + "norm2", x))))
        x = x + h * w.get(b + "ls2.scale_factor", 1)
    return x[:, extra:]


def save(path, tensors):
    header, data = {}, b""
    for name, t in tensors.items():
        raw = np.ascontiguousarray(t.detach().float().numpy(), dtype="<f4").tobytes()
        header[name] = {"dtype": "F32", "shape": list(t.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def as_the_script_leaves_it(w):
    """Blocks wrapped, linear layers with adapters: base + B A / 1 is the value (r 3: min(r, 16) / r = 1)."""
    out = {}
    for name, v in w.items():
        v = v.detach().float()
        if ".blocks." in name and ".scale." not in name and ".shift." not in name:
            head, tail = name.split(".blocks.")
            index, rest = tail.split(".", 1)
            name = f"{head}.blocks.{index}.block.{rest}"
        layer, last = name.rsplit(".", 1)
        adapted = any(layer.endswith(s) for s in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2", "patch_embed.proj"))
        if adapted and last == "weight":
            a = torch.tensor(drawn(name + "A", R * v[0].numel())).reshape(R, *v.shape[1:])
            b = torch.tensor(drawn(name + "B", v.shape[0] * R)).reshape(v.shape[0], R, *([1] * (v.dim() - 2)))
            out[layer + ".base_layer.weight"] = v - (b.flatten(1).double() @ a.flatten(1).double()).reshape(v.shape).float()
            out[layer + ".lora_A.default.weight"], out[layer + ".lora_B.default.weight"] = a, b
        else:
            out[layer + (".base_layer." if adapted else ".") + last] = v
    return out


def main():
    OUT.mkdir(exist_ok=True)
    w = {k: v for which in TOWERS for k, v in tower_values(which).items()}
    embedding = value("language_model.model.embed_tokens.weight", 1088, HIDDEN)
    for name, out, inp in (("fc1", 4 * 2 * DIM, 2 * DIM), ("fc2", HIDDEN, 4 * 2 * DIM), ("fc3", HIDDEN, HIDDEN)):
        w[f"projector.{name}.weight"], w[f"projector.{name}.bias"] = value(f"projector.{name}.weight", out, inp), value(f"projector.{name}.bias", out)
    e = torch.stack([embedding[ids + [END]].mean(0) for ids in PROMPTS]).repeat_interleave(2, 0)
    pictures = [picture(0), picture(1)] * 2                     # both items show both
    dino, siglip = (tower(w, which, pictures, e) for which in TOWERS)
    gelu = torch.nn.functional.gelu
    projector = linear(w, "projector.fc3", gelu(linear(w, "projector.fc2", gelu(linear(w, "projector.fc1", torch.cat([dino, siglip], -1))))))
    (projector.flatten() * torch.tensor(drawn("w", projector.numel())).double()).sum().backward()
    used = sorted({i for ids in PROMPTS for i in ids} | {END})
    kept = [k for k in w if "blocks.0.s" in k or k.endswith("featurizer.blocks.0.attn.qkv.weight")]
    save(OUT / "film.safetensors", {"dino": dino.flatten(0, 1), "siglip": siglip.flatten(0, 1), "projector": projector.flatten(0, 1),
                                    "ids": torch.tensor(used), "gradient.embedding": embedding.grad[used],
                                    **{"gradient." + k: w[k].grad for k in kept}})
    towers = {k: v for k, v in w.items() if k.startswith("vision_backbone.")}
    torch.save(as_the_script_leaves_it(towers), OUT / "vision_backbone--30_checkpoint.pt")
    print({p.name: p.stat().st_size for p in OUT.iterdir()})


if __name__ == "__main__":
    main()
