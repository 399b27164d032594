#!/usr/bin/env python3
"""A world for the suite `remote`, small enough for tests: a red hand, a blue block and a green place on a picture of 32 x 32. Standard library.

Tasks: `reach` (the hand gets near the place: who moves at random does, too, now and then) and `push` (the block gets to it: the hand takes
along what it touches). --listen PATH: on a socket.

WORLD_PLAIN=1: without an expert, and it cannot save.
WORLD_ALIAS=NAME: a third task, reach by that name.
WORLD_ARMS=2: actions of fourteen numbers, and the hand is the second arm's.
WORLD_FAULT="WHAT@WHEN[,...]" misbehaves at the step WHEN of its process (from 1), or at the first step of the state WHEN (as in train/3):
raise, hang, die; nonsense, short, nan, text answer what gantry_sim.py would not. At the state's reset: refuse, stuck, crash.
"""
import json
import os
import random
import struct
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "deploy"))
import gantry_sim  # noqa: E402
from example_sim import GREEN, RED, SIDE, away, picture  # noqa: E402

REACH, NEAR, SPEED = 0.08, 0.29, 0.12       # of the picture's side; in one step


class World:
    height = width = SIDE
    proprio, control_hz, state_bytes = 2, 5.0, 0 if "WORLD_PLAIN" in os.environ else 400
    action_dims = 14 if os.environ.get("WORLD_ARMS") == "2" else 7
    tasks = [{"name": "reach", "instruction": "go to the green place", "max_steps": 12},
             {"name": "push", "instruction": "push the block to the green place", "max_steps": 24, "level": 1}]
    alias = os.environ.get("WORLD_ALIAS")
    tasks += [{**tasks[0], "name": alias}] if alias else []

    def __init__(self):
        self.played, self.faults = 0, dict(reversed(f.split("@")) for f in filter(None, os.environ.get("WORLD_FAULT", "").split(",")))

    def reset(self, task, split, seed):
        task = "reach" if task == self.alias else task
        if task not in ("reach", "push"):
            raise KeyError(f"no task {task}")
        draw = random.Random(f"{task} {split} {seed}")
        self.task, self.state, self.success = task, f"{split}/{seed}", False
        self.misbehave(self.state, ("refuse", "stuck", "crash"))
        while True:
            self.hand, self.block, self.place = ([draw.uniform(0.1, 0.9), draw.uniform(0.1, 0.9)] for _ in range(3))
            if min(away(self.hand, self.block), away(self.hand, self.place), away(self.block, self.place)) > 0.3:
                return {**self.seen(), "instruction": "move to the green place"} if seed % 2 and task == "reach" else self.seen()

    def step(self, action):
        self.played += 1
        self.misbehave(str(self.played))
        self.misbehave(self.state)
        old = self.hand
        self.hand = [min(max(old[i] + SPEED * action[self.action_dims - 7 + i], 0), 1) for i in (0, 1)]
        if self.task == "push" and away(old, self.block) < REACH:
            self.block = [self.block[i] + self.hand[i] - old[i] for i in (0, 1)]
        self.success |= away(self.hand, self.place) < NEAR if self.task == "reach" else away(self.block, self.place) < REACH
        return {**self.seen(), "reward": 0.25}

    def expert(self, style, seed, step):
        """Straight to the block, then with it to the place; slow at a third of the speed, clean with a hand that shakes."""
        to, thing = self.place, self.hand
        if self.task == "push":
            to, thing = (self.place, self.block) if away(self.hand, self.block) < REACH else (self.block, self.hand)
        pace = min(away(thing, to), SPEED / 3 if style == "slow" else SPEED) / max(away(thing, to), 1e-9) / SPEED
        label = [0.0] * (self.action_dims - 7) + [(to[i] - thing[i]) * pace for i in (0, 1)] + [0.0] * 5
        draw = random.Random(f"{seed} {step}")
        return [min(max(v + draw.uniform(-0.1, 0.1), -1), 1) for v in label] if style == "clean" else label, label

    def save(self):
        return json.dumps([self.task, self.state, self.success, self.hand, self.block, self.place]).encode()

    def restore(self, state):
        self.task, self.state, self.success, self.hand, self.block, self.place = json.loads(state)
        return self.seen()

    def seen(self):
        block = [(self.block, (60, 90, 230))] if self.task == "push" else []
        return {"pictures": picture((self.place, GREEN), *block, (self.hand, RED)), "proprio": self.hand, "success": self.success}

    def misbehave(self, when, which=("raise", "hang", "die", "nonsense", "short", "nan", "text")):
        fault = self.faults.get(when)
        if fault not in which:
            return
        if fault in ("raise", "refuse"):
            raise RuntimeError(f"the world is out of joint at {when}")
        if fault in ("hang", "stuck"):
            time.sleep(3600)
        if fault in ("die", "crash"):
            os._exit(7)
        head, size = b'{"success":false,"proprio":[0,0]}', 3 * SIDE * SIDE - (fault == "short")
        head = {"nonsense": b'{"success":17}', "nan": head.replace(b"[0", b"[NaN")}.get(fault, head)
        answer = b"Segmentation fault" if fault == "text" else struct.pack("<II", len(head), size) + head + bytes(size)
        gantry_sim.send = lambda sock, parts: sock.sendall(answer)


if "WORLD_PLAIN" in os.environ:
    del World.expert

if __name__ == "__main__":
    gantry_sim.serve(World, sys.argv[2] if sys.argv[1:2] == ["--listen"] else None)
