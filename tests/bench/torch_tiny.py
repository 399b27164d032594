"""The built-in tiny policy in plain PyTorch: the other side of gantry's speed comparisons.

Same dims and structure as models/tiny (dual ViT with registers and LayerScale -> projector -> Llama -> action tokens), batched,
KV-cached, torch.inference_mode for acting; random weights, since speed does not depend on them. Written as a practised PyTorch
user would: scaled_dot_product_attention, one head of 256 rows, vision features computed once per act. Only the benches use it.
"""
import torch
import torch.nn.functional as F
from torch import nn

HIDDEN, LAYERS, HEADS, FF, ACTIONS, K = 128, 4, 4, 336, 256, 7
DIM, BLOCKS, VIT_HEADS, MLP, PATCH, IMAGE = 64, 2, 4, 192, 16, 64


class Block(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.n1, self.n2 = nn.LayerNorm(DIM, 1e-6), nn.LayerNorm(DIM, 1e-6)
        self.qkv, self.proj = nn.Linear(DIM, 3 * DIM), nn.Linear(DIM, DIM)
        self.fc1, self.fc2 = nn.Linear(DIM, MLP), nn.Linear(MLP, DIM)
        self.g1 = nn.Parameter(torch.ones(DIM)) if scale else 1.0
        self.g2 = nn.Parameter(torch.ones(DIM)) if scale else 1.0

    def forward(self, x):
        b, s, _ = x.shape
        q, k, v = self.qkv(self.n1(x)).view(b, s, 3, VIT_HEADS, -1).permute(2, 0, 3, 1, 4)
        a = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, s, DIM)
        x = x + self.g1 * self.proj(a)
        return x + self.g2 * self.fc2(F.gelu(self.fc1(self.n2(x))))


class Tower(nn.Module):
    def __init__(self, registers):
        super().__init__()
        self.patch = nn.Conv2d(3, DIM, PATCH, PATCH)
        self.pos = nn.Parameter(torch.randn(1, (IMAGE // PATCH) ** 2, DIM) * .06)
        self.prefix = nn.Parameter(torch.randn(1, registers, DIM)) if registers else None
        self.blocks = nn.ModuleList(Block(registers > 0) for _ in range(BLOCKS))

    def forward(self, pixels):
        x = self.patch(pixels).flatten(2).transpose(1, 2) + self.pos
        n = 0
        if self.prefix is not None:
            n = self.prefix.shape[1]
            x = torch.cat([self.prefix.expand(len(x), -1, -1), x], 1)
        for block in self.blocks:
            x = block(x)
        return x[:, n:]


class RMSNorm(nn.Module):
    def __init__(self, dim=HIDDEN):
        super().__init__()
        self.w = nn.Parameter(torch.ones(dim))

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.w


def rope_tables(n):
    inv = 10000 ** (-torch.arange(0, HIDDEN // HEADS, 2) / (HIDDEN // HEADS))
    angle = torch.arange(n)[:, None] * inv
    return torch.cat([angle, angle], -1).cos(), torch.cat([angle, angle], -1).sin()


def rotate(x, cos, sin):
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat([-b, a], -1) * sin


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.n1, self.n2 = RMSNorm(), RMSNorm()
        self.q, self.k, self.v, self.o = (nn.Linear(HIDDEN, HIDDEN, bias=False) for _ in range(4))
        self.gate, self.up = nn.Linear(HIDDEN, FF, bias=False), nn.Linear(HIDDEN, FF, bias=False)
        self.down = nn.Linear(FF, HIDDEN, bias=False)

    def forward(self, x, cos, sin, cache=None):
        b, s, _ = x.shape
        h = self.n1(x)
        q, k, v = (m(h).view(b, s, HEADS, -1).transpose(1, 2) for m in (self.q, self.k, self.v))
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        mask, causal = None, True
        if cache is not None:
            if cache:
                if s > 1:       # several rows behind those of the cache
                    mask = torch.ones(s, cache[0].shape[2] + s, dtype=torch.bool).tril(cache[0].shape[2])
                k, v, causal = torch.cat([cache[0], k], 2), torch.cat([cache[1], v], 2), False
            cache[:] = [k, v]
        a = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
        x = x + self.o(a.transpose(1, 2).reshape(b, s, HIDDEN))
        h = self.n2(x)
        return x + self.down(F.silu(self.gate(h)) * self.up(h))


class Tiny(nn.Module):
    def __init__(self, vocabulary=704):
        super().__init__()
        self.towers = nn.ModuleList([Tower(5), Tower(0)])
        self.projector = nn.Sequential(nn.Linear(2 * DIM, 512), nn.GELU(), nn.Linear(512, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, HIDDEN))
        self.embed = nn.Embedding(vocabulary, HIDDEN)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.norm = RMSNorm()
        self.head = nn.Linear(HIDDEN, ACTIONS, bias=False)
        self.value = nn.Sequential(nn.Linear(HIDDEN + 2, 256), nn.ReLU(), nn.Linear(256, 1))
        self.first = vocabulary - 64 - ACTIONS
        cos, sin = rope_tables(128)
        self.register_buffer("cos", cos)
        self.register_buffer("sin", sin)
        mean = torch.tensor([.485, .456, .406, .5, .5, .5]).view(1, 6, 1, 1)
        std = torch.tensor([.229, .224, .225, .5, .5, .5]).view(1, 6, 1, 1)
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def see(self, images):                              # (B,H,W,3) u8 -> (B,P,HIDDEN)
        x = images.permute(0, 3, 1, 2).float() / 255
        x = (torch.cat([x, x], 1) - self.mean) / self.std
        return self.projector(torch.cat([self.towers[0](x[:, :3]), self.towers[1](x[:, 3:])], -1))

    def prefix(self, images, prompt):                   # prompt (B,L)
        text = self.embed(prompt)
        return torch.cat([text[:, :1], self.see(images), text[:, 1:]], 1)

    def run(self, x, start=0, caches=None):
        cos, sin = self.cos[start:start + x.shape[1]], self.sin[start:start + x.shape[1]]
        for i, layer in enumerate(self.layers):
            x = layer(x, cos, sin, None if caches is None else caches[i])
        return self.norm(x)

    @torch.inference_mode()
    def act(self, images, prompt, temperature=1.0):
        caches = [[] for _ in self.layers]
        x = self.prefix(images, prompt)
        at, tokens, logps = x.shape[1], [], []
        h = self.run(x, 0, caches)[:, -1]
        value = self.value(torch.cat([h, h.new_zeros(len(h), 2)], -1))
        for k in range(K):
            logp = F.log_softmax(self.head(h) / temperature, -1)
            token = torch.multinomial(logp.exp(), 1)
            tokens.append(token)
            logps.append(logp.gather(1, token))
            if k + 1 < K:
                h = self.run(self.embed(token + self.first), at + k, caches)[:, -1]
        return torch.cat(tokens, 1), torch.cat(logps, 1), value

    @torch.inference_mode()
    def begin(self, images, prompt):
        """Keys and values of <s> and the first picture of each episode: computed once, as gantry's reward model does."""
        caches = [[] for _ in self.layers]
        self.run(torch.cat([self.embed(prompt[:, :1]), self.see(images)], 1), 0, caches)
        return caches

    @torch.inference_mode()
    def score(self, caches, which, images, prompt):
        """(B,) progress of current pictures behind the beginnings of the episodes `which`."""
        mine = [[k[which], v[which]] for k, v in caches]
        x = torch.cat([self.see(images), self.embed(prompt[:, 1:])], 1)
        return torch.sigmoid(self.head(self.run(x, caches[0][0].shape[2], mine)[:, -1])[:, 0])

    def log_probs(self, images, prompt, tokens, extra):
        """Teacher-forced: (B,K,256) log-probabilities and (B,) values."""
        x = torch.cat([self.prefix(images, prompt), self.embed(tokens[:, :-1] + self.first)], 1)
        h = self.run(x)[:, -K:]
        value = self.value(torch.cat([h[:, 0].detach(), extra], -1))[:, 0]
        return F.log_softmax(self.head(h), -1), value
