#!/usr/bin/env python3
"""gantry_sim.py - any simulator or robot behind gantry's suite `remote` (docs/remote.md). One file: copy it beside your own.

    # my_sim.py
    from gantry_sim import serve

    class World:
        height, width = 64, 64              # of a picture
        tasks = [{"name": "push_cube", "instruction": "push the cube to the target", "max_steps": 50}]

        def reset(self, task, split, seed): # split: train, val or test; seed: a number. Equal arguments always give equal states
            return {"pictures": rgb}        # [height][width][3], RGB, u8: bytes or an array
        def step(self, action):             # seven numbers from -1 to 1: dx dy dz droll dpitch dyaw gripper
            return {"pictures": rgb, "success": False}          # success once in an episode is enough

    serve(World)

    # run.yaml
    suite: {name: remote, remote: "python3 my_sim.py", tasks: [push_cube], image: 64}

What else it may have (describe() may return all attributes as a dict instead):

    action_dims = 7             numbers of an action, at most 16: the policy must be made for as many
    cameras = 1                 pictures in an observation: `pictures` is a list of them, the main camera's first
    proprio = 0                 numbers that the robot says of itself: `proprio` in an observation, a list of them
    control_hz = 10.0           steps in a second
    state_bytes = 0             the most bytes that save() returns
    save(), restore(state)      -> bytes; -> observation: equal bytes mean an equal future
    expert(style, seed, step)   -> what a demonstrator does now: an action, or two: what is executed, what is learnt from
    close()                     before the process ends

An observation of reset may have an `instruction` of its own, one of step a `reward` (for a run's `reward: env`, `w_env`), and a
task a `level` for the curriculum. When a simulator raises an exception, the episode has failed (gantry's log has type, text and
place), and the next reset goes on.

A gymnasium environment needs no code:

    gantry_sim.py --gym FetchPush-v4 --gym-import gymnasium_robotics --instruction "push the block" --proprio observation
    gantry_sim.py --gym Pusher-v5 --gym-args '{"width": 96, "height": 96}' --success reward_dist --at-least -0.1
    gantry_sim.py --gym CarRacing-v3 --picture . --success lap_finished     # "." is the observation itself
    gantry_sim.py --gym Arm-v0 --gym-import arm --picture cameras.front cameras.wrist --listen /run/arm.sock

Python programs drive whatever speaks the protocol, gantry's own suites included:

    from gantry_sim import Client
    with Client("gantry sim serve --suite libero_goal") as sim:             # or "unix:/run/arm.sock"
        seen = sim.reset(sim.describe()["tasks"][0]["name"], "test", 0)
        while not seen["success"]:          # a picture is flat: numpy.frombuffer(p, "u1").reshape(height, width, 3)
            seen = sim.step(policy(seen["pictures"], seen["proprio"]))
"""
import argparse
import contextlib
import importlib
import json
import math
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import traceback

PROTOCOL = 1
HEAD_MAX, BODY_MAX = 1 << 20, 256 << 20
DEFAULTS = {"cameras": 1, "action_dims": 7, "proprio": 0, "control_hz": 10.0, "state_bytes": 0, "expert": False}
PATIENCE = {"describe": 120, "reset": 60}       # seconds until a reply is late
PATIENCE_ELSE = 10
GRACE = 10                                      # seconds for a simulator that is at work when the other side has gone
LOOKS = 500                                     # states of a gymnasium environment that are remembered
ACTION, ACTION_MAX = 7, 16      # numbers of an action: what policies are made for mostly, and at most


# ---- frames ------------------------------------------------------------------------------------------------

def frame(head, body=()):
    """A frame's parts. head: a dict; body: bytes-like objects. ValueError, TypeError: not JSON (NaN is not)."""
    text = json.dumps(head, allow_nan=False).encode()
    return [struct.pack("<II", len(text), sum(map(len, body))) + text, *body]


def send(sock, parts):
    """All parts, in one call where the socket takes them."""
    sent = sock.sendmsg(parts)
    for part in parts:
        if sent < len(part):
            sock.sendall(memoryview(part)[sent:])
        sent = max(0, sent - len(part))


def read(sock, size):
    """Exactly so many bytes. EOFError: the stream ended."""
    data = bytearray(size)
    rest = memoryview(data)
    while rest:
        n = sock.recv_into(rest)
        if n == 0:
            raise EOFError("the stream ended")
        rest = rest[n:]
    return data


def receive(sock):
    """The next frame: its head (a dict), its body. ValueError: what came is none."""
    head, body = struct.unpack("<II", read(sock, 8))
    if head > HEAD_MAX or body > BODY_MAX:
        raise ValueError(f"a frame of {head} + {body} bytes; at most {HEAD_MAX} + {BODY_MAX}")
    head = json.loads(read(sock, head))
    if not isinstance(head, dict):
        raise ValueError("a frame's head is not a JSON object")
    return head, read(sock, body)


def numbers(values, size, what):
    """A list of so many finite floats."""
    values = [float(v) for v in getattr(values, "flat", values)]
    if len(values) != size or not all(map(math.isfinite, values)):
        raise ValueError(f"{what}: {size} finite numbers are expected, found {values}")
    return values


# ---- to be a simulator -------------------------------------------------------------------------------------

def flat(picture, shape):
    """The bytes of a picture of that shape, or of several that lie one after the other."""
    if not isinstance(picture, (bytes, bytearray, memoryview)):
        if not hasattr(picture, "tobytes"):
            raise TypeError(f"pictures are a {type(picture).__name__}; expected are bytes or an array")
        if tuple(picture.shape) != shape or str(picture.dtype) != "uint8":
            raise ValueError(f"pictures are {picture.dtype} {tuple(picture.shape)}; described are uint8 {shape}")
        picture = picture.tobytes()
    view = memoryview(picture).cast("B")
    if len(view) != math.prod(shape):
        raise ValueError(f"pictures have {len(view)} bytes; described are {shape}: {math.prod(shape)}")
    return view


def observed(it):
    """What a simulator's reset, step or restore returned."""
    if isinstance(it, dict) and "pictures" in it:
        return it
    has = f"a dict with {', '.join(map(str, it)) or 'nothing'}" if isinstance(it, dict) else f"a {type(it).__name__}"
    raise TypeError(f"an observation is a dict with 'pictures', not {has}")


class Host:
    """A simulator that answers requests. `make` gives the simulator when it is first asked for something."""

    def __init__(self, make):
        self.make, self.simulator, self.about = make, None, None

    def describe(self):
        """What the simulator is, with nothing left out."""
        if self.simulator is None:
            self.simulator = self.make()
        if self.about is None:
            sim = self.simulator
            keys = ["height", "width", "tasks"] + [key for key in DEFAULTS if hasattr(sim, key)]
            about = sim.describe() if hasattr(sim, "describe") else {key: getattr(sim, key) for key in keys}
            self.about = {"protocol": PROTOCOL, **DEFAULTS, **about, "expert": bool(about.get("expert", hasattr(sim, "expert")))}
        return self.about

    def seen(self, observation, **more):
        """The reply that shows an observation."""
        pictures, cameras = observation["pictures"], self.about["cameras"]
        shape = (self.about["height"], self.about["width"], 3)
        more["proprio"] = numbers(observation.get("proprio", ()), self.about["proprio"], "proprio")
        if not isinstance(pictures, (list, tuple)):
            return more, [flat(pictures, (cameras, *shape) if cameras > 1 else shape)]
        if len(pictures) != cameras:
            raise ValueError(f"{len(pictures)} pictures; described are {cameras} cameras")
        return more, [flat(picture, shape) for picture in pictures]

    def answer(self, request, body):
        """The reply's head, the reply's body. Raises what the simulator raises."""
        op, about = request.get("op"), self.describe()
        sim = self.simulator
        if op == "describe":
            if request.get("protocol", PROTOCOL) != PROTOCOL:
                raise ValueError(f"protocol {request['protocol']} is asked for, this one speaks {PROTOCOL}")
            return about, ()
        if op == "reset":
            seen = observed(sim.reset(request["task"], request["split"], int(request["seed"])))
            return self.seen(seen, **({"instruction": str(seen["instruction"])} if seen.get("instruction") else {}))
        if op in ("step", "restore"):
            if op == "step":
                seen = observed(sim.step(numbers(request["action"], about["action_dims"], "action")))
            else:
                seen = observed(sim.restore(bytes(body)))
            paid = {} if seen.get("reward") is None else {"reward": numbers([seen["reward"]], 1, "reward")[0]}
            return self.seen(seen, success=bool(seen.get("success")), **paid)
        if op == "save":
            state = bytes(sim.save())
            if len(state) > about["state_bytes"]:
                raise ValueError(f"a state of {len(state)} bytes; described are at most {about['state_bytes']}")
            return {}, [state]
        if op == "expert":
            does = sim.expert(request["style"], int(request["seed"]), request["step"])
            action, label = does if len(does) == 2 and hasattr(does[0], "__len__") else (does, does)
            return {name: numbers(a, about["action_dims"], f"the expert's {name}")
                    for name, a in (("action", action), ("label", label))}, ()
        raise ValueError(f"no such request: {op}")

    def reply(self, request, body):
        """The reply's parts, always: an error is one, too."""
        try:
            return frame(*self.answer(request, body))
        except Exception as e:      # whatever it is, it is this episode's
            traceback.print_exc()
            return frame({"error": what(e)})

    def close(self):
        getattr(self.simulator, "close", lambda: None)()


def what(e):
    """An exception in a line: type, text, and the last place outside this file."""
    where = ""
    for place in traceback.extract_tb(e.__traceback__):
        if place.filename != what.__code__.co_filename:
            where = f" ({os.path.basename(place.filename)}:{place.lineno}, {place.name})"
    return f"{type(e).__name__}: {' '.join(str(e).split())[:300]}{where}"


def leave_with(sock, left):
    """A thread that ends the process when the other side has gone and the simulator, which may hang, does not come back."""
    gone = select.poll()
    gone.register(sock, 0)          # nothing to read or write: only the end
    gone.poll()
    if not left.wait(GRACE):
        os._exit(1)


def converse(sock, make):
    """Requests and replies until the stream ends."""
    sock.set_inheritable(False)     # a simulator's own children must not hold the stream open
    sock.setblocking(True)
    host, left = Host(make), threading.Event()
    threading.Thread(target=leave_with, args=(sock, left), daemon=True).start()
    try:
        while True:
            request, body = receive(sock)
            if request.get("op") == "close":
                break
            reply = host.reply(request, body)
            send(sock, reply)
    except (EOFError, ConnectionError, KeyboardInterrupt):
        pass
    finally:
        host.close()
        left.set()


def listen_on(path, make):
    """A process for each connection on a UNIX socket, until TERM or an interrupt: then the socket goes, and they do."""
    with socket.socket(socket.AF_UNIX) as listener:
        try:
            with socket.socket(socket.AF_UNIX) as other:
                other.connect(path)
            sys.exit(f"gantry_sim: somebody listens on {path} already")
        except ConnectionRefusedError:
            os.unlink(path)         # whoever did has died
        except FileNotFoundError:
            pass
        children = []
        for number in (signal.SIGTERM, signal.SIGINT):      # before anybody can see that we are there
            signal.signal(number, lambda *_: sys.exit(0))
        listener.bind(path)
        try:
            listener.listen()
            while True:
                sock, _ = listener.accept()
                children = [pid for pid in children if os.waitpid(pid, os.WNOHANG)[0] == 0]
                pid = os.fork()
                if pid == 0:
                    try:
                        listener.close()
                        converse(sock, make)
                    except Exception:
                        traceback.print_exc()
                    finally:        # never back into what the parent does
                        sys.stdout.flush()
                        os._exit(0)
                children.append(pid)
                sock.close()
        finally:
            os.unlink(path)
            for pid in children:
                os.kill(pid, signal.SIGTERM)


def serve(simulator, listen=None):
    """Be the simulator of the process that started this one, or, with a path, of everybody who connects there. `simulator`: an
    object, or a class or function that makes one (in the process that uses it, so that windows, GPUs and devices are opened
    there)."""
    make = simulator if callable(simulator) else lambda: simulator
    if listen:
        listen_on(listen, make)
        return
    fd = os.environ.pop("GANTRY_SIM_FD", None)
    if fd is None:
        sys.exit("gantry_sim: nobody asks: gantry starts this command itself (suite.remote), or let it listen on a socket")
    with socket.socket(fileno=int(fd)) as sock:
        converse(sock, make)


# ---- to have a simulator -----------------------------------------------------------------------------------

class SimulatorError(Exception):
    """What the simulator said when it could not. It can be reset."""


class Client:
    """A simulator elsewhere, with the methods of one of one's own (so that it can be served again).

    remote: a command (a list, or a string for the shell), or "unix:PATH". Raises SimulatorError for what the simulator could not
    do, and ConnectionError (TimeoutError if it was late) when it cannot go on: the client is then closed, its process dead."""

    def __init__(self, remote, stderr=None):
        self.remote, self.process, self.about = remote, None, None
        if isinstance(remote, str) and remote.startswith("unix:"):
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.connect(remote[len("unix:"):])
            return
        self.sock, theirs = socket.socketpair()
        with theirs:
            command = ["/bin/sh", "-c", remote] if isinstance(remote, str) else list(map(str, remote))
            self.process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=stderr or 2,
                                            stderr=stderr, start_new_session=True,
                                            env={**os.environ, "GANTRY_SIM_FD": str(theirs.fileno())})

    def ask(self, op, body=(), **more):
        """One request; the reply's head and body."""
        if self.sock is None:
            raise ConnectionError(f"{self.remote}: closed")
        request, patience = frame({"op": op, **more}, body), PATIENCE.get(op, PATIENCE_ELSE)
        self.sock.settimeout(patience)
        try:
            send(self.sock, request)
            head, body = receive(self.sock)
        except socket.timeout:
            self.close(0)
            raise TimeoutError(f"{self.remote}: {op}: no reply within {patience} s") from None
        except (EOFError, OSError, ValueError) as e:
            status = self.close(0.2)        # it may have died by itself: its status says how
            raise ConnectionError(f"{self.remote}: {op}: {e}{f'; its exit status is {status}' if self.process else ''}") from None
        if "error" in head:
            raise SimulatorError(str(head["error"]))
        return head, body

    def describe(self):
        if self.about is None:
            self.about = {**DEFAULTS, **self.ask("describe", protocol=PROTOCOL)[0]}
        return self.about

    def look(self, op, body=(), **more):
        about = self.describe()
        head, body = self.ask(op, body, **more)
        size = about["height"] * about["width"] * 3
        if len(body) != size * about["cameras"]:
            self.close(0)
            raise ConnectionError(f"{self.remote}: {op}: pictures of {len(body)} bytes; described are {size * about['cameras']}")
        body = memoryview(body)
        return {"success": False, "proprio": [], **head, "pictures": [body[i:i + size] for i in range(0, len(body), size)]}

    def reset(self, task, split, seed):
        """Observations are as World's above: `pictures` a list of flat memoryviews, one for each camera."""
        return self.look("reset", task=task, split=split, seed=str(seed))

    def step(self, action):
        return self.look("step", action=[float(a) for a in action])

    def save(self):
        return bytes(self.ask("save")[1])

    def restore(self, state):
        return self.look("restore", [state])

    def expert(self, style="expert", seed=0, step=0):
        head, _ = self.ask("expert", style=style, seed=str(seed), step=step)
        return head["action"], head["label"]

    def close(self, patience=10):
        """Say goodbye, and wait so many seconds for a command's process to leave. Its exit status."""
        if self.sock:
            with contextlib.suppress(OSError):
                send(self.sock, frame({"op": "close"}))
            self.sock = self.sock.close()
        if self.process is None:
            return None
        try:
            self.process.wait(patience)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
        return self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def gym_env(client, task, split="train"):
    """A gymnasium.Env over a Client. Observations: pictures u8 [cameras][height][width][3] and proprio. Actions: action_dims
    numbers from -1 to 1. Reward: the simulator's, or 1 at success. Success ends the episode. reset(seed=N) is state N of the
    split; without a seed the next one."""
    import gymnasium
    import numpy
    from gymnasium.spaces import Box
    about = client.describe()
    limit = next(t["max_steps"] for t in about["tasks"] if t["name"] == task)
    shape = (about["cameras"], about["height"], about["width"], 3)

    class Remote(gymnasium.Env):
        observation_space = gymnasium.spaces.Dict(pictures=Box(0, 255, shape, numpy.uint8),
                                                  proprio=Box(-numpy.inf, numpy.inf, (about["proprio"],), numpy.float64))
        action_space = Box(-1, 1, (about["action_dims"],), numpy.float32)
        state, steps = -1, 0

        def seen(self, o):
            return {"pictures": numpy.stack([numpy.frombuffer(p, numpy.uint8) for p in o["pictures"]]).reshape(shape),
                    "proprio": numpy.array(o["proprio"], float)}

        def reset(self, seed=None, options=None):
            super().reset(seed=seed)
            self.state, self.steps = self.state + 1 if seed is None else seed, 0
            o = client.reset(task, split, self.state)
            return self.seen(o), {"instruction": o.get("instruction", "")}

        def step(self, action):
            o = client.step(action)
            self.steps += 1
            reward, success = float(o.get("reward", o["success"])), o["success"]
            return self.seen(o), reward, success, self.steps >= limit, {"success": success}

        def close(self):
            client.close()

    return Remote()


# ---- gymnasium ---------------------------------------------------------------------------------------------

class Gym:
    """A gymnasium environment as a simulator. Its actions are a Box of at most sixteen dimensions, which the first of gantry's
    numbers (seven, if they suffice) drive from low to high; or a choice of n, which the first number makes (its range cut into
    n). Ended episodes stand still."""

    def __init__(self, a):
        sys.path.append(os.getcwd())        # last: `python3 elsewhere/gantry_sim.py --gym-import mine` finds mine.py here
        import gymnasium
        for module in a.gym_import:
            importlib.import_module(module)
        more = {"render_mode": "rgb_array"} if "render" in a.picture else {}
        more.update({"max_episode_steps": a.max_steps} if a.max_steps else {})
        self.env, self.a = gymnasium.make(a.gym, **more, **json.loads(a.gym_args)), a
        if not self.env.spec.max_episode_steps:
            raise ValueError(f"{a.gym} has no limit of its own: --max-steps")
        space = self.env.action_space
        if not hasattr(space, "n") and not (hasattr(space, "low") and space.low.size <= ACTION_MAX
                                            and all(map(math.isfinite, [*space.low.flat, *space.high.flat]))):
            raise ValueError(f"{a.gym}: actions are {space}; a bounded Box of at most {ACTION_MAX} dimensions, or Discrete, can be "
                             "driven")
        self.looks = {}
        seen = self.reset(None, "train", 0)
        for key, picture in zip(a.picture, seen["pictures"]):
            shape = getattr(picture, "shape", None)
            if shape is None or len(shape) != 3 or shape[2] != 3:
                raise ValueError(f"--picture {key} is {type(picture).__name__} {shape}; a picture is (height, width, 3)")
        self.height, self.width, _ = seen["pictures"][0].shape
        self.action_dims = ACTION if hasattr(space, "n") else max(ACTION, space.low.size)
        self.cameras, self.proprio, self.close = len(a.picture), len(seen["proprio"]), self.env.close
        self.control_hz = float(self.env.metadata.get("render_fps", 10))
        self.tasks = [{"name": a.task or a.gym.replace("/", "-"), "instruction": a.instruction,
                       "max_steps": self.env.spec.max_episode_steps}]

    def act(self, action):
        """gantry's numbers as the environment's action."""
        space = self.env.action_space
        shares = [(min(max(x, -1), 1) + 1) / 2 for x in action]
        if hasattr(space, "n"):
            return getattr(space, "start", 0) + min(int(shares[0] * space.n), space.n - 1)
        out = space.low.copy()
        for i, (low, high, share) in enumerate(zip(space.low.flat, space.high.flat, shares)):
            out.flat[i] = min(max(low + (high - low) * share, low), high)
        return out

    def part(self, path):
        """What an observation has under a dotted path; "." is all of it."""
        found = self.observation
        for key in filter(None, path.split(".")):
            keys = list(getattr(found, "keys", list)())
            if key not in keys:
                raise ValueError(f"{path}: no '{key}' in the observation; there is {keys or 'only an array'}")
            found = found[key]
        return found

    def seen(self):
        proprio = self.part(self.a.proprio) if self.a.proprio else ()
        return {"pictures": [self.env.render() if p == "render" else self.part(p) for p in self.a.picture],
                "proprio": [float(v) for v in getattr(proprio, "flat", proprio)], "success": self.success}

    def reset(self, task, split, seed):
        """Its seeds are thrice gantry's and the split's number: no state of one split is another's."""
        number = 3 * seed + ("train", "val", "test").index(split)
        if hasattr(getattr(self.env, "unwrapped", None), "np_random"):
            # wrappers draw from it before reset seeds it: Meta-World's goals
            self.env.unwrapped.np_random, _ = importlib.import_module("gymnasium.utils.seeding").np_random(number)
        self.observation, _ = self.env.reset(seed=number)
        self.success = self.ended = self.known = False
        self.last = self.seen()
        self.compare(f"{split} {seed}", number)
        return self.last

    def compare(self, state, number):
        """Says once if a state that comes again looks different, by more than renderers do to a pixel: policies cannot be compared
        on it."""
        look = b"".join(picture.tobytes()[::7] for picture in self.last["pictures"])
        before = self.looks.setdefault(number, look) if self.looks is not None and len(self.looks) < LOOKS else look
        if any(abs(a - b) > 32 for a, b in zip(before, look)):
            print(f"gantry_sim: WARNING: state {state} looks otherwise than before: reset(seed={number}) of {self.a.gym} does not "
                  "settle it. Policies that are compared on the same states are not compared on the same states", flush=True)
            self.looks = None

    def step(self, action):
        if not self.ended:
            self.observation, reward, terminated, truncated, info = self.env.step(self.act(action))
            said = {**info, "reward": reward, "terminated": terminated}
            known = [said[key] for key in self.a.success if key in said]
            self.success |= any(bool(v) if self.a.at_least is None else float(v) >= self.a.at_least for v in known)
            self.known |= bool(known)
            self.ended = terminated or truncated
            if self.ended and not self.known:
                print(f"gantry_sim: nothing says whether it succeeds: --success {' '.join(self.a.success)}; "
                      f"there is {' '.join(map(str, said))}")
            self.last = self.seen()
            return {**self.last, "reward": reward}
        return {**self.last, "reward": 0}       # gantry plays on to max_steps: what has ended pays no more


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--gym", metavar="ID", required=True, help="the gymnasium environment to serve")
    args.add_argument("--gym-import", metavar="MODULE", action="append", default=[], help="import this first: it registers the environment")
    args.add_argument("--gym-args", metavar="JSON", default="{}", help="what else gymnasium.make is told, as a JSON object")
    args.add_argument("--task", metavar="NAME", help="the task's name for suite.tasks; default: the ID")
    args.add_argument("--instruction", metavar="TEXT", default="", help="what the policy is told")
    args.add_argument("--max-steps", metavar="N", type=int, help="an episode's limit; default: the environment's own")
    args.add_argument("--success", metavar="KEY", nargs="+", default=["is_success", "success"],
                      help="what of `info` says that it succeeds (default: is_success or success); also `terminated`, `reward`")
    args.add_argument("--at-least", metavar="X", type=float, help="it succeeds where --success is a number of at least X, not where it is true")
    args.add_argument("--picture", metavar="KEY", nargs="+", default=["render"],
                      help="`render` (default) is env.render(); else dotted keys of the observation, several are cameras, `.` is all of it")
    args.add_argument("--proprio", metavar="KEY", help="a dotted key of the observation: the robot's own state, at most 64 numbers")
    args.add_argument("--listen", metavar="PATH", help="listen on this UNIX socket, one process for each connection")
    a = args.parse_args()
    serve(lambda: Gym(a), a.listen)


if __name__ == "__main__":
    main()
