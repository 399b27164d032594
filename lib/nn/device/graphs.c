#include "nn/device/graphs.h"

#include <errno.h>
#include <string.h>

enum state { EMPTY, SEEN, READY, REFUSED };

struct entry {
    enum state state;
    unsigned char key[GRAPH_KEY];
    size_t n;
    uint64_t used;
    void *graph;
    char *staged[GRAPH_INPUTS]; /* pinned host memory that the graph copies from */
    int64_t note[GRAPH_NOTE];
};

struct device_graphs {
    struct entry entry[GRAPHS], *now; /* now: what next was asked about last */
    uint64_t clock;
    const struct device_kernels *k; /* of the device that graphs were made on */
    struct graph_counts counts;
};

struct device_graphs *device_graphs_new(void) { return calloc(1, sizeof(struct device_graphs)); }

static void empty(struct device_graphs *g, struct entry *e)
{
    if (e->graph)
        g->k->graph_free(e->graph);
    *e = (struct entry){.state = EMPTY};
}

struct device_graphs *device_graphs_free(struct device_graphs *g)
{
    for (int i = 0; g && i < GRAPHS; i++)
        empty(g, &g->entry[i]);
    free(g);
    return NULL;
}

void device_graphs_counts(const struct device_graphs *g, struct graph_counts *ret) { *ret = g->counts; }

/* The key's entry; a new one takes the place of the least used. */
static struct entry *entry_of(struct device_graphs *g, const void *key, size_t n)
{
    struct entry *oldest = &g->entry[0];

    for (int i = 0; i < GRAPHS; i++) {
        struct entry *e = &g->entry[i];

        if (e->state != EMPTY && e->n == n && !memcmp(e->key, key, n))
            return e;
        if (e->used < oldest->used)
            oldest = e;
    }
    empty(g, oldest);
    oldest->n = n;
    memcpy(oldest->key, key, n);
    return oldest;
}

static bool are_distinct(const struct graph_input *inputs, int n)
{
    for (int i = 0; i < n; i++)
        for (int j = 0; j < i; j++)
            if (inputs[i].bytes == inputs[j].bytes && !memcmp(inputs[i].host, inputs[j].host, inputs[i].bytes))
                return false;
    return true;
}

enum graph_action device_graphs_next(struct device_graphs *g, struct device_stream *s, const void *key, size_t n,
                                     const struct graph_input *inputs, int n_inputs)
{
    struct entry *e;

    if (!s->k->capture_begin || n > GRAPH_KEY || n_inputs > GRAPH_INPUTS)
        return GRAPH_RUN;
    g->k = s->k;
    e = g->now = entry_of(g, key, n);
    e->used = ++g->clock;
    switch (e->state) {
    case EMPTY: e->state = SEEN; return GRAPH_RUN;
    case SEEN: return are_distinct(inputs, n_inputs) ? GRAPH_CAPTURE : GRAPH_RUN;
    case READY: return GRAPH_REPLAY;
    case REFUSED: return GRAPH_RUN;
    }
    return GRAPH_RUN;
}

static int refuse(struct device_graphs *g, int r)
{
    g->now->state = REFUSED;
    g->counts.refused++;
    return r;
}

int device_graphs_begin(struct device_graphs *g, struct device_stream *s, const struct graph_input *inputs, int n)
{
    int r = s->k->capture_begin(s->stream);

    if (r < 0)
        return refuse(g, r);
    for (int i = 0; i < n && r >= 0; i++) {
        g->now->staged[i] = NULL;
        if (!device_send(s, inputs[i].host, inputs[i].bytes))
            r = -ENOMEM;
        else
            g->now->staged[i] = (char *)(uintptr_t)s->sent[s->n_sent - 1].host;
    }
    s->capturing = true; /* nothing else may be sent from now on, nor may memory grow */
    return r < 0 ? device_graphs_end(g, s, r, NULL) : 0;
}

int device_graphs_end(struct device_graphs *g, struct device_stream *s, int r, const int64_t note[GRAPH_NOTE])
{
    void *graph = NULL;
    int ended = s->k->capture_end(s->stream, &graph);

    s->capturing = false;
    if (r >= 0)
        r = ended;
    if (r < 0) {
        if (ended >= 0)
            s->k->graph_free(graph);
        return refuse(g, r);
    }
    g->now->graph = graph;
    g->now->state = READY;
    memcpy(g->now->note, note, sizeof(g->now->note));
    g->counts.captured++;
    return s->k->graph_launch(s->stream, graph);
}

int device_graphs_launch(struct device_graphs *g, struct device_stream *s, const struct graph_input *inputs, int n,
                         int64_t ret_note[GRAPH_NOTE])
{
    const struct entry *e = g->now;
    int r;

    for (int i = 0; i < n; i++)
        memcpy(e->staged[i], inputs[i].host, inputs[i].bytes);
    r = s->k->graph_launch(s->stream, e->graph);
    if (r < 0)
        return r;
    memcpy(ret_note, e->note, sizeof(e->note));
    g->counts.replayed++;
    return 0;
}
