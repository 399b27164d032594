/* small_net.h - a network of a few linear layers, made by hand, and its way forward and back over samples of a minibatch: what
 * shards, ranks and devices do with gradients is tried on it. */
#pragma once

#include "train/shards.h"

enum { SMALL_LAYERS = 6, SMALL_WIDTH = 24, SMALL_SAMPLES = 11 };

struct small_net {
    struct params params;
    const struct param *weight[SMALL_LAYERS], *bias[SMALL_LAYERS], *norm[SMALL_LAYERS];
    struct adamw_range ranges[3 * SMALL_LAYERS];        /* all of it */
    int n_ranges;
};

void small_net_make(struct small_net *net);
void small_net_release(struct small_net *net);
/* As a shard_fn does. on_return: a record in front of all others, so the last of the way back; NULL: none. */
int small_net_pass(const struct small_net *net, struct tape *tape, int first, int last,
                   void (*on_return)(struct tape *tape, void *context), void *context);
