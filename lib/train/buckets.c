#include "train/buckets.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "train/device_sums.h"

static int by_place(const void *a, const void *b)
{
    const struct adamw_range *x = a, *y = b;

    return x->begin < y->begin ? -1 : x->begin > y->begin;
}

/* The bucket that a float lies in: they descend. */
static int bucket_of(const struct buckets *b, int64_t at)
{
    int low = 0, high = b->n - 1;

    while (low < high) {
        int middle = (low + high) / 2;

        if (b->list[middle].begin > at)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static int cut(struct buckets *b, const struct adamw_range *spans, int n, int64_t most)
{
    int64_t count = 0;

    for (int i = 0; i < n; i++)
        count += (spans[i].end - spans[i].begin + most - 1) / most;
    b->list = calloc((size_t)count + 1, sizeof *b->list);
    b->inside = calloc((size_t)count + 1, sizeof *b->inside);
    if (!b->list || !b->inside)
        return -ENOMEM;
    for (int i = n - 1; i >= 0; i--)
        for (int64_t pieces = (spans[i].end - spans[i].begin + most - 1) / most, k = pieces - 1; k >= 0; k--)
            b->list[b->n++] = (struct bucket) {spans[i].begin + k * most, MIN(spans[i].begin + (k + 1) * most, spans[i].end)};
    return 0;
}

int buckets_make(const struct adamw_range *ranges, int n, int64_t most, struct buckets *ret)
{
    _cleanup_free_ struct adamw_range *sorted = calloc((size_t)n + 1, sizeof *sorted),
    *spans = calloc((size_t)n + 1, sizeof *spans);
    struct buckets b = {.places = n, .place = calloc((size_t)n + 1, sizeof *b.place),
                        .span = calloc((size_t)n + 1, sizeof *b.span)};
    int r;

    if (!sorted || !spans || !b.place || !b.span) {
        buckets_release(&b);
        return -ENOMEM;
    }
    memcpy(sorted, ranges, (size_t)n * sizeof *sorted);
    qsort(sorted, (size_t)n, sizeof *sorted, by_place);
    r = cut(&b, spans, device_spans(sorted, n, spans), most);
    if (r < 0) {
        buckets_release(&b);
        return r;
    }
    for (int i = 0; i < n; i++) {
        b.place[i] = sorted[i].begin;
        b.span[i] = (struct bucket) {bucket_of(&b, sorted[i].end - 1), bucket_of(&b, sorted[i].begin)};
        for (int64_t k = b.span[i].begin; k <= b.span[i].end; k++)
            b.inside[k]++;
    }
    *ret = b;
    return 0;
}

void buckets_release(struct buckets *b)
{
    free(b->list);
    free(b->place);
    free(b->span);
    free(b->inside);
    *b = (struct buckets) {0};
}

static int tell_whole(struct bucket_watch *w)
{
    int r = 0;

    while (w->next < w->of->n && w->left[w->next] == 0 && r >= 0)
        r = w->fn(w->arg, w->next++);
    return r;
}

static int range_whole(void *arg, int which)
{
    struct bucket_watch *w = arg;

    for (int64_t k = w->of->span[which].begin; k <= w->of->span[which].end; k++)
        w->left[k]--;
    return tell_whole(w);
}

void bucket_watch_again(struct bucket_watch *w)
{
    memcpy(w->left, w->of->inside, (size_t)w->of->n * sizeof *w->left);
    w->began = w->next;
}

int bucket_watch_init(struct bucket_watch *w, const struct buckets *of, bucket_fn *fn, void *arg)
{
    *w = (struct bucket_watch) {.of = of, .fn = fn, .arg = arg, .left = calloc((size_t)of->n + 1, sizeof *w->left)};
    if (!w->left || tape_watch_new(of->place, of->places, range_whole, w, &w->tape) < 0) {
        bucket_watch_release(w);
        return -ENOMEM;
    }
    bucket_watch_again(w);
    return 0;
}

int bucket_watch_rest(struct bucket_watch *w)
{
    memset(w->left, 0, (size_t)w->of->n * sizeof *w->left);
    return tell_whole(w);
}

void bucket_watch_release(struct bucket_watch *w)
{
    tape_watch_free(w->tape);
    free(w->left);
    *w = (struct bucket_watch) {0};
}
