/* A TFRecord file and the Examples in it from anyone: what is found can be read to its last element. */
#include <stdlib.h>

#include "data/tf_example.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

static void read_example(const uint8_t *bytes, size_t n)
{
    static const char *const names[] = {"steps/action", "steps/observation/image", "steps/reward", "a"};
    struct tf_feature feature;
    char text[100];

    tf_example_names(bytes, n, text, sizeof(text));
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        static volatile uint8_t sink;
        const uint8_t *at;
        size_t length;

        if (tf_example_find(bytes, n, names[i], &feature) < 0)
            continue;
        if (feature.kind == TF_BYTES) {
            for (size_t k = 0; k < 8 && tf_feature_bytes(&feature, k, &at, &length) == 0; k++)
                sink += length ? (uint8_t)(at[0] + at[length - 1]) : 0;
        } else {
            double *values = malloc((feature.count + 1) * sizeof(*values));

            if (values && tf_feature_numbers(&feature, values) == 0 && feature.count)
                sink += values[feature.count - 1] > 0;
            free(values);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    struct tf_records records;
    const uint8_t *record;
    size_t length;

    read_example(bytes, n); /* checksums would keep a fuzzer out */
    tf_records_parse(bytes, n, &records);
    (void)tf_records_count(&records, NULL);
    while (tf_records_next(&records, &record, &length, NULL) > 0)
        read_example(record, length);
    return 0;
}
