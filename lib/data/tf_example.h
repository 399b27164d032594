/* tf_example.h - RLDS files: TFRecord framing and tf.train.Example, in place, with every length and checksum checked.
 *
 *   tf_records_open(path) -> tf_records_next(records, &bytes, &n)* until 0 -> tf_records_close
 *   tf_example_find(bytes, n, "steps/action", &feature) -> tf_feature_numbers | tf_feature_bytes
 *
 * A record: length (u64), masked CRC-32C of the length, the bytes, masked CRC-32C of the bytes; little-endian. An Example is a
 * map from names to lists of byte strings, floats or integers. Thread rule: none.  Failure rule: -errno, one line. */
#pragma once

#include <stdbool.h>

#include "base/error.h"

struct tf_records {
    char *path;
    const uint8_t *bytes;
    size_t size, at;
    bool mapped;
};
int tf_records_open(const char *path, struct tf_records *ret, struct error *error);
/* From memory: borrows. */
void tf_records_parse(const void *bytes, size_t n, struct tf_records *ret);
/* 1: *ret is the next record; 0: the end; -EBADMSG: cut short or damaged, with the offset. */
int tf_records_next(struct tf_records *records, const uint8_t **ret, size_t *ret_n, struct error *error);
/* How many there are, by their lengths alone. -EBADMSG. */
int tf_records_count(const struct tf_records *records, struct error *error);
void tf_records_close(struct tf_records *records);

enum tf_kind { TF_BYTES = 1, TF_FLOATS = 2, TF_INTEGERS = 3 };
struct tf_feature {
    enum tf_kind kind;
    size_t count; /* elements */
    const uint8_t *list;
    size_t n; /* the list's message */
};
/* -ENOENT: no such feature (or one without a value); -EBADMSG: no Example. */
int tf_example_find(const void *bytes, size_t n, const char *name, struct tf_feature *ret);
/* All numbers of a list of floats or integers. `ret` has room for feature->count. -EINVAL: byte strings. */
int tf_feature_numbers(const struct tf_feature *feature, double *ret);
/* Byte string i, found from the front. -ENOENT: not so many; -EINVAL: numbers. */
int tf_feature_bytes(const struct tf_feature *feature, size_t i, const uint8_t **ret, size_t *ret_n);
/* Names of all features, for messages: "a, b, c", cut to fit. */
void tf_example_names(const void *bytes, size_t n, char *ret, size_t size);
