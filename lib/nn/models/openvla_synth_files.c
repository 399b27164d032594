/* openvla_synth_files.c - configuration, processor and tokenizer of a checkpoint that never was. */
#include <errno.h>
#include <stdio.h>

#include "base/atomic_file.h"
#include "base/json_write.h"
#include "nn/models/openvla_synth.h"

enum { PADDING = 64 };
#define BLANK "\xe2\x96\x81"                         /* U+2581, the tokenizer's blank */

/* Pieces that make a prompt about as long as it is with the real vocabulary. A piece is reached by one merge after the other,
 * character by character. */
static const char *const words[] = {
    BLANK "In", BLANK "What", BLANK "action", BLANK "should", BLANK "the", BLANK "robot", BLANK "take", BLANK "to", BLANK "pick",
    BLANK "up", BLANK "put", BLANK "open", BLANK "on", BLANK "in", BLANK "and", BLANK "red", BLANK "black", BLANK "bowl",
    BLANK "plate", BLANK "drawer", BLANK "block", "Out",
};

static int write_file(const char *dir, const char *name, struct strbuf *text, struct error *error)
{
    _cleanup_(strbuf_release) struct strbuf path = STRBUF_INIT;
    int r;

    strbuf_addf(&path, "%s/%s", dir, name);
    strbuf_addc(text, '\n');
    r = text->failed || path.failed ? -ENOMEM : atomic_file_write(path.text, text->text, text->length);
    strbuf_reset(text);
    return r < 0 ? error_set(error, -r, "%s: %s", path.text, strerror(-r)) : 0;
}

static int write_config(const struct openvla_size *s, const char *dir, enum dtype dtype, struct error *error)
{
    _cleanup_(strbuf_release) struct strbuf out = STRBUF_INIT;

    strbuf_addf(&out,
        "{\n  \"arch_specifier\": \"no-align+fused-gelu-mlp\",\n  \"architectures\": [\"OpenVLAForActionPrediction\"],\n"
        "  \"gantry_empty_token_id\": %d,\n  \"gantry_vision\": {\"towers\": [\n", s->empty_id);
    for (int i = 0; i < 2; i++)
        strbuf_addf(
            &out, "    {\"dim\": %d, \"depth\": %d, \"heads\": %d, \"mlp\": %d, \"patch\": %d, \"prefix_tokens\": %d}%s\n",
            s->tower[i].dim, s->tower[i].depth, s->tower[i].heads, s->tower[i].mlp, s->patch, s->tower[i].prefix, i ? "" : ",");
    strbuf_addf(&out,
        "  ]},\n  \"hf_llm_id\": \"meta-llama/Llama-2-7b-hf\",\n  \"image_resize_strategy\": \"resize-naive\",\n"
        "  \"image_sizes\": [%d, %d],\n  \"llm_backbone_id\": \"llama2-7b-pure\",\n  \"llm_max_length\": 2048,\n"
        "  \"model_type\": \"openvla\",\n  \"n_action_bins\": 256,\n  \"norm_stats\": {\"synth\": {\"action\": {\n"
        "    \"mask\": [true, true, true, true, true, true, false],\n    \"q01\": [-1, -1, -1, -1, -1, -1, 0],\n"
        "    \"q99\": [1, 1, 1, 1, 1, 1, 1]\n  }}},\n  \"output_projector_states\": false,\n  \"pad_to_multiple_of\": %d,\n"
        "  \"pad_token_id\": %d,\n", s->image, s->image, PADDING, s->vocab);
    strbuf_addf(&out,
        "  \"text_config\": {\"hidden_size\": %d, \"intermediate_size\": %d, \"model_type\": \"llama\",\n"
        "    \"num_attention_heads\": %d, \"num_hidden_layers\": %d, \"num_key_value_heads\": %d, \"pad_token_id\": %d,\n"
        "    \"torch_dtype\": \"%s\", \"vocab_size\": %d},\n", s->hidden, s->intermediate, s->heads, s->layers, s->heads,
        s->vocab, dtype_torch_name(dtype), s->vocab + PADDING);
    strbuf_addf(&out,
        "  \"timm_model_ids\": [\"vit_large_patch14_reg4_dinov2.lvd142m\", \"vit_so400m_patch14_siglip_224\"],\n"
        "  \"timm_override_act_layers\": [null, null],\n  \"torch_dtype\": \"%s\",\n  \"transformers_version\": \"4.40.1\",\n"
        "  \"use_fused_vision_backbone\": true,\n  \"vision_backbone_id\": \"dinosiglip-vit-so-224px\"\n}",
        dtype_torch_name(dtype));
    return write_file(dir, "config.json", &out, error);
}

/* The statistics as the original processor writes them: exact in means and stds, rounded to bf16 in what it uses. */
static int write_processor(const struct openvla_size *s, const char *dir, struct error *error)
{
    _cleanup_(strbuf_release) struct strbuf out = STRBUF_INIT;
    int r;

    strbuf_addf(&out,
        "{\n  \"image_processor_type\": \"PrismaticImageProcessor\",\n  \"image_resize_strategy\": \"resize-naive\",\n"
        "  \"input_sizes\": [[3, %d, %d], [3, %d, %d]],\n  \"interpolations\": [\"bicubic\", \"bicubic\"],\n"
        "  \"means\": [[0.485, 0.456, 0.406], [0.5, 0.5, 0.5]],\n  \"processor_class\": \"PrismaticProcessor\",\n"
        "  \"stds\": [[0.229, 0.224, 0.225], [0.5, 0.5, 0.5]],\n", s->image, s->image, s->image, s->image);
    strbuf_addf(
        &out,
        "  \"tvf_crop_params\": [{\"output_size\": [%d, %d]}, {\"output_size\": [%d, %d]}],\n  \"tvf_do_letterbox\": false,\n"
        "  \"tvf_letterbox_fill\": null,\n  \"tvf_normalize_params\": [\n"
        "    {\"inplace\": false, \"mean\": [0.484375, 0.455078125, 0.40625], \"std\": [0.228515625, 0.2236328125, "
        "0.224609375]},\n"
        "    {\"inplace\": false, \"mean\": [0.5, 0.5, 0.5], \"std\": [0.5, 0.5, 0.5]}\n  ],\n  \"tvf_resize_params\": [\n",
        s->image, s->image, s->image, s->image);
    for (int i = 0; i < 2; i++)
        strbuf_addf(&out, "    {\"antialias\": true, \"interpolation\": 3, \"max_size\": null, \"size\": [%d, %d]}%s\n", s->image,
                    s->image, i ? "" : ",");
    strbuf_adds(&out, "  ],\n  \"use_fused_vision_backbone\": true\n}");
    r = write_file(dir, "preprocessor_config.json", &out, error);
    if (r < 0)
        return r;
    strbuf_adds(&out, "{\"processor_class\": \"PrismaticProcessor\"}");
    r = write_file(dir, "processor_config.json", &out, error);
    if (r < 0)
        return r;
    strbuf_addf(&out, "{\"bos_token_id\": 1, \"eos_token_id\": 2, \"pad_token_id\": %d, \"transformers_version\": \"4.40.1\"}",
                s->vocab);
    return write_file(dir, "generation_config.json", &out, error);
}

/* ---- tokenizer --------------------------------------------------------------------------------------------- */

/* Bytes of the UTF-8 character at `text`. */
static size_t character(const char *text)
{
    unsigned char c = (unsigned char)*text;

    return c < 0x80 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
}

/* Under the next id. The lone blank, which is there already with an id further on, does not count. */
static void add_piece(json_t *vocab, const char *text, size_t n)
{
    json_int_t id = (json_int_t)json_object_size(vocab) - 1;
    char piece[64];

    snprintf(piece, sizeof(piece), "%.*s", (int)n, text);
    if (!json_object_get(vocab, piece))
        json_object_set_new(vocab, piece, json_integer(id));
}

static void add_word(json_t *vocab, json_t *merges, const char *word)
{
    size_t n = strlen(word);

    for (size_t at = 0; at < n; at += character(word + at))
        add_piece(vocab, word + at, character(word + at));
    for (size_t at = character(word), step; at < n; at += step) {
        char merge[96];

        step = character(word + at);
        snprintf(merge, sizeof(merge), "%.*s %.*s", (int)at, word, (int)step, word + at);
        add_piece(vocab, word, at + step);
        json_array_append_new(merges, json_string(merge));
    }
}

static json_t *make_model(const struct openvla_size *s)
{
    json_t *vocab = json_object(), *merges = json_array();
    char piece[32];

    json_object_set_new(vocab, "<unk>", json_integer(0));
    json_object_set_new(vocab, "<s>", json_integer(1));
    json_object_set_new(vocab, "</s>", json_integer(2));
    for (int i = 0; i < 256; i++) {
        snprintf(piece, sizeof(piece), "<0x%02X>", (unsigned)i);
        json_object_set_new(vocab, piece, json_integer(3 + i));
    }
    json_object_set_new(vocab, BLANK, json_integer(s->empty_id));
    for (size_t i = 0; i < ARRAY_SIZE(words); i++)
        add_word(vocab, merges, words[i]);
    for (int id = (int)json_object_size(vocab) - 1; id < s->vocab; id++) {
        if (id == s->empty_id)
            continue;
        snprintf(piece, sizeof(piece), "<filler_%d>", id);
        json_object_set_new(vocab, piece, json_integer(id));
    }
    return json_pack("{s:s,s:n,s:s,s:n,s:n,s:b,s:b,s:o,s:o}", "type", "BPE", "dropout", "unk_token", "<unk>",
                     "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", 1, "byte_fallback", 1, "vocab", vocab,
                     "merges", merges);
}

static json_t *special(int id, const char *text)
{
    return json_pack("{s:i,s:s,s:b,s:b,s:b,s:b,s:b}", "id", id, "content", text, "single_word", 0, "lstrip", 0, "rstrip", 0,
                     "normalized", 0, "special", 1);
}

static int write_tokenizer(const struct openvla_size *s, const char *dir, struct error *error)
{
    static const char rest[] =
        "{\"version\": \"1.0\", \"truncation\": null, \"padding\": null, \"pre_tokenizer\": null,"
        "\"normalizer\": {\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"Prepend\", \"prepend\": \"" BLANK "\"},"
        "  {\"type\": \"Replace\", \"pattern\": {\"String\": \" \"}, \"content\": \"" BLANK "\"}]},"
        "\"post_processor\": {\"type\": \"TemplateProcessing\", \"single\": [{\"SpecialToken\": {\"id\": \"<s>\", \"type_id\": "
        "0}},"
        "  {\"Sequence\": {\"id\": \"A\", \"type_id\": 0}}], \"pair\": [{\"Sequence\": {\"id\": \"A\", \"type_id\": 0}},"
        "  {\"Sequence\": {\"id\": \"B\", \"type_id\": 1}}],"
        "  \"special_tokens\": {\"<s>\": {\"id\": \"<s>\", \"ids\": [1], \"tokens\": [\"<s>\"]}}},"
        "\"decoder\": {\"type\": \"Sequence\", \"decoders\": [{\"type\": \"Replace\", \"pattern\": {\"String\": \"" BLANK "\"},"
        "  \"content\": \" \"}, {\"type\": \"ByteFallback\"}, {\"type\": \"Fuse\"},"
        "  {\"type\": \"Strip\", \"content\": \" \", \"start\": 1, \"stop\": 0}]}}";
    _cleanup_json_ json_t *root = json_loads(rest, 0, NULL);
    _cleanup_free_ char *text = NULL;
    _cleanup_(strbuf_release) struct strbuf out = STRBUF_INIT;
    int r;

    json_object_set_new(root, "added_tokens", json_pack("[o,o,o,o]", special(0, "<unk>"), special(1, "<s>"), special(2, "</s>"),
                                                        special(s->vocab, "<PAD>")));
    json_object_set_new(root, "model", make_model(s));
    text = json_dumps(root, JSON_INDENT(1));
    if (!text)
        return error_set(error, ENOMEM, "out of memory");
    strbuf_adds(&out, text);
    r = write_file(dir, "tokenizer.json", &out, error);
    if (r < 0)
        return r;
    strbuf_addf(&out, "{\"add_bos_token\": true, \"add_eos_token\": false, \"bos_token\": \"<s>\", \"eos_token\": \"</s>\", "
                      "\"unk_token\": \"<unk>\","
                      " \"pad_token\": \"<PAD>\",\n \"model_max_length\": 2048, \"padding_side\": \"right\", "
                      "\"processor_class\": \"PrismaticProcessor\","
                      " \"tokenizer_class\": \"LlamaTokenizer\"}");
    r = write_file(dir, "tokenizer_config.json", &out, error);
    if (r < 0)
        return r;
    strbuf_addf(&out, "{\"bos_token\": \"<s>\", \"eos_token\": \"</s>\", \"pad_token\": \"<PAD>\", \"unk_token\": \"<unk>\"}");
    r = write_file(dir, "special_tokens_map.json", &out, error);
    if (r < 0)
        return r;
    strbuf_addf(&out, "{\"<PAD>\": %d}", s->vocab);
    return write_file(dir, "added_tokens.json", &out, error);
}

int openvla_synth_files(const struct openvla_size *size, const char *dir, enum dtype dtype, struct error *error)
{
    int r = write_config(size, dir, dtype, error);

    if (r >= 0)
        r = write_processor(size, dir, error);
    return r < 0 ? r : write_tokenizer(size, dir, error);
}
