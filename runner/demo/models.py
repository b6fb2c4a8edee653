"""The two shapes, gpt-oss and GPT-2. `forward(ids)` gives logits in float32; `loss` is what is minimised."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention.flex_attention import AuxRequest, create_block_mask, flex_attention

from quantize import straight_through


@dataclass
class GptOssShape:
    vocabulary: int = 4096
    layers: int = 8
    hidden: int = 256
    heads: int = 8
    kv_heads: int = 2
    head_dim: int = 32
    experts: int = 8
    experts_used: int = 2
    width: int = 256  # of an expert
    window: int = 128
    context: int = 2048
    original_context: int = 512
    rope_factor: float = 4.0
    rope_theta: float = 150000.0
    epsilon: float = 1e-5

    def slides(self, layer: int) -> bool:
        return layer % 2 == 0

    def hugging_face(self) -> dict:
        """config.json."""
        rope = {
            "rope_type": "yarn",
            "rope_theta": self.rope_theta,
            "factor": self.rope_factor,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "truncate": False,
            "original_max_position_embeddings": self.original_context,
        }
        kinds = ["sliding_attention" if self.slides(i) else "full_attention" for i in range(self.layers)]
        return {
            "architectures": ["GptOssForCausalLM"],
            "model_type": "gpt_oss",
            "dtype": "bfloat16",
            "vocab_size": self.vocabulary,
            "hidden_size": self.hidden,
            "intermediate_size": self.width,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "num_local_experts": self.experts,
            "num_experts_per_tok": self.experts_used,
            "sliding_window": self.window,
            "layer_types": kinds,
            "max_position_embeddings": self.context,
            "rms_norm_eps": self.epsilon,
            "rope_parameters": rope,
            "swiglu_alpha": 1.702,
            "swiglu_limit": 7.0,
            "attention_bias": True,
            "tie_word_embeddings": False,
        }


@dataclass
class Gpt2Shape:
    vocabulary: int = 4096
    layers: int = 6
    hidden: int = 192
    heads: int = 6
    context: int = 512
    epsilon: float = 1e-5


def yarn(shape: GptOssShape) -> tuple:
    """(inverse frequencies, factor of cos and sin): YaRN by parts, the ramp's bounds not rounded."""
    d, base = shape.head_dim, shape.rope_theta

    def place(rotations):
        return d * math.log(shape.original_context / (rotations * 2 * math.pi)) / (2 * math.log(base))

    low, high = max(place(32.0), 0), min(place(1.0), d - 1)
    plain = base ** -(torch.arange(0, d, 2, dtype=torch.float64) / d)
    ramp = ((torch.arange(d // 2, dtype=torch.float64) - low) / (high - low)).clamp(0, 1)
    inverse = plain * (1 - ramp) + plain / shape.rope_factor * ramp
    return inverse.float(), 0.1 * math.log(shape.rope_factor) + 1.0


class RmsNorm(nn.Module):
    def __init__(self, size, epsilon):
        super().__init__()
        self.weight, self.epsilon = nn.Parameter(torch.ones(size)), epsilon

    def forward(self, x):
        x = x.float()
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.epsilon) * self.weight


def _init(linear: nn.Linear, gain: float = 1.0) -> nn.Linear:
    nn.init.normal_(linear.weight, std=gain / math.sqrt(linear.in_features))
    if linear.bias is not None:
        nn.init.zeros_(linear.bias)
    return linear


def _rotate(x, cos, sin):
    a, b = x.float().chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


class SinkAttention(nn.Module):
    """Grouped-query attention; one learnt logit a head joins the softmax's denominator."""

    def __init__(self, shape: GptOssShape, layer: int):
        super().__init__()
        s = self.shape = shape
        self.window = s.window if s.slides(layer) else s.context
        self.q = _init(nn.Linear(s.hidden, s.heads * s.head_dim))
        self.k = _init(nn.Linear(s.hidden, s.kv_heads * s.head_dim))
        self.v = _init(nn.Linear(s.hidden, s.kv_heads * s.head_dim))
        self.o = _init(nn.Linear(s.heads * s.head_dim, s.hidden), 1 / math.sqrt(2 * s.layers))
        self.sinks = nn.Parameter(torch.zeros(s.heads))

    def forward(self, x, cos, sin, mask):
        s, (b, t, _) = self.shape, x.shape
        q, k, v = (f(x).view(b, t, -1, s.head_dim).transpose(1, 2) for f in (self.q, self.k, self.v))
        q, k = _rotate(q, cos, sin).to(v.dtype), _rotate(k, cos, sin).to(v.dtype)
        y = self.eager(q, k, v) if mask is None else self.flex(q, k, v, mask)
        return self.o(y.transpose(1, 2).reshape(b, t, -1))

    def flex(self, q, k, v, mask):
        # softmax with the sink = softmax without it times exp(lse) / (exp(lse) + exp(sink)).
        y, aux = flex_attention(q, k, v, block_mask=mask, enable_gqa=True, return_aux=AuxRequest(lse=True))
        return y * torch.sigmoid(aux.lse - self.sinks[:, None])[..., None].to(y.dtype)

    def eager(self, q, k, v):
        groups, t = self.shape.heads // self.shape.kv_heads, q.shape[2]
        k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
        far = torch.arange(t, device=q.device)[:, None] - torch.arange(t, device=q.device)
        scores = q @ k.transpose(-1, -2) * self.shape.head_dim**-0.5
        scores = scores.float().masked_fill((far < 0) | (far >= self.window), -math.inf)
        sink = self.sinks.float()[None, :, None, None].expand(*scores.shape[:-1], 1)
        return torch.cat([scores, sink], -1).softmax(-1)[..., :-1].to(v.dtype) @ v


class Experts(nn.Module):
    """Top-k experts with clamped SwiGLU. All experts are computed and those not chosen weighted by zero: at
    this size one large product is faster than sorting the tokens."""

    def __init__(self, shape: GptOssShape):
        super().__init__()
        s = self.shape = shape
        self.router = _init(nn.Linear(s.hidden, s.experts))
        std = 1 / math.sqrt(s.hidden)
        self.gate = nn.Parameter(torch.randn(s.experts, s.width, s.hidden) * std)
        self.up = nn.Parameter(torch.randn(s.experts, s.width, s.hidden) * std)
        self.down = nn.Parameter(
            torch.randn(s.experts, s.hidden, s.width) / math.sqrt(s.width * 2 * s.layers)
        )
        self.gate_bias = nn.Parameter(torch.zeros(s.experts, s.width))
        self.up_bias = nn.Parameter(torch.zeros(s.experts, s.width))
        self.down_bias = nn.Parameter(torch.zeros(s.experts, s.hidden))

    def forward(self, x, quantised):
        s = self.shape
        gate, up, down = (straight_through(w) if quantised else w for w in (self.gate, self.up, self.down))
        with torch.autocast(x.device.type, enabled=False):
            logits = F.linear(x.float(), self.router.weight, self.router.bias)
        top, chosen = logits.topk(s.experts_used, dim=-1)
        # bf16 inputs: the products below; float32 inputs: everything in float32.
        weights = torch.zeros_like(logits).scatter(-1, chosen, top.softmax(-1))
        g = F.linear(x, gate.flatten(0, 1), self.gate_bias.flatten()).unflatten(-1, (s.experts, s.width))
        u = F.linear(x, up.flatten(0, 1), self.up_bias.flatten()).unflatten(-1, (s.experts, s.width))
        g, u = g.clamp(max=7.0), u.clamp(-7.0, 7.0)
        h = g * torch.sigmoid(1.702 * g) * (u + 1) * weights[..., None].to(g.dtype)
        y = F.linear(h.flatten(-2), down.transpose(0, 1).flatten(1)) + weights @ self.down_bias
        # Switch's loss of imbalance: 1 where every expert gets the same share.
        share = (weights > 0).float().mean((0, 1)) / s.experts_used
        balance = s.experts * (share * logits.softmax(-1).mean((0, 1))).sum()
        return y, balance


class GptOssBlock(nn.Module):
    def __init__(self, shape: GptOssShape, layer: int, dropout: float):
        super().__init__()
        self.norm1, self.norm2 = RmsNorm(shape.hidden, shape.epsilon), RmsNorm(shape.hidden, shape.epsilon)
        self.attention, self.experts = SinkAttention(shape, layer), Experts(shape)
        self.dropout = dropout

    def forward(self, x, cos, sin, mask, quantised):
        x = x + F.dropout(self.attention(self.norm1(x), cos, sin, mask), self.dropout, self.training)
        y, balance = self.experts(self.norm2(x), quantised)
        return x + F.dropout(y, self.dropout, self.training), balance


def _cross_entropy(x, head, targets):
    return F.cross_entropy(F.linear(x, head).float().flatten(0, 1), targets.flatten())


class GptOss(nn.Module):
    def __init__(self, shape: GptOssShape, dropout: float = 0.0):
        super().__init__()
        self.shape, self.dropout, self.quantised = shape, dropout, True
        self.embedding = nn.Parameter(torch.randn(shape.vocabulary, shape.hidden) * 0.5)
        self.blocks = nn.ModuleList(GptOssBlock(shape, i, dropout) for i in range(shape.layers))
        self.norm = RmsNorm(shape.hidden, shape.epsilon)
        self.head = nn.Parameter(torch.randn(shape.vocabulary, shape.hidden) * 0.02)
        inverse, self.rope_scale = yarn(shape)
        self.register_buffer("inverse", inverse, persistent=False)
        self.masks = {}
        self.run_block, self.cross_entropy = GptOssBlock.forward, _cross_entropy

    def compile(self):
        self.run_block = torch.compile(GptOssBlock.forward)
        self.cross_entropy = torch.compile(_cross_entropy)

    def _mask(self, window, t):
        if (window, t) not in self.masks:

            def visible(b, h, i, j):
                return (i >= j) & (i - j < window)

            self.masks[window, t] = create_block_mask(visible, None, None, t, t, device=self.inverse.device)
        return self.masks[window, t]

    def features(self, ids):
        t = ids.shape[1]
        angles = torch.arange(t, device=ids.device).float()[:, None] * self.inverse
        cos, sin = angles.cos() * self.rope_scale, angles.sin() * self.rope_scale
        x, balance = F.dropout(F.embedding(ids, self.embedding), self.dropout, self.training), 0.0
        flex = self.training and ids.is_cuda
        for block in self.blocks:
            mask = self._mask(block.attention.window, t) if flex else None
            run = self.run_block if self.training else GptOssBlock.forward
            x, aux = run(block, x, cos, sin, mask, self.quantised)
            balance = balance + aux / len(self.blocks)
        return self.norm(x), balance

    def forward(self, ids):
        return F.linear(self.features(ids)[0], self.head).float()

    def loss(self, ids, targets):
        x, balance = self.features(ids)
        cross_entropy = self.cross_entropy(x, self.head, targets)
        return cross_entropy + 0.01 * balance, cross_entropy

    def matrices(self):
        """The parameters that are products in the layers: the rest is optimised otherwise."""
        for block in self.blocks:
            a, e = block.attention, block.experts
            yield from (a.q.weight, a.k.weight, a.v.weight, a.o.weight, e.gate, e.up, e.down)


class Gpt2Block(nn.Module):
    def __init__(self, shape: Gpt2Shape, dropout: float):
        super().__init__()
        s, small = shape, 1 / math.sqrt(2 * shape.layers)
        self.heads, self.dropout = s.heads, dropout
        self.norm1, self.norm2 = nn.LayerNorm(s.hidden, s.epsilon), nn.LayerNorm(s.hidden, s.epsilon)
        self.qkv, self.o = _init(nn.Linear(s.hidden, 3 * s.hidden)), _init(
            nn.Linear(s.hidden, s.hidden), small
        )
        self.up = _init(nn.Linear(s.hidden, 4 * s.hidden))
        self.down = _init(nn.Linear(4 * s.hidden, s.hidden), small)

    def forward(self, x):
        b, t, d = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(b, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(b, t, d)
        x = x + F.dropout(self.o(y), self.dropout, self.training)
        y = self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))
        return x + F.dropout(y, self.dropout, self.training)


class Gpt2(nn.Module):
    def __init__(self, shape: Gpt2Shape, dropout: float = 0.0):
        super().__init__()
        self.shape, self.dropout = shape, dropout
        self.embedding = nn.Parameter(torch.randn(shape.vocabulary, shape.hidden) * 0.05)
        self.positions = nn.Parameter(torch.randn(shape.context, shape.hidden) * 0.02)
        self.blocks = nn.ModuleList(Gpt2Block(shape, dropout) for _ in range(shape.layers))
        self.norm = nn.LayerNorm(shape.hidden, shape.epsilon)
        self.run_block, self.cross_entropy = Gpt2Block.forward, _cross_entropy

    def compile(self):
        self.run_block = torch.compile(Gpt2Block.forward)
        self.cross_entropy = torch.compile(_cross_entropy)

    def features(self, ids):
        x = F.embedding(ids, self.embedding) + self.positions[: ids.shape[1]]
        x = F.dropout(x, self.dropout, self.training)
        for block in self.blocks:
            x = self.run_block(block, x) if self.training else block(x)
        return self.norm(x)

    def forward(self, ids):
        return F.linear(self.features(ids), self.embedding).float()

    def loss(self, ids, targets):
        cross_entropy = self.cross_entropy(self.features(ids), self.embedding, targets)
        return cross_entropy, cross_entropy

    def matrices(self):
        for block in self.blocks:
            yield from (layer.weight for layer in (block.qkv, block.o, block.up, block.down))
