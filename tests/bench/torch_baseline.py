#!/usr/bin/env python3
"""PyTorch's side of bench_model: the tiny64 golden model's dims, one thread, the same calls, the same lines printed.

    pip install torch==2.2.2 'numpy<2'          (in a scratch environment; nothing else needs it)
    tests/bench/torch_baseline.py [--repeats 5] [--bf16]       products in bf16 (autocast): the other side of numerics: fast

Plain modules of torch_tiny.py, random weights (speed does not depend on them): batched, inference_mode, KV-cached acting with
the head cut to the 256 action ids; training with logits only at the rows that have a label, AdamW with foreach, one clip.
Time is the process's CPU time, as in bench_model.
"""
import argparse
import time

import torch
import torch.nn.functional as F
from torch import nn

import torch_tiny as tiny

VOCABULARY, PADDED, PROMPT = 1024, 1088, 27


def model():
    """tiny64: towers 96 wide, 2 blocks that run, MLPs of 384 and 358; projector 192-768-128-128; Llama 128, 4 x 344."""
    tiny.DIM, tiny.BLOCKS, tiny.PATCH, tiny.FF = 96, 2, 8, 344
    m = tiny.Tiny(vocabulary=PADDED)
    tiny.MLP = 384
    m.towers[0] = tiny.Tower(5)
    tiny.MLP = 358
    m.towers[1] = tiny.Tower(0)
    m.projector = nn.Sequential(nn.Linear(192, 768), nn.GELU(), nn.Linear(768, 128), nn.GELU(), nn.Linear(128, 128))
    m.lm_head = nn.Linear(128, PADDED, bias=False)
    m.head = nn.Linear(128, 256, bias=False)            # a contiguous copy of 256 rows: the faster of the two for PyTorch
    m.value = nn.Sequential(nn.Linear(128, 256), nn.ReLU(), nn.Linear(256, 1))
    m.first = VOCABULARY - 256
    return m


@torch.inference_mode()
def act(m, images, prompt):
    caches = [[] for _ in m.layers]
    x = m.prefix(images, prompt)
    at = x.shape[1]
    h = m.run(x, 0, caches)[:, -1]
    m.value(h)
    for k in range(7):
        logp = F.log_softmax(m.head(h), -1)
        token = torch.multinomial(logp.exp(), 1)
        logp.gather(1, token)
        if k < 6:
            h = m.run(m.embed(token + m.first), at + k, caches)[:, -1]


def loss_of(m, images, prompt, tokens, ppo):
    x = torch.cat([m.prefix(images, prompt), m.embed(tokens[:, :6] if ppo else tokens[:, :7])], 1)
    rows = 7 if ppo else 8
    h = m.run(x)[:, -rows:]
    if ppo:
        logp = F.log_softmax(F.linear(h, m.lm_head.weight[m.first:m.first + 256]) / 1.5, -1)
        logp = logp.gather(-1, tokens[:, :7, None] - m.first).sum((1, 2))
        return -(logp - logp.detach()).exp().clamp(.8, 1.2).mean() + (m.value(h[:, 0].detach()) - 1).pow(2).mean()
    return F.cross_entropy(m.lm_head(h).flatten(0, 1), tokens.flatten())


def step(m, optimizer, images, prompt, tokens, ppo, bf16):
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        loss = loss_of(m, images, prompt, tokens, ppo)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(m.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def measure(name, batch, repeats, run):
    ms = []
    for i in range(-3, repeats):
        start = time.process_time()
        run()
        if i >= 0:
            ms.append(1e3 * (time.process_time() - start))
    ms.sort()
    print(f"{name:<6} B={batch:<3d} {ms[0]:9.2f} ms best {ms[len(ms) // 2]:9.2f} ms median {batch * 1e3 / ms[0]:9.1f} samples/s", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--bf16", action="store_true")
    arguments = parser.parse_args()
    repeats, bf16 = arguments.repeats, arguments.bf16
    torch.set_num_threads(1)
    torch.manual_seed(0)
    m = model()
    print(f"PyTorch {torch.__version__}, one thread, S = {64 + PROMPT} + 7")
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):        # the weights of all acts are rounded once
        for batch in 1, 16, 64:
            images = torch.randint(0, 256, (batch, 64, 64, 3), dtype=torch.uint8)
            prompt = torch.randint(3, 700, (batch, PROMPT))
            measure("act", batch, 4 * repeats if batch == 1 else repeats, lambda: act(m, images, prompt))
    optimizer = torch.optim.AdamW(m.parameters(), lr=1e-5, foreach=True)
    images = torch.randint(0, 256, (32, 64, 64, 3), dtype=torch.uint8)
    prompt = torch.randint(3, 700, (32, PROMPT))
    tokens = torch.randint(m.first, m.first + 256, (32, 8))
    measure("sft", 32, repeats, lambda: step(m, optimizer, images, prompt, tokens, False, bf16))
    measure("ppo", 32, repeats, lambda: step(m, optimizer, images, prompt, tokens, True, bf16))


if __name__ == "__main__":
    main()
