#include "nn/tape_watch.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { UNUSED = -1 };

struct tape_watch {
    const int64_t *begin;
    int n;
    tape_whole_fn *fn;
    void *arg;
    int records;                /* of the way forward; on the way back: still to be replayed */
    bool returning;
    int *first;                 /* [n] the record at whose replay it is whole; UNUSED */
    bool *told;                 /* [n] */
    int *noted, n_noted;        /* in the order of their first uses: `first` never falls */
};

int tape_watch_new(const int64_t *begin, int n, tape_whole_fn *fn, void *arg, struct tape_watch **ret)
{
    struct tape_watch *w = calloc(1, sizeof(*w));

    if (!w)
        return -ENOMEM;
    *w = (struct tape_watch) {.begin = begin, .n = n, .fn = fn, .arg = arg};
    w->first = calloc((size_t)n + 1, sizeof(*w->first));
    w->noted = calloc((size_t)n + 1, sizeof(*w->noted));
    w->told = calloc((size_t)n + 1, sizeof(*w->told));
    if (!w->first || !w->noted || !w->told) {
        tape_watch_free(w);
        return -ENOMEM;
    }
    tape_watch_begin(w);
    *ret = w;
    return 0;
}

struct tape_watch *tape_watch_free(struct tape_watch *w)
{
    if (!w)
        return NULL;
    free(w->first);
    free(w->noted);
    free(w->told);
    free(w);
    return NULL;
}

void tape_watch_begin(struct tape_watch *w)
{
    w->records = w->n_noted = 0;
    w->returning = false;
    for (int i = 0; i < w->n; i++) {
        w->first[i] = UNUSED;
        w->told[i] = false;
    }
}

static int find(const struct tape_watch *w, int64_t offset)
{
    int low = 0, high = w->n;

    while (low < high) {
        int middle = (low + high) / 2;

        if (w->begin[middle] < offset)
            low = middle + 1;
        else
            high = middle;
    }
    return low < w->n && w->begin[low] == offset ? low : UNUSED;
}

/* Before or after the op's own record: the one before it is replayed later, so that counts. */
void tape_watch_note(struct tape_watch *w, int64_t offset)
{
    int i = w->returning ? UNUSED : find(w, offset);    /* a block within was noted on its way forward */

    if (i == UNUSED || w->first[i] != UNUSED)
        return;
    w->first[i] = w->records > 0 ? w->records - 1 : 0;
    w->noted[w->n_noted++] = i;
}

bool tape_watch_told(const struct tape_watch *w, int64_t offset)
{
    int i = find(w, offset);

    return i != UNUSED && w->told[i];
}

void tape_watch_record(struct tape_watch *w)
{
    if (!w->returning)
        w->records++;
}

static int tell(struct tape_watch *w, int i)
{
    w->told[i] = true;
    return w->fn(w->arg, i);
}

static int tell_noted(struct tape_watch *w)
{
    int r = 0;

    while (w->n_noted && w->first[w->noted[w->n_noted - 1]] >= w->records && r >= 0)
        r = tell(w, w->noted[--w->n_noted]);
    return r;
}

bool tape_watch_return(struct tape_watch *w, int *ret_result)
{
    int r = 0;

    if (w->returning)
        return false;
    w->returning = true;
    for (int i = w->n - 1; i >= 0 && r >= 0; i--)
        if (w->first[i] == UNUSED)
            r = tell(w, i);
    *ret_result = r < 0 ? r : tell_noted(w);
    return true;
}

int tape_watch_replayed(struct tape_watch *w)
{
    w->records--;
    return tell_noted(w);
}
