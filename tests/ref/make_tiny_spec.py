#!/usr/bin/env python3
"""Writes models/tiny-spec: everything of the built-in tiny policy but its weights (`gantry model new` makes those).

    tests/ref/make_tiny_spec.py models/tiny-spec

The tokenizer has the structure of Llama's (BPE, byte fallback, no pre-tokenizer) and few ids, so that a prompt is nine tokens:
every word below is one piece, grown letter by letter from its leading U+2581; the words in front of the instruction then merge
into one piece, and so does "?\\nOut:". Pieces that only occur on the way take the last 256 ids: as in OpenVLA, the least used
pieces are the ones whose ids mean actions.
"""
import json
import os
import sys

MARK = "\u2581"
HEAD = "In: What action should the robot take to".split(" ")
TAIL = "?\nOut:"
WORDS = """pick up lift grasp the red green blue yellow block open pull out drawer push slide to target disc onto stack on top of and
put place one another cube move close press button turn it in left right plate bowl a with gripper""".split()
CHARACTERS = MARK + "abcdefghijklmnopqrstuvwxyz" + "IWO" + "0123456789" + "?:\n,.'-"
SIZE, ACTIONS = 640, 256


def tokenizer():
    kept, passing, merges = list(CHARACTERS), [], []

    def grow(piece, steps, final):
        """Merge `piece` with each step in turn; only `final` pieces earn a low id."""
        for i, step in enumerate(steps):
            merge = (piece, step)
            piece += step
            if merge not in merges:
                merges.append(merge)
                passing.append(piece)
        if final and piece in passing:
            passing.remove(piece)
            kept.append(piece)
        return piece

    for word in HEAD + WORDS:
        grow(MARK, word, True)
    grow(MARK + HEAD[0], [MARK + word for word in HEAD[1:]], True)
    grow(TAIL[0], TAIL[1:], True)

    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2}
    for byte in range(256):
        vocab[f"<0x{byte:02X}>"] = len(vocab)
    assert len(passing) <= ACTIONS, len(passing)
    room = SIZE - ACTIONS - len(vocab)
    assert len(kept) <= room, (len(kept), room)
    kept += [f"<spare_{i}>" for i in range(room - len(kept))]
    passing += [f"<action_{i}>" for i in range(ACTIONS - len(passing))]
    for piece in kept + passing:
        assert piece not in vocab, piece
        vocab[piece] = len(vocab)
    assert len(vocab) == SIZE
    special = [("<unk>", 0), ("<s>", 1), ("</s>", 2), ("<PAD>", SIZE)]
    flags = dict(single_word=False, lstrip=False, rstrip=False, normalized=False)
    bos = {"SpecialToken": {"id": "<s>", "type_id": 0}}
    return vocab, {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [dict(id=i, content=text, **flags, special=True) for text, i in special],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": MARK}, {"type": "Replace", "pattern": {"String": " "}, "content": MARK}]},
        "pre_tokenizer": None,
        "post_processor": {
            "type": "TemplateProcessing", "single": [bos, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [bos, {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "<s>", "type_id": 1}},
                     {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": MARK}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None, "end_of_word_suffix": None,
                  "fuse_unk": True, "byte_fallback": True, "vocab": vocab, "merges": [f"{a} {b}" for a, b in merges]},
    }


def main(out):
    vocab, tokenizer_json = tokenizer()
    side, dims = 64, 7
    token = dict(lstrip=False, normalized=False, rstrip=False, single_word=False)
    stats = {"tabletop": {"action": {
        "mask": [True] * (dims - 1) + [False], "q01": [-1.0] * dims, "q99": [1.0] * dims, "min": [-1.0] * dims, "max": [1.0] * dims,
        "mean": [0.0] * dims, "std": [1.0] * dims}, "num_transitions": 0, "num_trajectories": 0}}
    files = {
        "config.json": {
            "architectures": ["OpenVLAForActionPrediction"], "model_type": "openvla", "arch_specifier": "no-align+fused-gelu-mlp",
            "vision_backbone_id": "dinosiglip-vit-so-224px", "llm_backbone_id": "llama2-7b-pure", "hf_llm_id": "meta-llama/Llama-2-7b-hf",
            "image_resize_strategy": "resize-naive", "image_sizes": [side, side],
            "timm_model_ids": ["vit_large_patch14_reg4_dinov2.lvd142m", "vit_so400m_patch14_siglip_224"],
            "timm_override_act_layers": [None, None], "use_fused_vision_backbone": True, "llm_max_length": 2048,
            "n_action_bins": 256, "output_projector_states": False, "pad_token_id": SIZE, "pad_to_multiple_of": 64,
            "norm_stats": stats, "torch_dtype": "float32", "transformers_version": "4.40.1",
            "text_config": {"model_type": "llama", "hidden_size": 128, "intermediate_size": 336, "num_hidden_layers": 4,
                            "num_attention_heads": 4, "num_key_value_heads": 4, "pad_token_id": SIZE, "torch_dtype": "float32",
                            "vocab_size": SIZE + 64},
            "gantry_empty_token_id": vocab[MARK],
            "gantry_vision": {"towers": [dict(dim=64, depth=3, heads=4, mlp=192, patch=16, prefix_tokens=5),
                                         dict(dim=64, depth=3, heads=4, mlp=192, patch=16, prefix_tokens=0)]},
        },
        "generation_config.json": {"_from_model_config": True, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": SIZE,
                                   "transformers_version": "4.40.1"},
        "preprocessor_config.json": {
            "image_processor_type": "PrismaticImageProcessor", "processor_class": "PrismaticProcessor",
            "image_resize_strategy": "resize-naive", "input_sizes": [[3, side, side]] * 2, "interpolations": ["bicubic"] * 2,
            "means": [[0.485, 0.456, 0.406], [0.5, 0.5, 0.5]], "stds": [[0.229, 0.224, 0.225], [0.5, 0.5, 0.5]],
            "tvf_crop_params": [{"output_size": [side, side]}] * 2, "tvf_do_letterbox": False, "tvf_letterbox_fill": None,
            "tvf_normalize_params": [
                {"inplace": False, "mean": [0.484375, 0.455078125, 0.40625], "std": [0.228515625, 0.2236328125, 0.224609375]},
                {"inplace": False, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}],
            "tvf_resize_params": [{"antialias": True, "interpolation": 3, "max_size": None, "size": [side, side]}] * 2,
            "use_fused_vision_backbone": True},
        "processor_config.json": {"processor_class": "PrismaticProcessor"},
        "tokenizer.json": tokenizer_json,
        "tokenizer_config.json": {
            "add_bos_token": True, "add_eos_token": False, "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>",
            "pad_token": "<PAD>", "padding_side": "right", "legacy": False, "clean_up_tokenization_spaces": False,
            "model_max_length": 2048, "processor_class": "PrismaticProcessor", "sp_model_kwargs": {}, "tokenizer_class": "LlamaTokenizer",
            "use_default_system_prompt": False,
            "added_tokens_decoder": {str(i): dict(content=text, **token, special=True)
                                     for text, i in (("<unk>", 0), ("<s>", 1), ("</s>", 2), ("<PAD>", SIZE))}},
        "special_tokens_map.json": {name: dict(content=text, **token) for name, text in
                                    (("bos_token", "<s>"), ("eos_token", "</s>"), ("pad_token", "<PAD>"), ("unk_token", "<unk>"))},
        "added_tokens.json": {"<PAD>": SIZE},
        "dataset_statistics.json": stats,
    }
    os.makedirs(out, exist_ok=True)
    for name, content in files.items():
        with open(os.path.join(out, name), "w", encoding="utf-8") as f:
            json.dump(content, f, indent=1 if name == "tokenizer.json" else 2, ensure_ascii=name != "tokenizer.json")
            f.write("\n")


main(sys.argv[1])
