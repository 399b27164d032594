#!/usr/bin/env python3
"""tests/golden/rl/cases.txt: what lib/rl must say of random inputs, by numpy and torch in float64 (gradients by autograd).

    python3 tests/ref/make_rl_cases.py > tests/golden/rl/cases.txt

A line is one case: its kind, then numbers; tests/unit/test_rl_cases.c reads them in the same order. Inputs are drawn here, so the file
alone is enough to run the tests. Formulas are from the papers (PPO, dual clip, GAE, GRPO, RLOO, REINFORCE++, Schulman's estimators,
potential-based shaping), not from the C."""
import numpy as np
import torch

rng = np.random.default_rng(20)
f64 = torch.float64


def out(kind, *parts):
    words = [kind]
    for p in parts:
        p = np.atleast_1d(np.asarray(p.detach().numpy() if torch.is_tensor(p) else p, dtype=np.float64))
        words += ["%.17g" % x for x in p]
    print(" ".join(words))


def policy(n, count, low, high, dual, stale):
    logp = torch.tensor(rng.normal(-6, 2, n), dtype=f64, requires_grad=True)
    old = logp.detach() + torch.tensor(rng.normal(0, .5, n), dtype=f64)
    adv = torch.tensor(rng.normal(0, 1.5, n), dtype=f64)
    mu = old + torch.tensor(rng.normal(0, .6, n), dtype=f64)       # who played: older than old
    w = torch.clamp(torch.exp(old - mu), max=2) if stale else torch.ones(n, dtype=f64)
    ratio = torch.exp(logp - old)
    unclipped, clipped = ratio * adv, torch.clip(ratio, 1 - low, 1 + high) * adv
    objective = torch.minimum(unclipped, clipped)
    if dual:
        objective = torch.where(adv < 0, torch.maximum(objective, dual * adv), objective)
    loss = -(w * objective).sum() / count
    loss.backward()
    outside = ((ratio < 1 - low) | (ratio > 1 + high)).sum()
    out("policy", n, count, low, high, dual, stale, logp, old, adv, mu, loss, logp.grad, ratio.sum(), ratio.max(),
        ((ratio - 1) - (logp - old)).sum(), outside, w.sum())


def value(n, count, coef, clip, huber):
    v = torch.tensor(rng.normal(0, 1, n), dtype=f64, requires_grad=True)
    before = v.detach() + torch.tensor(rng.normal(0, .4, n), dtype=f64)
    target = torch.tensor(rng.normal(0, 1, n), dtype=f64)
    def loss_of(x):
        return torch.nn.functional.huber_loss(x, target, reduction="none", delta=huber) if huber else .5 * (x - target) ** 2
    loss = loss_of(v)
    if clip:
        loss = torch.maximum(loss, loss_of(before + torch.clip(v - before, -clip, clip)))
    loss = coef * loss.sum() / count
    loss.backward()
    out("value", n, count, coef, clip, huber, v, before, target, loss, v.grad)


def kl(mode, n, count, coef):
    logp = torch.tensor(rng.normal(-2, 1, n).astype(np.float32).astype(np.float64), dtype=f64, requires_grad=True)
    ref = torch.tensor((logp.detach().numpy() + rng.normal(0, .7, n)).astype(np.float32).astype(np.float64), dtype=f64)
    r = ref - logp
    each = {"k1": -r, "k2": r ** 2 / 2, "k3": torch.exp(r) - 1 - r}[mode]
    loss = coef * each.sum() / count
    loss.backward()
    out("kl", ["k1", "k2", "k3"].index(mode), n, count, coef, logp, ref, loss, logp.grad, each.sum())


def gae(steps, gamma, lam, bootstrap, critic, chunks):
    r = rng.normal(0, 1, steps)
    v = rng.normal(0, 1, steps) if critic else np.zeros(steps)
    c = rng.integers(1, 5, steps) if chunks else np.ones(steps, int)
    nxt = np.append(v[1:], bootstrap)
    delta = r + gamma ** c * nxt - v
    adv = np.zeros(steps)
    for t in range(steps):              # the sum, written out
        weight = 1.0
        for k in range(t, steps):
            adv[t] += weight * delta[k]
            weight *= gamma ** c[k] * lam
    out("gae", steps, gamma, lam, bootstrap, critic, r, v, c, adv, adv + v)


def group(mode, n):
    R = rng.normal(0, 1, n)
    if mode == "group":
        a = (R - R.mean()) / (R.std() + 1e-6)
    elif mode == "rloo":
        a = np.array([R[i] - np.delete(R, i).mean() for i in range(n)])
    else:
        a = (R - R.mean()) / (R.std() + 1e-6)       # one group: the whole iteration
    out("group", ["group", "rloo", "reinforce"].index(mode), n, R, a)


def normalise(n):
    a = rng.normal(3, 2, n)
    out("normalise", n, a, (a - a.mean()) / (a.std(ddof=1) + 1e-8))


MODES = ["progress", "delta", "raw", "raw_literal", "sparse", "env"]


def reward(mode, steps, success, cut, w_p, w_f, w_e, gamma, limit):
    p = rng.uniform(0, 1, steps + 1).astype(np.float32).astype(np.float64)
    env = rng.normal(0, 1, steps).astype(np.float32).astype(np.float64)
    q = p.copy()
    if success:
        q[-1] = 1
    if mode == "progress":
        part = np.diff(q)
    elif mode == "delta":
        phi = q.copy()
        if not cut:
            phi[-1] = 0                 # the potential of an end
        part = gamma * phi[1:] - phi[:-1]
    elif mode == "raw":
        part = q[1:].copy()
        if success:
            part[-1] += sum(gamma ** k for k in range(1, limit - steps + 1))
    elif mode == "raw_literal":
        part = p[:-1]
    else:
        part = np.zeros(steps)
    r = w_p * part + w_e * env
    if success:
        r[-1] += w_f
    out("reward", MODES.index(mode), steps, success, cut, w_p, w_f, w_e, gamma, limit, p, env, r)


for low, high, dual in [(.2, .2, 0), (.2, .28, 0), (.2, .2, 3), (.1, .4, 1.5), (1, 10, 0)]:
    for stale in (0, 1):
        policy(12, 32, low, high, dual, stale)
for clip in (0, .2):
    for huber in (0, .5):
        value(10, 16, .5, clip, huber)
for mode in ("k1", "k2", "k3"):
    kl(mode, 9, 4, .01)
for bootstrap, critic, chunks in [(0, 1, 0), (.8, 1, 0), (0, 0, 0), (0, 1, 1), (-.4, 1, 1)]:
    gae(9, .99, .95, bootstrap, critic, chunks)
gae(9, .99, 1, 0, 0, 0)
gae(1, .9, .5, .3, 1, 0)
for mode in ("group", "rloo", "reinforce"):
    for n in (2, 8):
        group(mode, n)
normalise(2)
normalise(17)
for mode in MODES:
    for success, cut in [(0, 0), (1, 0), (0, 1)]:
        reward(mode, 6, success, cut, .7, 1.3, .25, .97, 9)
