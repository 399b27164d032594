/* device_bench.h - what whole models do on a device: actions, chunks, scores and samples a second, the share of a roofline, the
 * memory taken beside what was foretold, and the contract between actor and learner. One part a call, one line a figure, written
 * as soon as it is known.
 *
 * The roofline: products at `flops`, bytes at `bytes` a second, both measured by the caller in the same run; 0: no shares are
 * told. What counts are the model's linear products, attention's, and each weight read once a pass; norms and activations do not.
 * Thread rule: one thread.  Failure rule: -errno with one line; what was measured before is written already. */
#pragma once

#include <stdio.h>

#include "nn/device/device.h"

enum { BENCH_BATCHES = 3 };

struct device_bench {
    struct device *device;
    const char *model;          /* a size of synthetic.h, or an OpenVLA's directory */
    int layers;                 /* of a synthetic one: so many of each stack (synthetic.h); 0: all */
    bool small_reward;          /* the small synthetic reward model */
    bool fast;                  /* numerics */
    int batch[BENCH_BATCHES];   /* that act, answer, score */
    int train_batch[2];
    int warm, repeats;          /* calls before it counts, and that count */
    double flops, bytes;
    FILE *out;
    /* For a device that counts: called before each call of what is measured, and instead of telling it. Seconds are then the
     * thread's own. NULL: neither. */
    void (*before)(void);
    void (*tell)(const char *model, const char *what, const char *unit, int batch, double seconds, double floor);
};

/* "act", "adapters" (acting with them), "train", "oft", "prm", "score", "contract"; NULL ends. */
extern const char *const device_bench_parts[];
int device_bench_run(const struct device_bench *bench, const char *part, struct error *error);
