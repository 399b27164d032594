/* The first line is a text, the rest a tokenizer.model: either may be anything. */
#include "nn/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    const uint8_t *end = memchr(bytes, '\n', n);
    size_t n_text = end ? (size_t)(end - bytes) : n;
    struct tokenizer *t = NULL;
    int32_t *ids = NULL;
    char *text = NULL;
    size_t n_back;
    int count;

    if (!end || tokenizer_parse_model(end + 1, n - n_text - 1, NULL, 0, &t, NULL) < 0)
        return 0;
    if (tokenizer_encode(t, (const char *)bytes, n_text, true, &ids, &count) == 0) {
        if (tokenizer_decode(t, ids, count, false, &text, &n_back) == 0)
            free(text);
        free(ids);
    }
    tokenizer_free(t);
    return 0;
}
