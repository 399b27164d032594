/* tokenizer.h - Llama-style BPE with byte fallback, from tokenizer.json (specs/models.md section 3). */
#pragma once

#include <stdbool.h>

#include "base/error.h"

struct tokenizer;

int tokenizer_load(const char *path, struct tokenizer **ret, struct error *error);
struct tokenizer *tokenizer_free(struct tokenizer *t);
DEFINE_FREEP(struct tokenizer, tokenizer_free)

/* Ids of `text` (UTF-8, n bytes), the beginning-of-sequence id first when `bos`. Special tokens inside the text are cut
 * out first and each fragment is encoded on its own, as the original does. Caller frees. -EINVAL: not UTF-8. */
int tokenizer_encode(const struct tokenizer *t, const char *text, size_t n, bool bos, int32_t **ret_ids, int *ret_n);
/* Text of ids; skip_special leaves out special tokens. Caller frees. */
int tokenizer_decode(const struct tokenizer *t, const int32_t *ids, int n, bool skip_special, char **ret_text, size_t *ret_n);
int tokenizer_id(const struct tokenizer *t, const char *piece);     /* -ENOENT */
int tokenizer_size(const struct tokenizer *t);                      /* ids in the vocabulary, added tokens left out */
