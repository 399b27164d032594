/* dnn.h - attention by cuDNN, where it takes it: bf16, sequences all alike, heads of a multiple of eight up to 128, numerics
 * fast. (Strict wants a row's numbers to be independent of its batch, which no library promises: the own kernel's.) */
#pragma once

#include "nn/device/device.h"

struct dnn_calls;

/* NULL when the library is not there or unfit; why then says so. Used from any thread, one call at a time (its own lock). */
struct dnn *dnn_open(char *why, size_t why_size);
/* The same with any table, which is copied; for tests. */
struct dnn *dnn_wrap(const struct dnn_calls *calls);
void dnn_close(struct dnn *dnn);
/* One piece (dnn_key.h). -ENOTSUP: not for cuDNN, or, which is counted, it refuses, be it to plan or to carry out the plan, or
 * what it works in does not fit (dnn_refusal has the first reason): the own kernel's, which writes what a plan may have
 * written. */
int dnn_attention(struct device_stream *s, enum device_type type, const struct device_attention *a, bool backward);
size_t dnn_version(const struct dnn *dnn); /* 91900: 9.19.0 */
/* The first refusal's words, "" without one. */
const char *dnn_refusal(const struct dnn *dnn);
