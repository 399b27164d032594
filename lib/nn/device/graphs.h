/* graphs.h - passes that are put on a stream once and launched again as a whole: a small cache of CUDA graphs.
 *
 *   switch (device_graphs_next(graphs, stream, key, n, inputs, n_inputs)) {
 *   case GRAPH_RUN:      run the pass as ever
 *   case GRAPH_CAPTURE:  device_graphs_begin; run the pass; device_graphs_end   (on failure: run it as ever)
 *   case GRAPH_REPLAY:   device_graphs_launch instead of the pass
 *   }
 *
 * The key holds all that a pass depends on but its inputs: shapes, and every device address that it reads or writes. A pass runs
 * as ever when its key is new (arenas grow, libraries look for plans), is captured the second time, and replayed from then on;
 * one that cannot be captured is run as ever for good, and counted. Inputs are arrays of the host, sent in front of everything
 * else: the graph itself copies them again from where they were staged, so that a replay writes them there. A pass that sends
 * anything else is refused, for that would be of the past in a replay. Kept are the latest GRAPHS; the least used makes room.
 *
 * Thread rule: the stream's. Failure rule: -errno. */
#pragma once

#include "nn/device/device.h"

enum { GRAPHS = 16, GRAPH_INPUTS = 4, GRAPH_KEY = 128, GRAPH_NOTE = 4 };
enum graph_action { GRAPH_RUN, GRAPH_CAPTURE, GRAPH_REPLAY };

struct graph_input {
    const void *host;
    size_t bytes;
};

struct graph_counts {
    unsigned long long captured, replayed, refused;
};

struct device_graphs;

struct device_graphs *device_graphs_new(void);
/* Their device must still be there. NULL is fine; returns NULL. */
struct device_graphs *device_graphs_free(struct device_graphs *graphs);
/* n: at most GRAPH_KEY. Inputs of equal bytes cannot be told apart in a pass: such a one is not captured now. */
enum graph_action device_graphs_next(struct device_graphs *graphs, struct device_stream *s, const void *key, size_t n,
                                     const struct graph_input *inputs, int n_inputs);
int device_graphs_begin(struct device_graphs *graphs, struct device_stream *s, const struct graph_input *inputs, int n_inputs);
/* r: what the pass answered. note: what the caller wants to know in a replay. 0: captured, and launched; else the pass has not
 * been run. */
int device_graphs_end(struct device_graphs *graphs, struct device_stream *s, int r, const int64_t note[GRAPH_NOTE]);
int device_graphs_launch(struct device_graphs *graphs, struct device_stream *s, const struct graph_input *inputs, int n_inputs,
                         int64_t ret_note[GRAPH_NOTE]);
void device_graphs_counts(const struct device_graphs *graphs, struct graph_counts *ret);
