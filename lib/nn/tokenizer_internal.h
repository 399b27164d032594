/* tokenizer_internal.h - the tables of a tokenizer, shared by its loader and its encoder. */
#pragma once

#include "nn/tokenizer.h"

#define WORD_MARK "\xe2\x96\x81"        /* U+2581, stands for a blank */

struct piece { const char *text; int id; };
struct merge { uint64_t pair; int rank, result; };      /* pair: left id << 32 | right id */
struct special { char *text; size_t length; int id; bool hidden; /* left out by skip_special */ };

struct tokenizer {
    char **text;                /* [n_ids] piece of each id; NULL: no such id */
    int n_ids, size;            /* size: ids of the model's own vocabulary */
    struct piece *sorted;       /* the same by text; borrows */
    int n_sorted;
    struct merge *merges;       /* by pair */
    int n_merges;
    struct special *specials;
    int n_specials;
    int byte_id[256];
    int16_t *byte_of;           /* [n_ids] 0..255 for a byte piece, else -1 */
    int bos;
};

int tokenizer_id_n(const struct tokenizer *t, const char *piece, size_t n);
