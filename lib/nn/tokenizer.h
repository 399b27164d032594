/* tokenizer.h - text to ids and back, as the tokenizer files of Llama and Qwen say.
 *
 * Two forms, one interface:
 *   Llama  BPE with byte fallback, merges may span words; from tokenizer.json (normalizer "prepend U+2581, replace blanks by it",
 *          no pre-tokenizer) or from tokenizer.model (SentencePiece BPE, identity normalisation, dummy prefix)
 *   Qwen   byte-level BPE after NFC and the Qwen2 split pattern; from tokenizer.json
 * Any other form is refused at load, never approximated. A loaded tokenizer is read-only: any number of threads. */
#pragma once

#include <stdbool.h>

#include "base/error.h"

struct tokenizer;

/* A file: NAME.model is SentencePiece, anything else tokenizer.json. */
int tokenizer_load(const char *path, struct tokenizer **ret, struct error *error);
/* A model directory: its tokenizer.json, or else its tokenizer.model with the ids of added_tokens.json. */
int tokenizer_load_dir(const char *dir, struct tokenizer **ret, struct error *error);
/* From memory: the bytes of a tokenizer.json, of a tokenizer.model (added_json: added_tokens.json's bytes, or NULL). */
int tokenizer_parse(const char *json, size_t n, struct tokenizer **ret, struct error *error);
int tokenizer_parse_model(const void *bytes, size_t n, const char *added_json, size_t n_added, struct tokenizer **ret,
                          struct error *error);
struct tokenizer *tokenizer_ref(struct tokenizer *t);       /* one more owner */
struct tokenizer *tokenizer_free(struct tokenizer *t);      /* one owner less */
DEFINE_FREEP(struct tokenizer, tokenizer_free)

/* Ids of `text` (UTF-8, n bytes), the beginning-of-sequence id first when `bos` (Qwen has none). Special tokens inside the text
 * are cut out first and each fragment is encoded on its own, as the original does. Caller frees. -EINVAL: not UTF-8.
 * -E2BIG: more than TOKENIZER_MAX_TEXT bytes (merging is quadratic; a prompt is a sentence). */
enum { TOKENIZER_MAX_TEXT = 16 << 10 };
int tokenizer_encode(const struct tokenizer *t, const char *text, size_t n, bool bos, int32_t **ret_ids, int *ret_n);
/* Text of ids; skip_special leaves out special tokens, ids without a piece are left out. Caller frees. */
int tokenizer_decode(const struct tokenizer *t, const int32_t *ids, int n, bool skip_special, char **ret_text, size_t *ret_n);
int tokenizer_id(const struct tokenizer *t, const char *piece);     /* -ENOENT */
int tokenizer_size(const struct tokenizer *t);                      /* ids in the vocabulary, added tokens left out */
int tokenizer_bos(const struct tokenizer *t);                       /* -ENOENT: this form has none */
