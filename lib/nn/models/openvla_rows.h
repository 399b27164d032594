/* openvla_rows.h - from items to the packed rows of one pass: which token or patch each row is, where it stands, what it sees.
 *
 * Items that begin alike - the same first picture, as all frames of an episode do under the reward model - see the same rows
 * in front: <s> and the picture's patches. When `share` is said these rows are computed once, as a sequence of their own
 * before all others; such an item's own rows are the ones behind, and its keys name the shared rows first. A row's numbers
 * depend on nothing but what it sees, so sharing changes none of them. */
#pragma once

#include "nn/models/openvla_internal.h"

struct openvla_rows {
    int sequences, shared;          /* sequences: shared beginnings, then the items */
    int rows, text, images, states; /* totals: rows of all sequences, those that are text, pictures, robot states */
    const uint8_t **image;          /* [images] */
    int32_t *ids;                   /* [text] */
    int32_t *splice;                /* [rows] >= 0: text row, else -1 - patch row */
    float *state;                   /* [states][config.oft.proprio] */
    int32_t *state_splice;          /* [rows] own row, or -1 - state */
    int32_t *words;                 /* with FiLM: ids of each item's words, its end among them ... */
    int32_t *word_start;            /* ... [n+1] where an item's begin ... */
    int32_t *image_item;            /* ... [images] and whose words a picture is modulated by */
    int32_t *position, *slot;       /* [rows]; slot: number of the sequence */
    int32_t *keys;                  /* rows that each sequence sees, one sequence after the other ... */
    int32_t *start;                 /* [sequences+1] ... where it begins in keys ... */
    int32_t *own;                   /* [sequences+1] ... and where its own rows begin */
    int32_t *first;                 /* [n] row of an item's last prompt token */
    int32_t *tail, *tail_position; int n_tail;  /* rows of items from there to their ends, ... */
    int32_t *tail_first, *tail_start;   /* ... first[n] and own[sequences+1] counted in them */
};

/* All of it in tape memory. -EINVAL: an item has no picture, no prompt, an id outside the vocabulary, or does not fit the others;
 * -ENOBUFS. */
int openvla_rows_make(const struct openvla *model, struct tape *tape, const struct openvla_item *items, int n, bool share,
                    struct openvla_rows *ret);
