"""deploy/gantry_sim.py against itself: what it serves, its Client drives; over a command's stream and over a socket. No daemons."""
import ast
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from remote_world import SIDE, World

import gantry_sim
from gantry_sim import Client, SimulatorError

HERE = Path(__file__).parent
SIM = HERE.parents[1] / "deploy" / "gantry_sim.py"
WORLD = f"exec {sys.executable} {HERE / 'remote_world.py'}"


def until(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture
def own(tmp_path):
    """own(source): a Client of a simulator of that source, whose class is Sim."""
    clients = []

    def make(source):
        path = tmp_path / "own_sim.py"
        path.write_text(f"import sys\nsys.path.insert(0, {str(SIM.parent)!r})\nfrom gantry_sim import serve\n{source}\nserve(Sim)\n")
        clients.append(Client([sys.executable, path]))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def listening(tmp_path):
    path = str(tmp_path / "s.sock")
    server = subprocess.Popen([sys.executable, HERE / "remote_world.py", "--listen", path])
    until(lambda: os.path.exists(path))
    yield path, server
    server.terminate()
    assert server.wait(60) == 0 and not os.path.exists(path), "its socket goes with it"


def episode(sim, task, state, style="expert"):
    seen = sim.reset(task, "val", state)
    for step in range(40):
        if seen["success"]:
            return step
        seen = sim.step(sim.expert(style, state, step)[0])
    return None


def same(a, b):
    return {**a, "pictures": list(map(bytes, a["pictures"]))} == {**b, "pictures": list(map(bytes, b["pictures"]))}


def test_old_python():
    """Python 3.9 reads it, and it imports nothing but the standard library before it must."""
    for path in (SIM, HERE / "remote_world.py"):
        tree = ast.parse(path.read_text(), feature_version=(3, 9))
        assert {a.name for n in tree.body if isinstance(n, ast.Import) for a in n.names} <= sys.stdlib_module_names | {"gantry_sim"}


def test_an_episode():
    """What the client sees is what the world shows; the same state again, another for another split; experts succeed."""
    world, limits = World(), {t["name"]: t["max_steps"] for t in World.tasks}
    with Client(WORLD) as sim:
        about = sim.describe()
        assert (about["height"], about["width"], about["cameras"], about["proprio"]) == (SIDE, SIDE, 1, 2)
        assert about["expert"] is True and about["state_bytes"] == 400 and about["tasks"] == World.tasks
        seen, here = sim.reset("push", "test", 3), world.reset("push", "test", 3)
        assert bytes(seen["pictures"][0]) == here["pictures"] and seen["proprio"] == here["proprio"] and not seen["success"]
        assert same(sim.reset("push", "test", 3), seen) and not same(sim.reset("push", "train", 3), seen)
        assert sim.reset("reach", "test", 1)["instruction"] == "move to the green place"
        assert same(sim.reset("push", "val", 2 ** 64 - 1), world.reset("push", "val", 2 ** 64 - 1) | {"pictures": [world.seen()["pictures"]]})
        for task, limit in limits.items():
            for style in ("expert", "clean"):
                assert all(0 < episode(sim, task, state, style) <= limit for state in range(5))
        slow = [episode(sim, "push", state, "slow") for state in range(12)]
        assert any(n is None or n > limits["push"] for n in slow), "the slow one is sometimes too slow"
        sim.reset("reach", "val", 0)
        action, label = sim.expert("clean", 1, 0)
        assert action != label and sim.expert("clean", 1, 0) == (action, label)
    assert sim.process.returncode == 0
    with pytest.raises(ConnectionError, match="closed"):
        sim.step([0] * 7)


def test_restored_elsewhere():
    """A state from one process goes on in another as it would have."""
    with Client(WORLD) as one, Client(WORLD) as two:
        one.reset("push", "train", 1)
        one.step([1, 0.5, 0, 0, 0, 0, 0])
        state = one.save()
        future = [one.step([-1, k / 9, 0, 0, 0, 0, 0]) for k in range(4)]
        two.restore(state)
        again = [two.step([-1, k / 9, 0, 0, 0, 0, 0]) for k in range(4)]
        assert all(map(same, future, again)) and one.save() == two.save()


def test_socket(listening):
    """A process for each connection; a second server there is refused; a client's end is its process' end."""
    path, server = listening
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children")
    with Client("unix:" + path) as one, Client("unix:" + path) as two:
        seen = one.reset("reach", "val", 0)
        two.reset("push", "val", 1)
        two.step([1] * 7)
        assert same(one.reset("reach", "val", 0), seen)
        assert len(children.read_text().split()) == 2

    def alone():
        with Client("unix:" + path) as three:
            assert episode(three, "reach", 2) > 0
            return len(children.read_text().split()) == 1
    until(alone)        # those before it have ended and are reaped
    second = subprocess.run([sys.executable, HERE / "remote_world.py", "--listen", path], capture_output=True, text=True)
    assert second.returncode == 1 and second.stderr == f"gantry_sim: somebody listens on {path} already\n"


def test_socket_left_behind(tmp_path):
    """Of a server that was killed: the next takes its place."""
    path = str(tmp_path / "s.sock")
    for number in (signal.SIGKILL, signal.SIGINT):
        server = subprocess.Popen([sys.executable, HERE / "remote_world.py", "--listen", path], start_new_session=True)
        try:
            def answers():
                try:
                    return Client("unix:" + path)
                except OSError:
                    return None
            until(answers)
        finally:
            server.send_signal(number)
        server.wait(60)
        assert os.path.exists(path) == (number == signal.SIGKILL)


def test_served_again(own):
    """A Client is a simulator, too."""
    with own(f"from gantry_sim import Client\nSim = lambda: Client({WORLD!r})") as far, Client(WORLD) as near:
        assert far.describe() == near.describe()
        assert same(far.reset("push", "val", 5), near.reset("push", "val", 5))
        assert far.expert("clean", 3, 0) == near.expert("clean", 3, 0)
        assert same(far.step([1] * 7), near.step([1] * 7)) and far.save() == near.save()
        assert episode(far, "push", 1) == episode(near, "push", 1)


def test_errors_are_told(capfd, monkeypatch):
    """Type, text and place; the process lives and the next reset goes on."""
    monkeypatch.setenv("WORLD_FAULT", "raise@2,refuse@val/7")
    with Client(WORLD) as sim:
        sim.reset("reach", "val", 0)
        sim.step([0] * 7)
        with pytest.raises(SimulatorError, match=r"^RuntimeError: the world is out of joint at 2 \(remote_world.py:\d+, misbehave\)$"):
            sim.step([0] * 7)
        with pytest.raises(SimulatorError, match="KeyError: 'no task juggle'"):
            sim.reset("juggle", "val", 0)
        with pytest.raises(SimulatorError, match="out of joint at val/7"):
            sim.reset("reach", "val", 7)
        with pytest.raises(SimulatorError, match="action: 7 finite numbers are expected"):
            sim.step([0] * 6)
        with pytest.raises(SimulatorError, match="no such request: dance"):
            sim.ask("dance")
        with pytest.raises(SimulatorError, match="protocol 2 is asked for, this one speaks 1"):
            sim.ask("describe", protocol=2)
        with pytest.raises(ValueError):
            sim.step([float("nan")] * 7)
        assert episode(sim, "reach", 0) > 0
    assert "Traceback" in capfd.readouterr().err, "its log has the whole of it"


@pytest.mark.parametrize("pictures, words", [
    ("bytes(11)", "ValueError: pictures have 11 bytes; described are (2, 2, 3): 12"),
    ("[bytes(12)] * 2", "ValueError: 2 pictures; described are 1 cameras"),
    ("None", "TypeError: pictures are a NoneType; expected are bytes or an array"),
    ("Array((3, 2, 2))", "ValueError: pictures are uint8 (3, 2, 2); described are uint8 (2, 2, 3)"),
    ("Array((2, 2, 3), 'float32')", "ValueError: pictures are float32 (2, 2, 3); described are uint8 (2, 2, 3)"),
])
def test_pictures_are_checked(own, pictures, words):
    sim = own(f"""
class Array:
    def __init__(self, shape, dtype="uint8"):
        self.shape, self.dtype = shape, dtype
    def tobytes(self):
        return bytes(range(12))
class Sim:
    def describe(self):
        return dict(height=2, width=2, proprio=1, tasks=[])
    def reset(self, task, split, seed):
        return dict(pictures={pictures} if seed else Array((2, 2, 3)), proprio=[float("nan") if seed == 2 else 1])
    def step(self, action):
        return dict(pictures=[bytearray(12)], proprio=(2,), success=1)
    def control_hz(self):
        pass            # a method of its own, which means nothing here""")
    assert bytes(sim.reset("", "val", 0)["pictures"][0]) == bytes(range(12)) and sim.describe()["expert"] is False
    with pytest.raises(SimulatorError) as e:
        sim.reset("", "val", 1)
    assert str(e.value) == words
    with pytest.raises(SimulatorError, match=r"proprio: 1 finite numbers are expected, found \[nan\]"):
        sim.reset("", "val", 2)
    assert sim.step([0] * 7) == {"pictures": [bytes(12)], "proprio": [2.0], "success": True}


def test_observations_are_checked(own):
    """gymnasium's habits are told from ours in a line."""
    sim = own("""
class Sim:
    def describe(self):
        return dict(height=2, width=2, tasks=[])
    def reset(self, task, split, seed):
        return dict(image=bytes(12), state=1) if seed else (dict(pictures=bytes(12)), {})
    def step(self, action):
        return None""")
    for ask, has in ((lambda: sim.reset("", "val", 0), "a tuple"), (lambda: sim.reset("", "val", 1), "a dict with image, state"),
                     (lambda: sim.step([0] * 7), "a NoneType")):
        with pytest.raises(SimulatorError) as e:
            ask()
        assert str(e.value) == f"TypeError: an observation is a dict with 'pictures', not {has}"


def test_cameras(own):
    """Several pictures: a list, or one array or bytes of all."""
    sim = own("""
class Sim:
    height, width, cameras, tasks = 1, 2, 2, []
    def reset(self, task, split, seed):
        return dict(pictures=[bytes(6), b"abcdef"] if seed else bytes(6) + b"abcdef")""")
    for seed in (0, 1):
        assert sim.reset("", "val", seed)["pictures"] == [bytes(6), b"abcdef"]


@pytest.mark.parametrize("fault, error, words", [
    ("die", ConnectionError, "its exit status is 7"), ("hang", TimeoutError, "step: no reply within 0.2 s"),
    ("short", ConnectionError, "pictures of 3071 bytes; described are 3072"), ("text", ConnectionError, "a frame of "),
])
def test_no_sense_in_going_on(monkeypatch, fault, error, words):
    """A simulator that is dead, late or out of its mind: the client says which, and leaves no process."""
    monkeypatch.setenv("WORLD_FAULT", f"{fault}@1")
    if fault == "hang":
        monkeypatch.setattr("gantry_sim.PATIENCE_ELSE", 0.2)
    sim = Client(WORLD)
    sim.reset("push", "val", 0)
    with pytest.raises(error, match=words):
        sim.step([0] * 7)
    assert sim.process.poll() is not None
    with pytest.raises(ConnectionError, match="closed"):
        sim.reset("push", "val", 0)


def test_hangs_alone(own):
    """The other side has gone, without a word, and the simulator does not come back: its process ends."""
    sim = own("""
import gantry_sim, time
gantry_sim.GRACE = 0.1
class Sim:
    height, width, tasks = 1, 1, []
    def reset(self, task, split, seed):
        print("here it hangs", flush=True)
        time.sleep(3600)""")
    sim.describe()
    gantry_sim.send(sim.sock, gantry_sim.frame({"op": "reset", "task": "", "split": "val", "seed": "0"}))
    sim.sock.close()
    assert sim.process.wait(60) == 1


def test_cannot_be_made(own):
    sim = own("def Sim():\n    raise OSError('no camera is plugged in')")
    with pytest.raises(SimulatorError, match=r"OSError: no camera is plugged in \(own_sim.py:\d+, Sim\)"):
        sim.describe()
    r = subprocess.run([sys.executable, SIM, "--gym", "A-v0"], capture_output=True, text=True)
    assert r.returncode == 1 and "nobody asks" in r.stderr and len(r.stderr.splitlines()) == 1


STUB = '''
class Array:
    """What of numpy's the adapter touches."""
    dtype = "uint8"
    def __init__(self, flat, shape=None):
        self.flat, self.shape, self.size = list(flat), shape or (len(flat),), len(flat)
    def copy(self): return Array(self.flat, self.shape)
    def tobytes(self): return bytes(map(int, self.flat))
class Box:
    low, high = Array([0, -2]), Array([10, 2])
class Choice:
    n, start = 3, 5
class Spec:
    max_episode_steps = 4
class Env:
    """Shows its seed and its last action; ends after three steps, with success where its seed is odd."""
    metadata, spec = {"render_fps": 5}, Spec()
    np_random, drifted = 99, 0
    unwrapped = property(lambda self: self)
    def __init__(self, choice, early, drift, **made):
        self.action_space, self.made, self.early, self.drift = Choice() if choice else Box(), made, early, drift
    def reset(self, seed):
        self.seed = self.np_random if self.early else seed + self.drifted
        self.np_random, self.drifted = self.np_random + 1, self.drifted + self.drift
        self.steps, self.did = 0, [0, 0]
        return self.seen(), {}
    def seen(self):
        return {"eye": {"left": Array([self.seed] * 12, (2, 2, 3))}, "self": Array([*self.did, self.steps])}
    def render(self):
        assert self.made == {"render_mode": "rgb_array", "size": 2}
        return Array([self.steps] * 12, (2, 2, 3))
    def step(self, action):
        assert self.steps < 3, "it has ended"
        self.steps, self.did = self.steps + 1, getattr(action, "flat", [action, 0])
        over = self.steps == 3
        return self.seen(), self.steps / 10, over, False, {"is_success": self.seed % 2} if over else {}
    def close(self): print("the environment is closed")
class seeding:
    def np_random(seed): return 2 * seed, seed
__import__("sys").modules["gymnasium.utils.seeding"] = seeding
def make(id, choice=False, early=False, drift=0, **more):
    assert id == "a/Stub-v0" and __import__("sys").modules["registers_it"]
    return Env(choice, early, drift, **more)
'''


@pytest.fixture
def gym(tmp_path, monkeypatch):
    """gym(ARGS): a Client of the adapter on an environment of a gymnasium that is only as much as it touches."""
    (tmp_path / "gymnasium.py").write_text(STUB)
    (tmp_path / "registers_it.py").write_text("")
    monkeypatch.chdir(tmp_path)         # as with `python3 elsewhere/gantry_sim.py` in the directory of one's own module
    monkeypatch.delenv("PYTHONPATH", raising=False)
    return lambda *args: Client([sys.executable, SIM, "--gym", "a/Stub-v0", "--gym-import", "registers_it", *args])


def test_gymnasium(gym, capfd):
    with gym("--gym-args", '{"size": 2}', "--picture", "render", "eye.left", "--proprio", "self", "--instruction", "do it") as sim:
        assert sim.describe() == {"protocol": 1, "height": 2, "width": 2, "cameras": 2, "action_dims": 7, "proprio": 3, "control_hz": 5.0, "state_bytes": 0,
                                  "expert": False, "tasks": [{"name": "a-Stub-v0", "instruction": "do it", "max_steps": 4}]}
        seeds = [sim.reset("a-Stub-v0", split, n)["pictures"][1][0] for n in range(3) for split in ("train", "val", "test")]
        assert len(set(seeds)) == 9, "no state of one split is another's"
        sim.reset("a-Stub-v0", "val", 0)
        seen = sim.step([-1, 1, 0, 0, 0, 0, 0])
        assert seen == {"pictures": [b"\1" * 12, b"\1" * 12], "proprio": [0, 2, 1], "success": False, "reward": .1}
        sim.step([0.5, -3, 0, 0, 0, 0, 0])
        seen = sim.step([2, 0, 0, 0, 0, 0, 0])
        assert seen["proprio"] == [10, 0, 3] and seen["success"] is True
        assert sim.step([0] * 7) == {**seen, "reward": 0}, "an episode that has ended stands still, and pays no more"
        assert not sim.reset("a-Stub-v0", "val", 1)["success"]
    assert "the environment is closed" in capfd.readouterr().err


def test_gymnasium_success(gym, capfd):
    """Where it is not in info by its usual name."""
    for args, after in ((["--success", "reward", "--at-least", "0.2"], 2), (["--success", "terminated"], 3), (["--success", "won"], None)):
        with gym("--gym-args", '{"choice": 1}', "--picture", "eye.left", "--proprio", "self", *args) as sim:
            sim.reset("a-Stub-v0", "train", 0)
            seen = [sim.step([x, 0, 0, 0, 0, 0, 0]) for x in (-1, 0, 1)]
            assert [s["proprio"][0] for s in seen] == [5, 6, 7]         # a choice of three
            assert [s["success"] for s in seen] == [after is not None and k >= after for k in (1, 2, 3)]
    assert capfd.readouterr().err.count("nothing says whether it succeeds: --success won; there is is_success reward terminated") == 1


def test_gymnasium_states(gym, capfd):
    """A seed is a state, also where something is drawn before reset(seed) has seeded it (Meta-World's goals); where it is none, that is said, once."""
    def looks(sim):
        return [sim.reset("a-Stub-v0", "train", n)["pictures"][0][0] for n in (1, 2, 3, 1, 2, 3)]

    for early, drift in ((0, 0), (1, 0), (0, 2), (0, 40)):
        with gym("--gym-args", '{"early": %d, "drift": %d}' % (early, drift), "--picture", "eye.left") as sim:
            seen = looks(sim)
            assert (seen[:3] == seen[3:]) == (drift == 0), (early, drift)
        warned = capfd.readouterr().err.count("WARNING: state train 1 looks otherwise than before: reset(seed=3) of a/Stub-v0 does not settle it")
        assert warned == (drift == 40), (early, drift)


def test_gymnasium_refuses(gym):
    for args, words in ((["--picture", "eye.right"], "eye.right: no 'right' in the observation; there is ['left']"),
                        (["--picture", "self"], "--picture self is Array (3,); a picture is (height, width, 3)")):
        with gym(*args) as sim, pytest.raises(SimulatorError) as e:
            sim.describe()
        assert words in str(e.value)


def test_gym_env():
    """The other way round, where gymnasium is installed: an environment of a simulator elsewhere."""
    pytest.importorskip("gymnasium")
    from gantry_sim import gym_env
    env = gym_env(Client(WORLD), "reach", "val")
    seen, info = env.reset(seed=1)
    assert seen in env.observation_space and info["instruction"] == "move to the green place"
    for _ in range(12):
        seen, reward, terminated, truncated, info = env.step(env.action_space.sample() * 0)
        assert seen in env.observation_space and not terminated and reward == 0
    assert truncated
    assert (env.reset()[0]["pictures"] != env.reset()[0]["pictures"]).any()
    env.close()
