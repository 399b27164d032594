"""numerics: fast. Actor and learner agree to the bit, and a CPU that has not the instruction says so and computes strictly."""
import json
import re

import pytest

STAGES = [
    {"demos": {"episodes": 4, "style": "clean"}},
    {"sft": {"steps": 3, "batch": 8, "warmup": 1}},
    {"rl": {"iterations": 2, "episodes": 4, "preset": "tabletop", "reward": "sparse", "critic_prm": False, "eval_every": 0, "critic_warmup": 1}},
]
SAID = r'products" numerics=(\w+) isa=(\w+)|products stay strict" isa=(\w+)'


def play(make_cluster):
    cluster = make_cluster({"run": {"numerics": "fast"}}, stages=STAGES)
    cluster.start()
    summary = cluster.until_finished()
    cluster.history()
    assert summary["numerics"] == "fast"
    gaps = [m for m in map(json.loads, (f.read_text() for f in sorted(cluster.run.glob("policies/*/training.json"))))]
    gaps = [g.get("metrics", g) for g in gaps]
    gaps = [g["logp_gap_max"] for g in gaps if g.get("logp_gap_tokens")]
    said = {p.role: re.findall(SAID, p.log.read_text()) for p in cluster.processes if p.role in ("actor", "learner", "prm-server")}
    return cluster, gaps, said


def test_actor_and_learner_agree(make_cluster):
    cluster, gaps, said = play(make_cluster)
    assert gaps and max(gaps) == 0, gaps
    assert all(len(lines) == 1 for lines in said.values()), said             # once each
    has = "avx512_bf16" in open("/proc/cpuinfo").read()
    assert {lines[0][0] for lines in said.values()} == {"fast" if has else ""}, said


def test_without_amx(make_cluster, monkeypatch):
    cpu = open("/proc/cpuinfo").read()
    if "avx512_bf16" not in cpu:
        pytest.skip("no AVX512_BF16 here: all products are strict")
    monkeypatch.setenv("GANTRY_ISA", "avx512bf16")
    cluster, gaps, said = play(make_cluster)
    assert gaps and max(gaps) == 0, gaps
    assert {lines[0] for lines in said.values()} == {("fast", "avx512bf16", "")}, said
    assert all(("likely slower than strict" in cluster.of(role)[0].log.read_text()) == ("GenuineIntel" in cpu) for role in said)


def test_a_cpu_without_it_says_so(make_cluster, monkeypatch):
    monkeypatch.setenv("GANTRY_ISA", "avx2")
    cluster, gaps, said = play(make_cluster)
    assert gaps and max(gaps) == 0, gaps
    assert {lines[0][2] for lines in said.values()} == {"avx2"}, said
    for role in said:
        log = cluster.of(role)[0].log.read_text()
        assert re.search(r"level=warn\S* .*products stay strict.*AVX512_BF16", log), log[:2000]


def test_one_who_multiplies_otherwise_is_named(make_cluster, monkeypatch):
    if "avx512_bf16" not in open("/proc/cpuinfo").read():
        pytest.skip("no AVX512_BF16 here: all products are strict")
    cluster = make_cluster({"run": {"numerics": "fast"}}, stages=[*STAGES[:2], {"rl": {**STAGES[2]["rl"], "iterations": 1000}}])
    cluster.start()
    monkeypatch.setenv("GANTRY_ISA", "avx2")
    cluster.spawn("actor", "odd")
    cluster.until(lambda s: s and "avx2" in {m["isa"] for m in s["members"]}, "the odd one")
    said = r"kind=numerics .*by strict.*numerics: strict makes them equal"
    cluster.until(lambda _: re.search(said, cluster.of("coordinator")[0].log.read_text()), "its being named")
