#!/usr/bin/env python3
"""make_nano_qwen.py OUT - a Qwen2.5-VL directory of 60 thousand random parameters, for tests (tests/golden/nano_qwen).

Needs nothing but Python: the numbers are drawn by `random`, the safetensors file is written by hand. The shapes are awkward on
purpose: grouped queries, windows smaller than a picture, a vocabulary larger than the tokenizer's. No reference numbers belong to it;
those are the shared golden sets', made by the original code.
"""
import json
import math
import random
import struct
import sys
from pathlib import Path

OUT = Path(sys.argv[1])
rnd = random.Random(5)
DIM, VHEADS, DEPTH, VMLP = 16, 2, 2, 24
HIDDEN, HEADS, KV, LAYERS, MLP, VOCAB = 16, 2, 1, 2, 24, 288
PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
           r"|\s*[\r\n]+|\s+(?!\S)|\s+")


def tokenizer():
    own = [*range(33, 127), *range(161, 173), *range(174, 256)]
    other = [b for b in range(256) if b not in own]
    character = {b: chr(b) for b in own} | {b: chr(256 + i) for i, b in enumerate(other)}
    vocab = {character[b]: b for b in range(256)}
    merges = ["Y e", "Ye s", "N o", "t h", "th e", "\u0120 the"]
    for merge in merges:
        vocab[merge.replace(" ", "")] = len(vocab)
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>",
                "<|video_pad|>"]
    ids = {s: len(vocab) + i for i, s in enumerate(specials)}
    added = [{"id": i, "content": s, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
             for s, i in ids.items()]
    return ids, {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": {"type": "NFC"},
                 "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
                     {"type": "Split", "pattern": {"Regex": PATTERN}, "behavior": "Isolated", "invert": False},
                     {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}]},
                 "post_processor": None, "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
                 "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
                           "fuse_unk": False, "byte_fallback": False, "ignore_merges": False, "vocab": vocab, "merges": merges}}


def tensors():
    linear = lambda o, i: ([o, i], 1 / math.sqrt(i))
    t = {"visual.patch_embed.proj.weight": ([DIM, 3, 2, 14, 14], 1 / math.sqrt(3 * 2 * 14 * 14))}
    for i in range(DEPTH):
        b = f"visual.blocks.{i}."
        t |= {b + "norm1.weight": ([DIM], None), b + "attn.qkv.weight": linear(3 * DIM, DIM), b + "attn.qkv.bias": ([3 * DIM], .2),
              b + "attn.proj.weight": linear(DIM, DIM), b + "attn.proj.bias": ([DIM], .2), b + "norm2.weight": ([DIM], None)}
        for n, o, k in (("gate_proj", VMLP, DIM), ("up_proj", VMLP, DIM), ("down_proj", DIM, VMLP)):
            t |= {f"{b}mlp.{n}.weight": linear(o, k), f"{b}mlp.{n}.bias": ([o], .2)}
    t |= {"visual.merger.ln_q.weight": ([DIM], None), "visual.merger.mlp.0.weight": linear(4 * DIM, 4 * DIM),
          "visual.merger.mlp.0.bias": ([4 * DIM], .2), "visual.merger.mlp.2.weight": linear(HIDDEN, 4 * DIM),
          "visual.merger.mlp.2.bias": ([HIDDEN], .2), "model.embed_tokens.weight": ([VOCAB, HIDDEN], .3), "model.norm.weight": ([HIDDEN], None)}
    width = HIDDEN // HEADS * KV
    for i in range(LAYERS):
        l = f"model.layers.{i}."
        t |= {l + "input_layernorm.weight": ([HIDDEN], None), l + "post_attention_layernorm.weight": ([HIDDEN], None)}
        for n, o in (("q", HIDDEN), ("k", width), ("v", width)):
            t |= {f"{l}self_attn.{n}_proj.weight": linear(o, HIDDEN), f"{l}self_attn.{n}_proj.bias": ([o], .2)}
        t |= {l + "self_attn.o_proj.weight": linear(HIDDEN, HIDDEN), l + "mlp.gate_proj.weight": linear(MLP, HIDDEN),
              l + "mlp.up_proj.weight": linear(MLP, HIDDEN), l + "mlp.down_proj.weight": linear(HIDDEN, MLP)}
    return t


def bf16(x):
    bits = struct.unpack("<I", struct.pack("<f", x))[0]
    return struct.pack("<H", (bits + 0x7fff + (bits >> 16 & 1)) >> 16)


def write_safetensors(path, table):
    header, data = {"__metadata__": {"format": "pt"}}, bytearray()
    for name, (shape, scale) in sorted(table.items()):
        begin = len(data)
        for _ in range(math.prod(shape)):
            data += bf16(1 + rnd.gauss(0, .15) if scale is None else rnd.gauss(0, scale))
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, len(data)]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    ids, tok = tokenizer()
    config = {
        "architectures": ["Qwen2_5_VLForConditionalGeneration"], "model_type": "qwen2_5_vl", "hidden_act": "silu", "hidden_size": HIDDEN,
        "intermediate_size": MLP, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "num_key_value_heads": KV, "vocab_size": VOCAB,
        "max_position_embeddings": 2048, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "tie_word_embeddings": True,
        "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]}, "use_sliding_window": False, "torch_dtype": "bfloat16",
        "bos_token_id": ids["<|endoftext|>"], "eos_token_id": ids["<|im_end|>"], "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"], "vision_token_id": ids["<|vision_pad|>"], "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "vision_config": {"depth": DEPTH, "hidden_size": DIM, "num_heads": VHEADS, "intermediate_size": VMLP, "out_hidden_size": HIDDEN,
                          "fullatt_block_indexes": [1], "window_size": 56, "hidden_act": "silu", "patch_size": 14, "spatial_merge_size": 2,
                          "temporal_patch_size": 2, "in_chans": 3}}
    preprocessor = {"min_pixels": 3136, "max_pixels": 12544, "patch_size": 14, "temporal_patch_size": 2, "merge_size": 2,
                    "image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711],
                    "image_processor_type": "Qwen2VLImageProcessor"}
    for name, value in (("config.json", config), ("preprocessor_config.json", preprocessor), ("tokenizer.json", tok)):
        (OUT / name).write_text(json.dumps(value, ensure_ascii=False, indent=1 if name != "tokenizer.json" else None) + "\n")
    write_safetensors(OUT / "model.safetensors", tensors())


main()
