#!/usr/bin/env python3
"""tests/golden/rl/objective.txt: what a whole iteration of PPO comes to, from pictures to the gradient of every parameter, by torch in float64.

    python3 tests/ref/make_objective_cases.py > tests/golden/rl/objective.txt       # about a minute

A policy of tests/golden/nano's shape, whose numbers and pictures are drawn by a hash that the test draws too, says what it thinks of recorded
actions; rewards, advantages and masks are made on tables padded to the longest episode, the loss is a sum over them, and autograd does the
rest. Formulas are from docs/method.md and the papers named there. Every kind of advantage meets every clip and every divergence; all
pairs of the other settings occur. tests/nn/test_objective.c reads the file. A gradient is told as one number for each parameter: its inner
product with a vector of +-1 that is another one in every case."""
import itertools
import math
import sys

import numpy as np
import torch
import torch.nn.functional as F

from nano_policy import (BINS, CHUNK, DIMS, EOS, FIRST_ACTION, PROMPTS, Said, hashed, hidden_states, picture, salt_of, shapes_of, value_of,
                         weights)

f64 = torch.float64
torch.set_num_threads(1)


# ---- what was played ------------------------------------------------------------------------------------------------------------

rng = np.random.default_rng(4)


def f32(x):
    return np.asarray(x, np.float32).astype(np.float64)


class Episode:
    def __init__(self, id, task, state, steps, limit, success, like=None):
        self.id, self.task, self.state, self.steps, self.limit, self.success = id, task, state, steps, limit, success
        self.progress = like.progress if like else f32(rng.uniform(0, 1, steps + 1))
        self.env = like.env if like else f32(rng.normal(0, 1, steps))


# groups of three, three and two; the last has no spread, and its two are alike. 2 and 5 run out of time.
EPISODES = [Episode(1, 0, 0, 3, 6, 1), Episode(2, 0, 0, 5, 5, 0), Episode(3, 0, 0, 2, 6, 0), Episode(4, 1, 0, 4, 6, 1), Episode(5, 1, 0, 5, 5, 0),
            Episode(6, 1, 0, 1, 6, 1)]
EPISODES += [Episode(7, 1, 1, 3, 6, 0)]
EPISODES += [Episode(8, 1, 1, 3, 6, 0, EPISODES[6])]
STALE = (2, 4, 7)                               # played by an older version, where a case has such
KINKS = (.8, 1.2, .7, 1.3, 1.4)                 # of all clips: no ratio may lie on one

PLAYS = [dict(kind="plain", full=0, end=0, T=1.0), dict(kind="plain", full=0, end=0, T=1.5), dict(kind="plain", full=1, end=0, T=1.0),
         dict(kind="plain", full=1, end=1, T=1.5), dict(kind="tokens", full=0, end=0, T=1.0), dict(kind="laplace", full=0, end=0, T=1.5)]


def out(kind, *parts):
    words = [kind]
    for p in parts:
        p = np.atleast_1d(np.asarray(p.detach().numpy() if torch.is_tensor(p) else p, dtype=np.float64)).ravel()
        words += ["%.9g" % x for x in p]
    print(" ".join(words))


def decide(play):
    """Decisions in order: (episode, step, actions executed); and what the padded tables look like: (E, most decisions)."""
    chunk = 1 if play["kind"] == "plain" else CHUNK
    at = [(e, t, min(chunk, ep.steps - t)) for e, ep in enumerate(EPISODES) for t in range(0, ep.steps, chunk)]
    count = [sum(1 for a in at if a[0] == e) for e in range(len(EPISODES))]
    mask = torch.arange(max(count))[None] < torch.tensor(count)[:, None]
    return at, mask


def look_at(play, w, tokens, at):
    """hidden (n, K, HIDDEN) in order of the decisions; prompts differ by task, so they are asked in two lots."""
    rows = None
    for task in (0, 1):
        which = [i for i, a in enumerate(at) if EPISODES[a[0]].task == task]
        if not which:
            continue
        images = torch.tensor(np.stack([picture(EPISODES[at[i][0]].id, at[i][1]) for i in which])).to(f64).permute(0, 3, 1, 2) / 255
        fed = torch.tensor(tokens[which][:, :-1] if play["kind"] == "plain" and tokens is not None else np.zeros((len(which), 0))).long()
        h = hidden_states(w, play["kind"], images, PROMPTS[task], fed)
        rows = torch.zeros(len(at), *h.shape[1:]) if rows is None else rows
        rows = rows.index_copy(0, torch.tensor(which), h)
    return rows


def prepare(play):
    """Draw what was recorded: tokens, and log-probabilities a little beside the policy's, so that ratios are what they are after an update."""
    at, mask = decide(play)
    K = DIMS + play["end"] if play["kind"] == "plain" else CHUNK * DIMS
    n = len(at)
    if play["kind"] == "laplace":
        tokens = f32(rng.normal(0, 1, (n, K)))
    elif play["full"]:
        tokens = rng.integers(FIRST_ACTION - 40, FIRST_ACTION + BINS, (n, K))
        if play["end"]:
            tokens[:, -1] = np.where(rng.uniform(size=n) < .7, EOS, tokens[:, -1])
    else:
        tokens = rng.integers(FIRST_ACTION, FIRST_ACTION + BINS, (n, K))
    play.update(at=at, mask=mask, tokens=tokens, K=K, shapes=shapes_of(play["kind"]))
    play["live"] = torch.arange(K)[None] < torch.tensor([a[2] for a in at])[:, None] * (K if play["kind"] == "plain" else DIMS)
    policy, reference = weights(play["shapes"], False), weights(play["shapes"], True)
    target = torch.tensor(tokens)
    with torch.no_grad():
        logp = Said(policy, play, look_at(play, policy, tokens, at), target).logp.numpy()
        play["reference"] = Said(reference, play, look_at(play, reference, tokens, at), target)
    recorded = np.zeros_like(logp)
    for i in range(n):
        far = False
        while not far:
            recorded[i] = f32(logp[i] + rng.normal(0, .2, K))
            ratio = np.exp(logp[i] - recorded[i])[play["live"][i].numpy()]
            ratios = np.append(ratio, ratio.prod())
            far = all(abs(ratios - k).min() > 1e-3 for k in KINKS)
    play.update(policy=policy, recorded=torch.tensor(recorded))
    return play


# ---- one iteration ------------------------------------------------------------------------------------------------------------------

def rewards(ep, case, cut):
    q = ep.progress.copy()
    if ep.success:
        q[-1] = 1
    g, mode = case["gamma"], case["reward"]
    if mode == "progress":
        part = np.diff(q)
    elif mode == "delta":
        phi = q.copy()
        if not cut:
            phi[-1] = 0
        part = g * phi[1:] - phi[:-1]
    elif mode == "raw":
        part = q[1:].copy()
        if ep.success:
            part[-1] += sum(g ** k for k in range(1, ep.limit - ep.steps + 1))
    elif mode == "raw_literal":
        part = ep.progress[:-1]
    else:
        part = np.zeros(ep.steps)
    r = .7 * part + case["w_env"] * ep.env
    r[-1] += 1.3 * ep.success
    return r


def table(play, flat):
    """(n, ...) by decision -> (E, most, ...) padded with zeros."""
    mask = play["mask"]
    full = torch.zeros(*mask.shape, *flat.shape[1:])
    full[mask] = flat
    return full


def advantages(play, case, ref_logp, values, bootstrap):
    """-> advantage, return (E, most) padded; which episodes carry a gradient; mean reward."""
    at, mask = play["at"], play["mask"]
    E, most = mask.shape
    reward, passed, total, paid = np.zeros((E, most)), np.ones((E, most)), np.zeros(E), 0
    for e, ep in enumerate(EPISODES):
        r = rewards(ep, case, bootstrap[e] is not None)
        paid += r.sum() / E
        total[e] = r.sum()
        for j, (_, t, c) in enumerate(a for a in at if a[0] == e):
            reward[e, j] = sum(case["gamma"] ** k * r[t + k] for k in range(c))
            passed[e, j] = case["gamma"] ** c
    if case["kl"] == "k1_reward":
        pays = table(play, ((play["recorded"] - ref_logp) * play["live"]).sum(1)).numpy()
        reward -= case["kl_coef"] * pays
        total -= case["kl_coef"] * pays.sum(1)
    m = mask.numpy()
    kept = np.ones(E, bool)
    if case["advantage"].startswith("gae"):
        v = values.numpy() if values is not None else np.zeros((E, most))
        a = np.zeros((E, most))
        for e in range(E):
            count = int(m[e].sum())
            nxt, run = bootstrap[e] or 0, 0
            for j in reversed(range(count)):
                run = reward[e, j] + passed[e, j] * nxt - v[e, j] + passed[e, j] * case["lambda"] * run
                a[e, j], nxt = run, v[e, j]
        returns = (a + v) * m
        a = (a - a[m].mean()) / (a[m].std(ddof=1) + 1e-8) * m
    else:
        one = np.zeros(E)
        groups = [list(range(E))] if case["advantage"] == "reinforce++" else [[e for e in range(E) if (EPISODES[e].task, EPISODES[e].state) == g]
                                                                            for g in sorted({(ep.task, ep.state) for ep in EPISODES})]
        for g in groups:
            R = total[g]
            if np.ptp(R) == 0:
                kept[g] = False
            elif case["advantage"] == "rloo":
                one[g] = [R[i] - np.delete(R, i).mean() for i in range(len(g))]
            else:
                one[g] = (R - R.mean()) / (R.std() + 1e-6)
        a, returns = one[:, None] * m, None
    return torch.tensor(a), returns, torch.tensor(kept), paid


def iterate(play, case):
    w, at, mask, live = play["policy"], play["at"], play["mask"], play["live"]
    for p in w.values():
        p.grad = None
    target, stale = torch.tensor(play["tokens"]), torch.tensor([bool(case["stale"]) and EPISODES[a[0]].id in STALE for a in at])
    critic, joint = case["advantage"] in ("gae", "gae-joint"), case["advantage"] == "gae-joint"
    h = look_at(play, w, play["tokens"], at)
    said = Said(w, play, h, target)

    # what the critic says: of the decisions, and of the last picture of an episode that was cut off
    extra = torch.tensor([[t / EPISODES[e].limit, 2 * EPISODES[e].progress[t]] for e, t, _ in at])
    value = value_of(w, h[:, 0] if joint else h[:, 0].detach(), extra) if critic else None
    bootstrap = [None] * len(EPISODES)
    if critic and case["timeout"] == "bootstrap":
        ends = [(e, ep.steps, 1) for e, ep in enumerate(EPISODES) if not ep.success and ep.steps >= ep.limit]
        last = torch.tensor([[1.0, 2 * EPISODES[e].progress[-1]] for e, _, _ in ends])
        for (e, _, _), v in zip(ends, value_of(w, look_at(play, w, None, ends)[:, 0], last).tolist()):
            bootstrap[e] = v
    a, returns, kept, paid = advantages(play, case, play["reference"].logp, table(play, value.detach()) if critic else None, bootstrap)

    # what takes part
    part = (mask & kept[:, None])[mask]
    n, words = int(part.sum()), live & part[:, None]
    if case["mean"] == "episode" or (case["mean"] == "auto" and not case["advantage"].startswith("gae")):
        share = mask / mask.sum(1, keepdim=True) / kept.sum()
    else:
        share = mask / n
    weight, A = share[mask] * part, a[mask]     # of each decision: all together are 1 (or every step 1/n)

    # the policy's loss
    old = torch.where(stale[:, None], said.logp.detach(), play["recorded"])
    by_token = case["ratio"] == "token" or play["kind"] != "plain"
    if by_token:
        log_ratio, log_stale, entry = said.logp - old, old - play["recorded"], words
        A, weight = A[:, None].expand_as(old), (weight / live.sum(1))[:, None].expand_as(old)
    else:
        log_ratio, log_stale, entry = ((said.logp - old) * live).sum(1), ((old - play["recorded"]) * live).sum(1), part
    ratio, importance = log_ratio.exp(), torch.clamp(log_stale.exp(), max=2)
    low, high, dual = case["clip"]
    objective = torch.minimum(ratio * A, torch.clip(ratio, 1 - low, 1 + high) * A)
    if dual:
        objective = torch.where(A < 0, torch.maximum(objective, dual * A), objective)
    policy_loss = -(weight * importance * objective)[entry].sum()
    outside = ((ratio < 1 - low) | (ratio > 1 + high))[entry]
    case["held"] = bool(dual) and bool(((ratio > dual) & (A < 0) & entry).any())
    case["cut"] = bool(outside.any())

    # divergence, entropy, value
    d = play["reference"].logp - said.logp
    each = {"exact": lambda: said.kl(play["reference"]), "k3": lambda: d.exp() - d - 1, "k2": lambda: d ** 2 / 2, "k1": lambda: -d}
    over = live.sum(1, keepdim=True).expand_as(words) if by_token else torch.ones_like(said.logp)    # a ratio per token: all are means over tokens
    kl_of = each[case["kl"]]() if case["kl"] in each else torch.zeros_like(said.logp)
    kl, kl_loss = kl_of[words].sum(), case["kl_coef"] * (kl_of / over)[words].sum() / n
    entropy, entropy_loss = said.entropy[words].sum(), -case["entropy"] * (said.entropy / over)[words].sum() / n
    value_loss = torch.zeros(())
    if critic:
        R, norm = torch.tensor(returns)[mask], returns[mask.numpy()]
        R = (R - norm.mean()) / norm.std()
        before = (value.detach() - norm.mean()) / norm.std()

        def distance(x):
            return F.huber_loss(x, R, reduction="none", delta=case["huber"]) if case["huber"] else (x - R) ** 2 / 2
        each_value = distance(value)
        if case["value_clip"]:
            each_value = torch.maximum(each_value, distance(before + torch.clip(value - before, -case["value_clip"], case["value_clip"])))
        value_loss = .5 * each_value.mean()
    loss = policy_loss + kl_loss + entropy_loss + value_loss
    loss.backward()

    actions = words.sum() / (DIMS + play["end"])
    decision_weight = importance[entry].mean() if not by_token else ((importance / live.sum(1)[:, None])[entry].sum() / n)
    taken = ((play["recorded"] - play["reference"].logp) * live).sum() / sum(x[2] for x in at)     # of all, before any is filtered
    scalars = [loss, policy_loss, kl_loss, value_loss, entropy / words.sum(), taken if case["kl"] == "k1_reward" else kl / actions, ratio[entry].mean(),
               ratio[entry].max(), outside.to(f64).mean(), ((ratio - 1 - log_ratio)[entry]).sum() / actions, decision_weight, paid,
               (~kept).sum(), n]
    return [float(s) for s in scalars]


FACTORS = dict(play=range(len(PLAYS)), ratio=["action", "token"], mean=["auto", "step", "episode"], entropy=[0, .01], value_clip=[0, .4], huber=[0, .5],
               stale=[0, 1], reward=["progress", "delta", "raw", "raw_literal", "sparse", "env"], timeout=["terminal", "bootstrap"], w_env=[0, .3],
               gamma=[.97, 1], kl_coef=[.05, .2])
FACTORS["lambda"] = [.9, 1]
ADVANTAGES = ["gae", "gae-joint", "gae-none", "group", "rloo", "reinforce++"]
CLIPS = [(.2, .2, 0), (.2, .3, 0), (.3, .2, 1.4), (.2, .3, 1.4)]
KLS = ["exact", "k3", "k2", "k1_reward", "k1", "none"]


def every_pair(cases):
    keys = [*FACTORS, "advantage", "clip", "kl"]
    of = {**FACTORS, "advantage": ADVANTAGES, "clip": CLIPS, "kl": KLS}
    return all(len({(c[a], c[b]) for c in cases}) == len(of[a]) * len(of[b]) for a, b in itertools.combinations(keys, 2))


def draw_cases():
    while True:
        cases = [dict(advantage=a, clip=c, kl=k) for a, c, k in itertools.product(ADVANTAGES, CLIPS, KLS)]
        for key, values in FACTORS.items():
            column = [values[i % len(values)] for i in range(len(cases))]
            for case, i in zip(cases, rng.permutation(len(cases))):
                case[key] = column[i]
        if every_pair(cases):
            return cases


def main():
    for p in PROMPTS:
        out("prompt", len(p), p)
    for ep in EPISODES:
        out("episode", ep.id, ep.task, ep.state, ep.steps, ep.limit, ep.success, ep.id in STALE, ep.progress, ep.env)
    for i, play in enumerate(PLAYS):
        prepare(play)
        out("play", ["plain", "tokens", "laplace"].index(play["kind"]), play["full"], play["end"], play["T"], play["K"], len(play["at"]))
        for d, (e, t, c) in enumerate(play["at"]):
            k = int(play["live"][d].sum())
            out("decision", e, t, c, k, play["tokens"][d][:k], play["recorded"][d][:k])
        print("parameters", len(play["shapes"]), *play["shapes"])
    cases = draw_cases()
    for number, case in enumerate(cases):
        play = PLAYS[case["play"]]
        scalars = iterate(play, case)
        low, high, dual = case["clip"]
        out("case", case["play"], ADVANTAGES.index(case["advantage"]), low, high, dual, KLS.index(case["kl"]), case["kl_coef"], case["ratio"] == "token",
            ["auto", "step", "episode"].index(case["mean"]), case["entropy"], case["value_clip"], case["huber"], case["stale"],
            FACTORS["reward"].index(case["reward"]), case["timeout"] == "bootstrap", case["w_env"], case["gamma"], case["lambda"], scalars)
        signs = [1 - 2.0 * (hashed(salt_of(name, number), math.prod(s)) >> 31) for name, s in play["shapes"].items()]
        out("gradient", [0 if p.grad is None else float(p.grad.numpy().ravel() @ s) for p, s in zip(play["policy"].values(), signs)])
    assert all(c["cut"] for c in cases), "a clip that never cuts proves nothing"
    assert sum(c["held"] for c in cases) > 30, "nor does a dual clip that never holds"
    print(f"{len(cases)} cases; the dual clip holds in {sum(c['held'] for c in cases)}", file=sys.stderr)


main()
