/* A .safetensors file from anyone: what open accepts must be readable to the last element. */
#include "nn/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    struct safetensors *file = NULL;
    struct error error;

    if (safetensors_parse(bytes, n, &file, &error) < 0)
        return 0;
    for (int i = 0; i < file->count; i++) {
        const struct st_tensor *t = &file->list[i];
        float x;

        if (t->numel > 0) {
            (void)st_read_f32(t, 0, 1, &x);
            (void)st_read_f32(t, t->numel - 1, 1, &x);
        }
        if (safetensors_find(file, t->name) != t)
            abort();            /* names are unique */
    }
    safetensors_close(file);
    return 0;
}
