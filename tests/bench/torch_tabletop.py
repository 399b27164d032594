#!/usr/bin/env python3
"""The PyTorch side of `tests/bench/bench_tabletop.sh`: PPO on pick_up_object with mujoco's Python bindings and torch_tiny.

    torch_tabletop.py MJCF_DIR [--iterations 4] [--episodes 32] [--rollout-only]

One process, one torch thread, 32 environments in lock step, EGL on llvmpipe with LP_NUM_THREADS=0, physics as the suite has it.
Prints env steps per second for rollout (act + physics + render + score) and end to end (plus PPO update with reference and critic),
and CPU time per env step of all of it.
Run two at once for two cores. Needs torch, mujoco==3.3.2, numpy.
"""
import argparse
import os
import time

os.environ.setdefault("MUJOCO_GL", "egl")
os.environ.setdefault("LP_NUM_THREADS", "0")
os.environ.setdefault("LIBGL_ALWAYS_SOFTWARE", "1")
import mujoco
import numpy as np
import torch

from torch_tiny import K, Tiny

LIMIT, SUBSTEPS, PROMPT = 24, 25, 9
LOW, HIGH = np.array([-.2, -.2, .012]), np.array([.2, .2, .26])


class Env:
    def __init__(self, model, rng):
        self.model, self.data, self.rng = model, mujoco.MjData(model), rng
        self.block = model.jnt_qposadr[mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_JOINT, "block")]

    def reset(self):
        d, r = self.data, self.rng
        mujoco.mj_resetData(self.model, d)
        d.qpos[:3] = r.uniform([-.10, -.06, .13], [.02, .06, .17])
        d.qpos[4:6] = .04
        d.qpos[self.block:self.block + 3] = [r.uniform(-.12, .12), r.uniform(-.13, .13), .025]
        d.qpos[self.block + 3] = 1
        self.target = d.qpos[:3].copy()
        self.t = 0
        mujoco.mj_forward(self.model, d)

    def step(self, a):
        d = self.data
        self.target = np.clip(d.qpos[:3] + np.clip(self.target - d.qpos[:3], -.015, .015) + .04 * a[:3], LOW, HIGH)
        d.ctrl[:3], d.ctrl[3], d.ctrl[4] = self.target, 0, .04 if a[6] > 0 else 0
        mujoco.mj_step(self.model, d, SUBSTEPS)
        self.t += 1
        success = d.qpos[self.block + 2] > .025 + .08
        return success, success or self.t >= LIMIT


def rollout(policy, prm, renderer, envs, prompt):
    """One batch of episodes in lock step; finished ones wait. Returns rows of (image, tokens, logp, value, reward, done, time, score)."""
    rows = [[] for _ in envs]
    for e in envs:
        e.reset()
    live, begun = list(range(len(envs))), None
    while live:
        frames = []
        for i in live:
            renderer.update_scene(envs[i].data, camera="front")
            frames.append(renderer.render())
        images = torch.from_numpy(np.stack(frames))
        tokens, logp, value = policy.act(images, prompt[:len(live)])
        begun = begun or prm.begin(images, prompt)
        progress = prm.score(begun, live, images, prompt[:len(live)])
        actions = 1 - 2 * (tokens.numpy() + .5) / 256
        still = []
        for j, i in enumerate(live):
            t = envs[i].t
            success, done = envs[i].step(actions[j])
            rows[i].append((images[j], tokens[j], logp[j], value[j, 0], float(success), done, t / LIMIT, progress[j]))
            if not done:
                still.append(i)
        live = still
    return rows


def update(policy, reference, optimiser, rows, prompt, gamma=.99, lam=.95):
    advantages, returns = [], []
    for episode in rows:
        a, nxt, out = 0.0, 0.0, []
        for row in reversed(episode):
            delta = row[4] + gamma * nxt - float(row[3])
            a = delta + gamma * lam * a
            nxt = float(row[3])
            out.append((a, a + float(row[3])))
        for a, ret in reversed(out):
            advantages.append(a)
            returns.append(ret)
    flat = [row for episode in rows for row in episode]
    adv = torch.tensor(advantages)
    adv = (adv - adv.mean()) / (adv.std(unbiased=False) + 1e-8)
    ret = torch.tensor(returns)
    images, tokens, old = (torch.stack([row[i] for row in flat]) for i in (0, 1, 2))
    extra = torch.tensor([[row[6], 2 * float(row[7])] for row in flat])
    order = torch.randperm(len(flat))
    for begin in range(0, len(flat), 128):
        idx = order[begin:begin + 128]
        with torch.inference_mode():
            ref = torch.cat([reference.log_probs(images[idx], prompt[:1].expand(len(idx), -1), tokens[idx], extra[idx])[0]])
        logp, value = policy.log_probs(images[idx], prompt[:1].expand(len(idx), -1), tokens[idx], extra[idx])
        taken = logp.gather(2, tokens[idx, :, None])[..., 0].sum(1)
        ratio = (taken - old[idx].sum(1)).clamp(-20, 20).exp()
        pg = -torch.min(ratio * adv[idx], ratio.clamp(.8, 1.2) * adv[idx]).mean()
        kl = (logp.exp() * (logp - ref)).sum(-1).sum(1).mean()
        loss = pg + .01 * kl + .5 * (value - ret[idx]).pow(2).mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimiser.step()
    return len(flat)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("mjcf_dir")
    p.add_argument("--iterations", type=int, default=4)
    p.add_argument("--episodes", type=int, default=32)
    p.add_argument("--rollout-only", action="store_true")
    args = p.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = mujoco.MjModel.from_xml_path(os.path.join(args.mjcf_dir, "pick_up_object.xml"))
    renderer = mujoco.Renderer(model, 64, 64)
    rng = np.random.default_rng(0)
    envs = [Env(model, rng) for _ in range(args.episodes)]
    policy, reference, prm = Tiny(), Tiny(), Tiny()
    optimiser = torch.optim.AdamW(policy.parameters(), 1e-4, betas=(.9, .95), weight_decay=0)
    prompt = torch.randint(3, 300, (1, PROMPT)).expand(args.episodes, -1)
    rollout(policy, prm, renderer, envs, prompt)           # warm up
    steps = rolled = 0
    t0, c0 = time.perf_counter(), time.process_time()
    for _ in range(args.iterations):
        t1 = time.perf_counter()
        rows = rollout(policy, prm, renderer, envs, prompt)
        rolled += time.perf_counter() - t1
        steps += sum(map(len, rows))
        if not args.rollout_only:
            update(policy, reference, optimiser, rows, prompt)
    wall, cpu = time.perf_counter() - t0, time.process_time() - c0
    rate = f"rollout {steps / rolled:.0f}/s" + ("" if args.rollout_only else f", end to end {steps / wall:.0f}/s")
    print(f"torch: {steps} env steps, {rate}, cpu ms a step {cpu * 1e3 / steps:.3f}")


if __name__ == "__main__":
    main()
