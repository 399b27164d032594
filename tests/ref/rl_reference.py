#!/usr/bin/env python3
"""Numbers for tests/unit/test_rl_*.c, from the definitions and not from the C: sums written out, AUC by counting pairs,
gradients by central differences. Standard library only. Prints what the tests hold as literals."""
import math

def gae(r, v, end, g, lam):
    T = len(r)
    nxt = v[1:] + [end]
    delta = [r[t] + g * nxt[t] - v[t] for t in range(T)]
    a = [math.fsum((g * lam) ** k * delta[t + k] for k in range(T - t)) for t in range(T)]
    return a, [x + y for x, y in zip(a, v)]

r, v = [.1, -.2, .3, 0, 1], [.5, .4, .3, .2, .1]
print("gae terminal", gae(r, v, 0, .99, .95))
print("gae bootstrap .7", gae(r, v, .7, .99, .95))
a = gae(r, v, 0, .99, .95)[0]
m = math.fsum(a) / 5
s = math.sqrt(math.fsum((x - m) ** 2 for x in a) / 4)
print("normalised", [(x - m) / (s + 1e-8) for x in a])
R = [1, 0, 0, 2.5]
m = sum(R) / 4
s = math.sqrt(sum((x - m) ** 2 for x in R) / 4)
print("group", [(x - m) / (s + 1e-6) for x in R])
print("rloo", [x - (sum(R) - x) / 3 for x in R])
ret = [1, 2, 4, 0]; val = [.5, 2.5, 3, 1]
e = [a - b for a, b in zip(ret, val)]
var = lambda x: sum((i - sum(x) / len(x)) ** 2 for i in x)
print("explained variance", 1 - var(e) / var(ret))

p = [.1, .2, .5, .4, .8]
g = .9
print("progress, success", [2 * (b - a) for a, b in zip(p, p[1:-1] + [1])])
print("delta, success, w 2", [2 * (g * b - a) for a, b in zip(p, p[1:-1] + [0])])
print("delta, cut off, w 2", [2 * (g * b - a) for a, b in zip(p, p[1:])])
print("raw, success at 4 of 10, w 2", [2 * x for x in p[1:-1]] + [2 * (1 + sum(g ** k for k in range(1, 7)))])

def ppo(lp, old, adv, lo=.2, hi=.3, dual=0):
    out = 0
    for x, o, A in zip(lp, old, adv):
        ratio = math.exp(max(-20, min(20, x - o)))
        obj = min(ratio * A, max(1 - lo, min(1 + hi, ratio)) * A)
        if dual and A < 0:
            obj = max(obj, dual * A)
        out -= obj
    return out / len(lp)

def slope(f, x, i, h=1e-6):
    up, down = list(x), list(x)
    up[i] += h
    down[i] -= h
    return (f(up) - f(down)) / (2 * h)

lp, old, adv = [-5, -6, -4.2, -7, -3, -40, -1], [-5.1, -5.5, -4.2, -8.5, -3.6, -4, -2.6], [1, -2, .5, 1.5, -.7, 1, -3]
print("ppo", ppo(lp, old, adv), [slope(lambda x: ppo(x, old, adv), lp, i) for i in range(7)])
print("ppo dual 3", ppo(lp, old, adv, dual=3), [slope(lambda x: ppo(x, old, adv, dual=3), lp, i) for i in range(7)])
k = [math.exp(x - o) for x, o in zip(lp, old)]
print("ratio max", max(k), "clipped", sum(x < .8 or x > 1.3 for x in k))
k3 = lambda x: .01 * sum(math.exp(b - a) - (b - a) - 1 for a, b in zip(x, [-.9, -2.5, -.1])) / 2
x = [-1, -2, -.3]
print("k3", k3(x), [slope(k3, x, i) for i in range(3)])

n, k, z = 50, 31, 1.959964
f = lambda q: (k / n - q) ** 2 - z * z * q * (1 - q) / n          # Wilson's interval is where this is negative
def root(a, b):
    for _ in range(200):
        c = (a + b) / 2
        a, b = (c, b) if f(a) * f(c) > 0 else (a, c)
    return a
print("wilson", root(0, k / n), root(k / n, 1))
print("mcnemar 3 11", min(1, 2 * sum(math.comb(14, i) for i in range(4)) / 2 ** 14))
x, y = [1, 2, 2, 4, 5, 9], [2, 1, 3, 3, 8, 7]
rank = lambda x: [sum(a < b for a in x) + (sum(a == b for a in x) + 1) / 2 for b in x]
rx, ry = rank(x), rank(y)
mx, my = sum(rx) / 6, sum(ry) / 6
print("spearman", sum((a - mx) * (b - my) for a, b in zip(rx, ry)) / math.sqrt(sum((a - mx) ** 2 for a in rx) * sum((b - my) ** 2 for b in ry)))
pos, neg = [.9, .4, .6, .6], [.1, .6, .3, .45, .2]
print("auc", sum((a > b) + .5 * (a == b) for a in pos for b in neg) / 20)
s = [.7, 3 / 12, .25]
w = [math.exp(-abs(q - .5) / .25) for q in s]
print("frontier-centred", [.9 * a / sum(w) + .1 / 3 for a in w])
w = [math.exp((.5 - q) / .25) for q in s]
print("frontier", [a / sum(w) for a in w])
