#!/usr/bin/env python3
"""tests/golden/rl/judge.txt: labels of episodes and the judgement of scores on them, by numpy, from the definitions.

    python3 tests/ref/make_judge_cases.py > tests/golden/rl/judge.txt

First episodes (task, success, limit, steps, 7 numbers of each action, steps + 1 scores, labels by time, labels by milestones), then
for each kind of label what prm_judge_scores must say of all of them. Read by tests/nn/test_prm_judge.c."""
import numpy as np

rng = np.random.default_rng(6)


def by_time(frames, success):
    seg = [min(4, t // (frames // 5)) if frames >= 5 else 5 * t // frames for t in range(frames)]
    return np.array([(i + 1) / 5 if success else ((i + 1) / 5 * .5 if i < 2 else .25) for i in seg])


def by_milestone(action, success):
    steps = len(action)
    v = np.sqrt((action[:, :3] ** 2).sum(1))
    slow = v < .25 * v.mean()
    cuts = []
    for f in range(1, steps + 1):
        grip = f >= 2 and (action[f - 1, 6] > 0) != (action[f - 2, 6] > 0)
        rest = f < steps and slow[f] and not slow[f - 1]
        if (grip or rest) and f - (cuts[-1] if cuts else 0) >= 2:
            cuts.append(f)
    if not cuts:
        return by_time(steps + 1, success)
    n = len(cuts) + 1
    seg = np.searchsorted(cuts, np.arange(steps + 1), side="right")
    return (seg + 1) / n if success else np.minimum((seg + 1) / n / 2, .25)


def auc(pos, neg):
    return np.mean([(a > b) + .5 * (a == b) for a in pos for b in neg]) if pos and neg else None


def ranks(x):
    x = np.asarray(x)
    return np.array([(x < b).sum() + ((x == b).sum() + 1) / 2 for b in x])


episodes = []
for i in range(14):
    steps, limit = int(rng.integers(3, 13)), 12
    success = bool(rng.integers(0, 2)) and steps < limit
    action = rng.normal(0, .5, (steps, 7))
    action[:, :3] *= np.where(rng.uniform(size=steps) < .3, .05, 1)[:, None]            # rests
    action[:, 6] = np.where(np.cumsum(rng.uniform(size=steps) < .2) % 2, -1, 1)         # grips
    action = action.astype(np.float32).astype(np.float64)
    score = np.linspace(.1, .9 if success else .5, steps + 1) + rng.normal(0, .12, steps + 1)
    score = np.clip(np.round(score, 2), .01, .99).astype(np.float32).astype(np.float64)                    # ties
    episodes.append((i % 2, success, limit, action, score))
episodes.append((0, True, 12, np.full((6, 7), .5), np.linspace(.1, .7, 7).astype(np.float32).astype(np.float64)))       # nothing happens in it

print(len(episodes))
for task, success, limit, action, score in episodes:
    words = [task, int(success), limit, len(action), *action.ravel(), *score, *by_time(len(score), success), *by_milestone(action, success)]
    print(" ".join("%.17g" % w for w in words))
for label in (lambda a, n, s: by_time(n, s), lambda a, n, s: by_milestone(a, s)):
    at = {k: [] for k in ("q1", "mid", "q3", "last")}
    for task in (0, 1):
        mine = [e for e in episodes if e[0] == task]
        lengths = sorted(len(e[3]) for e in mine if e[1])
        median = lengths[len(lengths) // 2]
        for key, t in (("q1", median // 4), ("mid", median // 2), ("q3", median * 3 // 4), ("last", None)):
            going = [e for e in mine if t is None or t <= len(e[3])]
            value = auc([e[4][-1 if t is None else t] for e in going if e[1]], [e[4][-1 if t is None else t] for e in going if not e[1]])
            if value is not None:
                at[key].append(value)
    rho = [np.corrcoef(ranks(e[4]), ranks(range(len(e[4]))))[0, 1] for e in episodes if e[1]]
    p = np.concatenate([e[4] for e in episodes])
    y = np.concatenate([label(e[3], len(e[4]), e[1]) for e in episodes]).astype(np.float32).astype(np.float64)
    floor = np.where((y <= 0) | (y >= 1), 0, -y * np.log(np.clip(y, 1e-300, 1)) - (1 - y) * np.log(np.clip(1 - y, 1e-300, 1)))
    bce = np.mean(-y * np.log(p) - (1 - y) * np.log(1 - p) - floor)
    bins = np.minimum((p * 10).astype(int), 9)
    ece = sum(abs(p[bins == b].mean() - y[bins == b].mean()) * (bins == b).mean() for b in range(10) if (bins == b).any())
    words = [*(np.mean(at[k]) for k in ("q1", "mid", "q3", "last")), np.mean(rho), bce, ece,
             np.mean([e[4][-1] for e in episodes if e[1]]), np.mean([e[4][-1] for e in episodes if not e[1]])]
    print(" ".join("%.17g" % w for w in words))
