/* dnn.h - attention by cuDNN, where it takes it: bf16, sequences all alike, heads of a multiple of eight up to 128, numerics fast. (Strict wants
 * a row's numbers to be independent of its batch, which no library promises: the own kernel's.) */
#pragma once

#include "nn/device/device.h"

struct dnn_key;

/* NULL when the library is not there or unfit; why then says so. Used from any thread, one call at a time (its own lock). */
struct dnn *dnn_open(char *why, size_t why_size);
void dnn_close(struct dnn *dnn);
/* -ENOTSUP: not for cuDNN, or it refuses (dnn_refusal says what it said the first time): the own kernel's. */
int dnn_attention(struct device_stream *s, enum device_type type, const struct device_attention *a, bool backward);
/* The first refusal's words, "" without one. */
const char *dnn_refusal(const struct dnn *dnn);

/* What the call is to cuDNN; false: nothing for it. (For tests.) */
bool dnn_key_of(enum device_type type, const struct device_attention *a, bool backward, struct dnn_key *ret);
