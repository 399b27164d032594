/* tokenizer_internal.h - the tables of a tokenizer, and what its loaders and its two forms share. */
#pragma once

#include <limits.h>
#include <stdatomic.h>

#include "base/strbuf.h"
#include "nn/tokenizer.h"
#include "nn/unicode.h"

#define WORD_MARK "\xe2\x96\x81"        /* U+2581, stands for a blank */

enum { TOKENIZER_MAX_ID = 1 << 20, TOKENIZER_MAX_FILE = 64 << 20 };

struct piece { const char *text; int id; };
struct merge { uint64_t pair; int rank, result; };      /* pair: left id << 32 | right id */
struct special { char *text; size_t length; int id; bool hidden; /* left out by skip_special */ };
struct symbol { int id, rank, result; };    /* rank, result: of merging with the next one; INT_MAX: no merge */

struct tokenizer_form {
    /* Ids of a fragment without special tokens. symbols: room for 3n+3, ids for 3n+3; returns how many, or -errno. */
    int (*encode)(const struct tokenizer *t, const char *text, size_t n, struct symbol *symbols, int32_t *ids);
    /* Text of ids that all have a piece. */
    int (*decode)(const struct tokenizer *t, const int32_t *ids, int n, struct strbuf *out);
};
extern const struct tokenizer_form tokenizer_llama, tokenizer_bytes;

struct tokenizer {
    atomic_int owners;
    const struct tokenizer_form *form;
    char **text;                /* [n_ids] piece of each id; NULL: no such id */
    int n_ids, size;            /* size: ids of the model's own vocabulary */
    struct piece *sorted;       /* the same by text; borrows */
    int n_sorted;
    struct merge *merges;       /* by pair */
    int n_merges, merges_size;
    struct special *specials;
    int n_specials;
    int byte_id[256];
    int16_t *byte_of;           /* Llama: [n_ids] 0..255 for a byte piece, else -1 */
    int bos;                    /* -ENOENT: none */
    void *split;                /* Qwen: the compiled split pattern */
};

/* ---- tokenizer_vocabulary.c: filling the tables, in this order ------------------------------------------ */
struct tokenizer *vocabulary_new(const struct tokenizer_form *form);
int vocabulary_add(struct tokenizer *t, int64_t id, const char *text, struct error *error);
int vocabulary_add_special(struct tokenizer *t, int64_t id, const char *text, bool hidden, struct error *error);
int vocabulary_index(struct tokenizer *t, struct error *error);         /* tokenizer_id works from here on */
int vocabulary_byte_pieces(struct tokenizer *t, struct error *error);   /* <0x00>..<0xFF> */
int vocabulary_merge(struct tokenizer *t, int left, int right, int result, int rank, struct error *error);
void vocabulary_sort_merges(struct tokenizer *t);

int tokenizer_id_n(const struct tokenizer *t, const char *piece, size_t n);
/* Merge in place the adjacent pair of lowest rank, the leftmost on a tie, until none is left; returns how many symbols are left.
 */
int tokenizer_merge(const struct tokenizer *t, struct symbol *symbols, int n);

/* Qwen's: characters stand for bytes; -ENOENT with the line when the pattern or the vocabulary is another one. */
int tokenizer_bytes_init(struct tokenizer *t, const char *pattern, struct error *error);
void tokenizer_bytes_release(struct tokenizer *t);
