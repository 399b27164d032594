/* record.h - training.json in a version's directory: what the update did, for Committed after any number of restarts. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/strbuf.h"

struct record {
    uint64_t *trained, *filtered, *stale;       /* the plan's rows, each in one list */
    size_t n_trained, n_filtered, n_stale;
    char *metrics;                              /* JSON object of numbers */
    char *data;                                 /* JSON array: the data sets it learnt from; NULL: none. Written, not read */
    bool gate_passed;
    char gate_text[240];
};
void record_release(struct record *record);

int record_write(const char *dir, const struct record *record, struct error *error);
/* -ENOENT; -EBADMSG: damaged, or a list is missing. */
int record_read(const char *dir, struct record *ret, struct error *error);
