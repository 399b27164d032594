#include "tests/harness/device_bench_internal.h"

double bench_layer_weights(const struct openvla_config *c) { return (double)c->layers * (4.0 * c->hidden * c->hidden + 3.0 * c->hidden * c->intermediate); }

double bench_vision_weights(const struct openvla_config *c)
{
    double fused = c->tower[0].dim + c->tower[1].dim,
           n = 4 * fused * fused + 4 * fused * c->hidden + (double)c->hidden * c->hidden;

    for (int i = 0; i < 2; i++)
        n += (c->tower[i].depth - 1) * ((double)c->tower[i].dim * (4.0 * c->tower[i].dim + 2.0 * c->tower[i].mlp));
    return n;
}

double bench_vision_flops(const struct openvla_config *c)
{
    double fused = c->tower[0].dim + c->tower[1].dim,
           n = 2 * c->patches * (4 * fused * fused + 4 * fused * c->hidden + (double)c->hidden * c->hidden);

    for (int i = 0; i < 2; i++) {
        const struct openvla_tower *t = &c->tower[i];
        double rows = c->patches + t->prefix, d = t->dim;

        n += 2 * c->patches * 3.0 * t->patch * t->patch * d + (t->depth - 1) * (2 * rows * d * (4 * d + 2.0 * t->mlp) + 4 * rows * rows * d);
    }
    return n;
}

/* Causal attention is half of full. */
double bench_text_flops(const struct openvla_config *c, double rows, bool causal)
{
    return 2 * rows * bench_layer_weights(c) + (causal ? 2 : 4) * rows * rows * c->hidden * c->layers;
}
