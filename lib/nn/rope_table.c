#include "nn/rope_table.h"

#include <errno.h>
#include <math.h>

#include "nn/device/device.h"

static void forget(struct rope_table *table)
{
    if (table->on_device)
        table->k->release(table->on_device);    /* frees once what is under way has used it */
    free(table->table);
}

const float *rope_table_on(struct rope_table *table, struct device_stream *s)
{
    size_t bytes = (size_t)(table->positions * table->dim) * sizeof(float);
    void *memory;

    if (table->on_device)
        return table->on_device;
    if (s->capturing || s->k->alloc(bytes, &memory) < 0)
        return NULL;
    if (s->k->upload(s->stream, memory, table->table, bytes) < 0 || s->k->wait(s->stream) < 0) {
        s->k->release(memory);
        return NULL;
    }
    table->k = s->k;
    table->on_device = memory;
    return memory;
}

int rope_table_cover(struct rope_table **table, float theta, int64_t dim, int64_t last)
{
    int64_t half = dim / 2, positions = (last + 64) / 64 * 64 + 64;
    struct rope_table *t = *table;
    float *numbers;

    if (t && t->theta == theta && t->dim == dim && last < t->positions)
        return 0;
    if (!t) {
        t = *table = calloc(1, sizeof(*t));
        if (!t)
            return -ENOMEM;
    }
    numbers = malloc((size_t)(positions * dim) * sizeof(float));
    if (!numbers)
        return -ENOMEM;
    for (int64_t i = 0; i < half; i++) {
        float frequency = (float)pow((double)theta, -2.0 * (double)i / (double)dim);

        for (int64_t p = 0; p < positions; p++) {
            double angle = (double)((float)p * frequency);
            numbers[p * dim + i] = (float)cos(angle);
            numbers[p * dim + half + i] = (float)sin(angle);
        }
    }
    forget(t);
    *t = (struct rope_table) {.theta = theta, .dim = dim, .positions = positions, .table = numbers};
    return 0;
}

struct rope_table *rope_table_free(struct rope_table *table)
{
    if (!table)
        return NULL;
    forget(table);
    free(table);
    return NULL;
}
