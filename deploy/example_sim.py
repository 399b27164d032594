#!/usr/bin/env python3
"""A simulator of one's own, to begin from (docs/remote.md): a red hand has to be at the green place before the time is up.
Needs nothing beyond the standard library.

    gantry sim play --suite remote --remote "python3 deploy/example_sim.py" --policy slow -o film.png
    gantry up deploy/example_sim.yaml

Its slow demonstrator is in time where it need not go far, and so is what imitates it. Reinforcement learning is paid for being in
time: the policy becomes quick. It can only choose among what it tries, hence the hand that shakes.
"""
import json
import random

import gantry_sim

SIDE = 32                                   # pixels
RED, GREEN = (220, 40, 40), (40, 180, 70)
NEAR, SPEED, SLOW, SHAKES = 0.15, 0.12, 0.35, 0.1       # shares of the picture's side, the last two of an action's most


def away(a, b):
    return ((a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2) ** 0.5


def picture(*things):
    """A square of five pixels for each (where, colour), the last on top; rows from the top, three bytes a pixel."""
    rows = bytearray(b"\xd8\xd4\xcc" * SIDE * SIDE)
    for where, colour in things:
        x, y = (min(max(int(v * SIDE), 2), SIDE - 3) for v in where)
        for row in range(y - 2, y + 3):
            rows[3 * (row * SIDE + x - 2):3 * (row * SIDE + x + 3)] = bytes(colour) * 5
    return rows


class Reach:
    height = width = SIDE
    proprio, control_hz, state_bytes = 2, 5.0, 200
    tasks = [{"name": "reach", "instruction": "go to the green place", "max_steps": 8}]

    def reset(self, task, split, seed):
        """The same task, split and seed are the same state, in every process and for ever."""
        draw = random.Random(f"{task} {split} {seed}")
        self.success = False
        while True:
            self.hand, self.place = ([draw.uniform(0.1, 0.9), draw.uniform(0.1, 0.9)] for _ in range(2))
            if away(self.hand, self.place) > 0.3:
                return self.seen()

    def step(self, action):
        """Seven numbers from -1 to 1; this hand knows what to do with two of them."""
        self.hand = [min(max(self.hand[i] + SPEED * action[i], 0), 1) for i in (0, 1)]
        self.success |= away(self.hand, self.place) < NEAR
        return self.seen()

    def seen(self):
        return {"pictures": picture((self.place, GREEN), (self.hand, RED)), "proprio": self.hand, "success": self.success}

    # ---- what a simulator need not have: a demonstrator, and states that can be gone back to

    def expert(self, style, seed, step):
        """(what is done, what is learnt from). expert: straight there; clean: the same by a hand that shakes; slow: shaking, and slow."""
        draw, far = random.Random(f"{seed} {step}"), max(away(self.hand, self.place), SPEED)
        straight = [(self.place[i] - self.hand[i]) / far for i in (0, 1)] + [0.0] * 5
        pace = SLOW if style == "slow" else 1
        done = straight if style == "expert" else [min(max(pace * v + draw.gauss(0, SHAKES), -1), 1) for v in straight[:2]] + [0.0] * 5
        return done, done if style == "slow" else straight

    def save(self):
        return json.dumps([self.hand, self.place, self.success]).encode()

    def restore(self, state):
        self.hand, self.place, self.success = json.loads(state)
        return self.seen()


if __name__ == "__main__":
    gantry_sim.serve(Reach)
