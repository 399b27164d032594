/* op_scatter.c - rows added to rows on a device, without atomics: the host lists, for every row that is added to, who comes and
 * in which order. */
#include "nn/ops/op.h"

struct pair { int32_t to, from; };

static int compare(const void *a, const void *b)
{
    const struct pair *x = a, *y = b;

    return x->to != y->to ? (x->to > y->to) - (x->to < y->to) : (x->from > y->from) - (x->from < y->from);
}

void op_scatter(struct tape *t, enum device_type y_type, float *y, const float *x, const int32_t *to, int64_t n, int64_t cols)
{
    struct pair *pairs = tape_alloc(t, (size_t)n * sizeof(*pairs));
    int32_t *rows = tape_alloc(t, (3 * (size_t)n + 1) * sizeof(*rows)), *begin = rows + n, *from = begin + n + 1;
    int64_t m = 0, found = 0;

    if (!pairs || !rows)
        return;
    for (int64_t i = 0; i < n; i++)
        if (to[i] >= 0)
            pairs[m++] = (struct pair) {to[i], (int32_t)i};
    qsort(pairs, (size_t)m, sizeof(*pairs), compare);
    for (int64_t i = 0; i < m; i++) {
        if (i == 0 || pairs[i].to != pairs[i - 1].to) {
            rows[found] = pairs[i].to;
            begin[found++] = (int32_t)i;
        }
        from[i] = pairs[i].from;
    }
    if (!found)
        return;
    begin[found] = (int32_t)m;
    {
        const int32_t *sent_rows = send_ints(t, rows, found), *sent_begin = send_ints(t, begin, found + 1),
                      *sent_from = send_ints(t, from, m);

        if (sent_rows && sent_begin && sent_from)
            ON(t, scatter, y_type, y, type_of(t), x, sent_rows, sent_begin, sent_from, found, cols);
    }
}
