#!/usr/bin/env python3
"""PyTorch's side of bench_gpu_models act, adapters and train: OpenVLA-7B's sizes with random bf16 weights, the same calls.

    tests/bench/torch_gpu.py [--device cuda] [--only act,adapters,train] [--seconds 150]
    tests/bench/torch_gpu.py --look                    what there is to measure with, no more
    tests/bench/torch_gpu.py --device cpu --small      tiny sizes: does it run? transformers and peft for their rows

Lines that can be laid beside the other's, the median of five after two, pictures sent and tokens fetched included:
    openvla-7b acts, PyTorch HOW, B = 8: 100.00 actions/s, 80.00 ms

HOW is what users run, and what a practised one makes of it; beside_torch.sh takes the best of all:
  transformers    LlamaForCausalLM with sdpa and its own generate(), towers and projector as plain modules (timm's are the same
                  calls). Learning and adapters: peft's LoRA, autocast, as OpenVLA's finetune.py, but logits only at labels
  modules         plain modules of this file, static keys and values, the head cut to the 256 action ids; acting is one CUDA
                  graph from pixels to the last token
  compiled        the same, each kind of block through torch.compile
Greedy, prefill of 256 + 30 rows and six steps. Learning is LoRA of rank 32 on every linear layer (not the head), cross-entropy
at eight rows of 293, one clip, AdamW; blocks are kept, and computed twice only where memory does not suffice. What fails or has
no time left is one line; the others still run. Exit status 77: no device.
"""
import argparse
import contextlib
import copy
import gc
import os
import statistics
import sys
import time
import warnings

try:
    import torch
    import torch.nn.functional as F
    from torch import nn
    from torch.utils.checkpoint import checkpoint
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)

#                     wide, blocks that run, heads, MLP, prefix tokens
BIG = {"name": "openvla-7b", "towers": [(1024, 23, 16, 4096, 5), (1152, 26, 16, 4304, 0)], "projector": 8704, "image": 224,
       "patch": 14, "hidden": 4096, "layers": 32, "heads": 32, "mlp": 11008, "vocabulary": 32064, "prompt": 30, "rank": 32,
       "act": (1, 8, 64), "train": (16, 32)}
SMALL = BIG | {"name": "small", "towers": [(64, 2, 4, 128, 5), (48, 2, 2, 80, 0)], "projector": 128, "image": 56, "hidden": 64,
               "layers": 2, "heads": 4, "mlp": 96, "vocabulary": 1088, "rank": 4, "act": (1, 3), "train": (2, 4)}
TOKENS, ACTIONS, DTYPE = 7, 256, torch.bfloat16


class Block(nn.Module):
    """A tower's."""
    def __init__(self, dim, heads, mlp, scaled):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(dim, 1e-6), nn.LayerNorm(dim, 1e-6)
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.fc1, self.fc2 = nn.Linear(dim, mlp), nn.Linear(mlp, dim)
        self.scale1, self.scale2 = (nn.Parameter(torch.ones(dim)) if scaled else None for _ in range(2))

    def forward(self, x):
        b, s, dim = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(b, s, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        a = self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, s, dim))
        x = x + (a if self.scale1 is None else a * self.scale1)
        m = self.fc2(F.gelu(self.fc1(self.norm2(x))))
        return x + (m if self.scale2 is None else m * self.scale2)


class Tower(nn.Module):
    def __init__(self, size, dim, blocks, heads, mlp, prefix):
        super().__init__()
        self.patch = nn.Conv2d(3, dim, size["patch"], size["patch"])
        self.pos = nn.Parameter(torch.zeros(1, (size["image"] // size["patch"]) ** 2, dim))
        self.prefix = nn.Parameter(torch.zeros(1, prefix, dim)) if prefix else None
        self.blocks = nn.ModuleList(Block(dim, heads, mlp, prefix > 0) for _ in range(blocks))

    def forward(self, pixels, call):
        x = self.patch(pixels).flatten(2).transpose(1, 2) + self.pos
        if self.prefix is not None:
            x = torch.cat([self.prefix.expand(len(x), -1, -1), x], 1)
        for block in self.blocks:
            x = call(block, x)
        return x if self.prefix is None else x[:, self.prefix.shape[1]:]


class RMSNorm(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x):
        return F.rms_norm(x, x.shape[-1:], self.weight, 1e-6)


class Layer(nn.Module):
    """Llama's, by transformers' names, in two halves around attention: of the same shapes in every step, so easily compiled."""
    def __init__(self, size):
        super().__init__()
        dim, mlp = size["hidden"], size["mlp"]
        self.heads = size["heads"]
        self.self_attn = nn.ModuleDict({f"{name}_proj": nn.Linear(dim, dim, bias=False) for name in "qkvo"})
        self.mlp = nn.ModuleDict({"gate_proj": nn.Linear(dim, mlp, bias=False), "up_proj": nn.Linear(dim, mlp, bias=False),
                                  "down_proj": nn.Linear(mlp, dim, bias=False)})
        self.input_layernorm, self.post_attention_layernorm = RMSNorm(dim), RMSNorm(dim)

    def before(self, x, cos, sin):
        h = self.input_layernorm(x)
        q, k, v = (self.self_attn[f"{name}_proj"](h).view(*h.shape[:2], self.heads, -1).transpose(1, 2) for name in "qkv")
        return rotate(q, cos, sin), rotate(k, cos, sin), v

    def after(self, x, a):
        x = x + self.self_attn["o_proj"](a.transpose(1, 2).reshape(x.shape))
        h = self.post_attention_layernorm(x)
        return x + self.mlp["down_proj"](F.silu(self.mlp["gate_proj"](h)) * self.mlp["up_proj"](h))

    def forward(self, x, cos, sin):
        q, k, v = self.before(x, cos, sin)
        return self.after(x, F.scaled_dot_product_attention(q, k, v, is_causal=True))

    def step(self, x, cos, sin, keys, values, at):
        """Rows from `at` on, behind those kept."""
        q, k, v = self.before(x, cos, sin)
        end = at + x.shape[1]
        keys[:, :, at:end], values[:, :, at:end] = k, v
        return self.after(x, F.scaled_dot_product_attention(q, keys[:, :, :end], values[:, :, :end], is_causal=at == 0))


def rotate(x, cos, sin):
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat([-b, a], -1) * sin


class Eyes(nn.Module):
    """Pixels and ids to embeddings, pictures behind <s>."""
    def __init__(self, size):
        super().__init__()
        dim, wide = size["hidden"], size["projector"]
        self.towers = nn.ModuleList(Tower(size, *tower) for tower in size["towers"])
        self.projector = nn.Sequential(nn.Linear(sum(t[0] for t in size["towers"]), wide), nn.GELU(), nn.Linear(wide, dim),
                                       nn.GELU(), nn.Linear(dim, dim))
        self.register_buffer("mean", torch.tensor([.484375, .455078125, .40625, .5, .5, .5]).view(1, 6, 1, 1).float())
        self.register_buffer("std", torch.tensor([.228515625, .2236328125, .224609375, .5, .5, .5]).view(1, 6, 1, 1).float())

    def forward(self, images, text, call):
        x = images.permute(0, 3, 1, 2).float() / 255
        x = ((torch.cat([x, x], 1) - self.mean) / self.std).to(DTYPE)
        seen = self.projector(torch.cat([self.towers[0](x[:, :3], call), self.towers[1](x[:, 3:], call)], -1))
        return torch.cat([text[:, :1], seen, text[:, 1:]], 1)


def kept(block, *inputs):
    return block(*inputs)


def twice(block, *inputs):
    return checkpoint(block, *inputs, use_reentrant=False)


class Policy(nn.Module):
    """model and lm_head have transformers' names, so that its Llama can share their weights."""
    def __init__(self, size):
        super().__init__()
        dim, half = size["hidden"], size["hidden"] // size["heads"] // 2
        self.size, self.call = size, kept
        self.eyes = Eyes(size)
        self.model = nn.ModuleDict({"embed_tokens": nn.Embedding(size["vocabulary"], dim), "norm": RMSNorm(dim),
                                    "layers": nn.ModuleList(Layer(size) for _ in range(size["layers"]))})
        self.lm_head = nn.Linear(dim, size["vocabulary"], bias=False)
        self.first = size["vocabulary"] - 64 - ACTIONS
        angle = torch.arange(512)[:, None].float() * 10000 ** (-torch.arange(half).float() / half)
        self.cos, self.sin = (torch.cat([t, t], -1).to(DTYPE) for t in (angle.cos(), angle.sin()))

    def prefix(self, images, prompt):
        return self.eyes(images, self.model["embed_tokens"](prompt), self.call)

    def recompute(self, again):
        self.call = twice if again else kept

    def run(self, x):
        for layer in self.model["layers"]:
            x = self.call(layer, x, self.cos[:x.shape[1]], self.sin[:x.shape[1]])
        return self.model["norm"](x)

    def act(self, images, prompt, keep):
        x, at, tokens = self.prefix(images, prompt), 0, []
        for _ in range(TOKENS):
            n = x.shape[1]
            for layer, (keys, values) in zip(self.model["layers"], keep):
                x = layer.step(x, self.cos[at:at + n], self.sin[at:at + n], keys, values, at)
            at += n
            head = self.lm_head.weight[self.first:self.first + ACTIONS]
            tokens.append(self.first + F.linear(self.model["norm"](x[:, -1]), head).argmax(-1))
            x = self.model["embed_tokens"](tokens[-1][:, None])
        return torch.stack(tokens, 1)


class Lora(nn.Module):
    """Kept in fp32 for the optimiser, multiplied in bf16; acting has them in bf16 already."""
    def __init__(self, base, rank):
        super().__init__()
        self.base, self.scale = base, 16 / rank
        self.a = nn.Parameter(torch.randn(rank, base.in_features, device=base.weight.device) / rank)
        self.b = nn.Parameter(torch.randn(base.out_features, rank, device=base.weight.device) * .01)

    def forward(self, x):
        return self.base(x) + F.linear(F.linear(x, self.a.to(x.dtype)), self.b.to(x.dtype)) * self.scale


def linears(module):
    """(parent, name in it, full name) of every linear layer but the head."""
    found = [(parent, name, f"{path}.{name}".lstrip(".")) for path, parent in module.named_modules()
             for name, child in parent.named_children() if isinstance(child, nn.Linear)]
    return [entry for entry in found if entry[1] != "lm_head"]


@contextlib.contextmanager
def making(device):
    """Weights are made where and as they are used."""
    torch.set_default_dtype(DTYPE)
    try:
        with device:
            yield
    finally:
        torch.set_default_dtype(torch.float32)


class Public(nn.Module):
    """The same weights under transformers' Llama."""
    def __init__(self, policy):
        from transformers import LlamaConfig, LlamaForCausalLM
        super().__init__()
        size, device = policy.size, policy.lm_head.weight.device
        config = LlamaConfig(vocab_size=size["vocabulary"], hidden_size=size["hidden"], intermediate_size=size["mlp"],
                             num_hidden_layers=size["layers"], num_attention_heads=size["heads"],
                             num_key_value_heads=size["heads"], max_position_embeddings=2048, rms_norm_eps=1e-6,
                             attn_implementation="sdpa", tie_word_embeddings=False,
                             bos_token_id=1, eos_token_id=None, pad_token_id=0)
        with making(device):
            self.llama = LlamaForCausalLM(config).eval()
        mine = dict(policy.named_parameters())
        for name, parameter in self.llama.named_parameters():
            parameter.data = mine[name].data
        self.eyes, self.call = copy.deepcopy(policy.eyes), kept         # its own: peft puts its layers into them
        self.requires_grad_(False)

    def prefix(self, images, prompt):
        return self.eyes(images, self.llama.get_input_embeddings()(prompt), self.call)

    def act(self, images, prompt):
        x = self.prefix(images, prompt)
        seen = torch.ones(x.shape[:2], dtype=torch.long, device=x.device)
        return self.llama.generate(inputs_embeds=x, attention_mask=seen, max_new_tokens=TOKENS, min_new_tokens=TOKENS,
                                   do_sample=False)

    def adapt(self, rank):
        from peft import LoraConfig, inject_adapter_in_model
        names = [name for _, _, name in linears(self)]
        inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=16, target_modules=names), self)
        for name, parameter in self.named_parameters():
            if "lora_" in name:
                parameter.data = parameter.data.float()
                parameter.requires_grad_(True)

    def recompute(self, again):
        self.call = twice if again else kept
        self.llama.train(again)                         # transformers computes twice only then; there is no dropout
        if again:
            self.llama.gradient_checkpointing_enable({"use_reentrant": False})
        else:
            self.llama.gradient_checkpointing_disable()


@contextlib.contextmanager
def compiled_blocks(backend):
    """By kind, not one by one: the layers of a stack share what is made."""
    plain = Block.forward, Layer.before, Layer.after
    torch.compiler.reset()
    try:
        Block.forward, Layer.before, Layer.after = (torch.compile(f, dynamic=False, backend=backend) for f in plain)
        yield
    finally:
        Block.forward, Layer.before, Layer.after = plain


class Bench:
    def __init__(self, size, device, seconds):
        self.size, self.device, self.cuda = size, device, device.type == "cuda"
        self.until, self.failed = time.monotonic() + seconds, False
        torch.manual_seed(0)
        with making(device):
            self.policy = Policy(size)
        self.policy.eval().requires_grad_(False)
        self.public, self.adapted = None, False
        self.backend = "inductor" if self.cuda else "aot_eager"         # a CPU's is a C++ compiler: minutes, for no rate
        most = max(size["act"] + size["train"])
        self.images = torch.randint(0, 256, (most, size["image"], size["image"], 3), dtype=torch.uint8)
        self.images = self.images.pin_memory() if self.cuda else self.images
        self.prompt = torch.randint(3, 700, (1, size["prompt"]), device=device)

    def settle(self):
        gc.collect()
        if self.cuda:
            torch.cuda.synchronize()
            torch.cuda.empty_cache()

    def measure(self, run):
        seconds = []
        for i in range(-2, 5):
            begin = time.perf_counter()
            run()                                       # ends with a number on the host
            if i >= 0:
                seconds.append(time.perf_counter() - begin)
        return statistics.median(seconds)

    def case(self, what, unit, how, batch, make, note=""):
        """make() returns what is measured."""
        name = f"{self.size['name']} {what}, PyTorch {how}, B = {batch}"
        if time.monotonic() > self.until:
            print(f"left out: {name}: no time is left", flush=True)
            return False
        begin = time.monotonic()
        try:
            with compiled_blocks(self.backend) if how == "compiled" else contextlib.nullcontext():
                seconds = self.measure(make())
            took = time.monotonic() - begin
            print(f"{name}: {batch / seconds:.2f} {unit}/s, {1e3 * seconds:.2f} ms{note} ({took:.1f} s)", flush=True)
            return True
        except torch.OutOfMemoryError as error:
            print(f"too little memory: {name}: {str(error).splitlines()[0]}", flush=True)
        except Exception as error:                      # of libraries that are young and many: the other cases are worth as much
            self.failed = True
            print(f"failed: {name}: {type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}", flush=True)
        return False

    # ---- acting ----

    def acts(self, batch):
        """Pixels on the host to tokens on the host; on a GPU all between is one graph."""
        size, policy = self.size, self.policy
        rows = size["prompt"] + (size["image"] // size["patch"]) ** 2 + TOKENS
        shape = (batch, size["heads"], rows, size["hidden"] // size["heads"])
        keep = [tuple(torch.zeros(shape, dtype=DTYPE, device=self.device) for _ in range(2)) for _ in range(size["layers"])]
        images, prompt = self.images[:batch].to(self.device), self.prompt.expand(batch, -1).contiguous()
        run = torch.no_grad()(lambda: policy.act(images, prompt, keep))
        run()
        if not self.cuda:
            return run
        side, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            run()
            run()
        torch.cuda.current_stream().wait_stream(side)
        with torch.cuda.graph(graph):
            tokens = run()

        def replay():
            images.copy_(self.images[:batch], non_blocking=True)
            graph.replay()
            return tokens.cpu()
        return replay

    def acts_publicly(self, batch):
        prompt = self.prompt.expand(batch, -1).contiguous()
        images = self.images[:batch]
        return torch.inference_mode()(lambda: self.public.act(images.to(self.device, non_blocking=True), prompt).cpu())

    def all_acts(self, what, how):
        for batch in self.size["act"]:
            self.case(what, "actions", how, batch, lambda batch=batch: self.acts(batch))
            self.settle()

    def all_public_acts(self, what):
        for batch in self.size["act"]:
            if self.public:
                self.case(what, "actions", "transformers", batch, lambda batch=batch: self.acts_publicly(batch))
                self.settle()

    # ---- learning ----

    def adapt(self):
        if not self.adapted:
            for parent, name, _ in linears(self.policy):
                setattr(parent, name, Lora(getattr(parent, name), self.size["rank"]))
        self.adapted = True

    def adapters_as(self, dtype):
        for module in self.policy.modules():
            if isinstance(module, Lora):
                module.a.data, module.b.data = module.a.data.to(dtype), module.b.data.to(dtype)

    def learns(self, batch, hidden, head, parameters, autocast):
        optimizer = torch.optim.AdamW(parameters, lr=1e-5, fused=self.cuda)
        images = self.images[:batch]
        prompt = self.prompt.expand(batch, -1).contiguous()
        first = self.policy.first
        targets = torch.cat([torch.randint(first, first + ACTIONS, (batch, TOKENS), device=self.device),
                             torch.full((batch, 1), 2, device=self.device)], 1)

        def step():
            with torch.autocast(self.device.type, DTYPE, enabled=autocast):
                h = hidden(images.to(self.device, non_blocking=True), prompt, targets[:, :TOKENS])[:, -TOKENS - 1:]
                loss = F.cross_entropy(head(h).float().flatten(0, 1), targets.flatten())
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if not torch.isfinite(loss.detach()).item():
                raise ArithmeticError("the loss is not a number")
        return step

    def mine(self, images, prompt, tokens):
        return self.policy.run(torch.cat([self.policy.prefix(images, prompt), self.policy.model["embed_tokens"](tokens)], 1))

    def theirs(self, images, prompt, tokens):
        x = torch.cat([self.public.prefix(images, prompt), self.public.llama.get_input_embeddings()(tokens)], 1)
        return self.public.llama.model(inputs_embeds=x, use_cache=False).last_hidden_state

    def all_learns(self, how, public):
        model = self.public if public else self.policy
        if not model:
            return
        parameters = [p for p in model.parameters() if p.requires_grad]
        hidden, head = (self.theirs, self.public.llama.lm_head) if public else (self.mine, self.policy.lm_head)
        for i, batch in enumerate(self.size["train"]):
            for again in [False, True] if self.cuda else [i > 0]:           # the small one on a CPU: one of each
                model.recompute(again)
                make = lambda batch=batch: self.learns(batch, hidden, head, parameters, public)
                done = self.case("learns by adapters", "samples", how, batch, make, ", blocks computed twice" if again else "")
                for parameter in parameters:
                    parameter.grad = None
                self.settle()
                if done:
                    break


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--only", default="act,adapters,train")
    parser.add_argument("--seconds", type=float, default=150)
    parser.add_argument("--look", action="store_true")
    arguments = parser.parse_args()
    parts, device = arguments.only.split(","), torch.device(arguments.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print(f"skipped: PyTorch {torch.__version__} sees no GPU")
        sys.exit(77)
    if device.type == "cuda":
        torch.cuda.set_device(device.index or 0)
    print(f"PyTorch {torch.__version__}, {torch.cuda.get_device_name(device) if device.type == 'cuda' else 'a CPU'}", flush=True)
    if arguments.look:
        return
    warnings.filterwarnings("ignore", category=FutureWarning)          # transformers' names change
    bench = Bench(SMALL if arguments.small else BIG, device, arguments.seconds)
    try:
        bench.public = Public(bench.policy)
    except Exception as error:
        bench.failed = True
        print(f"failed: transformers: {type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}", flush=True)
    bench.settle()
    if "act" in parts:
        bench.all_acts("acts", "modules")
        bench.all_public_acts("acts")
        bench.all_acts("acts", "compiled")
    if "train" in parts or "adapters" in parts:
        bench.adapt()
        try:
            if bench.public:
                bench.public.adapt(bench.size["rank"])
        except Exception as error:
            bench.failed, bench.public = True, None
            print(f"failed: peft: {type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}", flush=True)
    if "train" in parts:
        bench.all_learns("modules", False)
        bench.all_learns("transformers", True)
        bench.all_learns("compiled", False)
    if "adapters" in parts:
        if bench.public:
            bench.public.recompute(False)
        bench.adapters_as(DTYPE)
        bench.all_acts("acts with adapters", "modules")
        bench.all_acts("acts with adapters", "compiled")
        bench.all_public_acts("acts with adapters")
    sys.stdout.flush()
    os._exit(bench.failed)              # without the minute that tearing compilers' worker processes down can take


if __name__ == "__main__":
    main()
