/* tokenizer.h - Llama-style BPE with byte fallback, from tokenizer.json.
 *
 * What is read is the form the Llama family ships: model BPE with byte_fallback, normalizer "prepend U+2581, replace
 * blanks by it", no pre-tokenizer (merges may span words). Any other form is refused at load, never approximated.
 * A loaded tokenizer is read-only: any number of threads. */
#pragma once

#include <stdbool.h>

#include "base/error.h"

struct tokenizer;

int tokenizer_load(const char *path, struct tokenizer **ret, struct error *error);
struct tokenizer *tokenizer_free(struct tokenizer *t);
DEFINE_FREEP(struct tokenizer, tokenizer_free)

/* Ids of `text` (UTF-8, n bytes), the beginning-of-sequence id first when `bos`. Special tokens inside the text are cut
 * out first and each fragment is encoded on its own, as the original does. Caller frees. -EINVAL: not UTF-8.
 * -E2BIG: more than TOKENIZER_MAX_TEXT bytes (merging is quadratic; a prompt is a sentence). */
enum { TOKENIZER_MAX_TEXT = 16 << 10 };
int tokenizer_encode(const struct tokenizer *t, const char *text, size_t n, bool bos, int32_t **ret_ids, int *ret_n);
/* From memory (fuzzing): the bytes of a tokenizer.json. */
int tokenizer_parse(const char *json, size_t n, struct tokenizer **ret, struct error *error);
/* Text of ids; skip_special leaves out special tokens, ids without a piece are left out. Caller frees. */
int tokenizer_decode(const struct tokenizer *t, const int32_t *ids, int n, bool skip_special, char **ret_text, size_t *ret_n);
int tokenizer_id(const struct tokenizer *t, const char *piece);     /* -ENOENT */
int tokenizer_size(const struct tokenizer *t);                      /* ids in the vocabulary, added tokens left out */
