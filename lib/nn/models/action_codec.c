/* action_codec.c - actions as ids: 256 edges linspace(-1,1,256), 255 bin centres, ids counted down from the vocabulary's end. */
#include "nn/models/openvla_internal.h"

enum { BINS = OPENVLA_ACTION_BINS };

/* numpy's linspace(-1, 1, 256): i * step + start, the last one exact. */
static double edge(int i)
{
    return i == BINS - 1 ? 1.0 : i * (2.0 / (BINS - 1)) + -1.0;
}

/* The number of edges <= value, 1..256; NaN counts as the highest, as numpy's digitize has it. */
int32_t openvla_encode(const struct openvla_config *config, double value)
{
    int bin;

    if (value != value)
        return config->vocab - BINS;
    value = CLAMP(value, -1.0, 1.0);
    bin = (int)((value + 1.0) * ((BINS - 1) / 2.0));     /* a guess that rounding may put one off */
    while (bin > 0 && edge(bin) > value)
        bin--;
    while (bin + 1 < BINS && edge(bin + 1) <= value)
        bin++;
    return config->vocab - (bin + 1);
}

/* Ids that are no actions decode to the nearest end. */
double openvla_decode(const struct openvla_config *config, int32_t id)
{
    int bin = CLAMP(config->vocab - id - 1, 0, BINS - 2);

    return (edge(bin) + edge(bin + 1)) / 2.0;
}

const struct action_stats *openvla_stats(const struct openvla *model, const char *key)
{
    if (!key)
        return model->n_stats == 1 ? &model->stats[0] : NULL;
    for (int i = 0; i < model->n_stats; i++)
        if (!strcmp(model->stats[i].key, key))
            return &model->stats[i];
    return NULL;
}

static void unnormalise(const struct action_stats *stats, const double *normalised, double widen, double *ret_action)
{
    for (int i = 0; i < stats->dims; i++) {
        double range = stats->q99[i] - stats->q01[i] + widen;

        ret_action[i] = stats->mask[i] ? 0.5 * (normalised[i] + 1) * range + stats->q01[i] : normalised[i];
    }
}

void openvla_unnormalise(const struct action_stats *stats, const double *normalised, double *ret_action)
{
    unnormalise(stats, normalised, 0, ret_action);
}

void oft_unnormalise(const struct action_stats *stats, const double *normalised, double *ret_action)
{
    unnormalise(stats, normalised, 1e-8, ret_action);
}

int openvla_normalise(const struct action_stats *stats, const double *action, double *ret_normalised)
{
    int outside = 0;

    for (int i = 0; i < stats->dims; i++) {
        double x = stats->mask[i] ? 2 * (action[i] - stats->q01[i]) / (stats->q99[i] - stats->q01[i] + 1e-8) - 1 : action[i];

        outside += x < -1.001 || x > 1.001;
        ret_normalised[i] = CLAMP(x, -1.0, 1.0);
    }
    return outside;
}

void gripper_to_environment(const struct gripper_rule *rule, double *action, int dims)
{
    double *g = &action[dims - 1];

    if (rule->binarise)
        *g = *g > 0.5 ? 1 : *g < 0.5 ? -1 : 0;
    if (rule->invert)
        *g = *g == 0 ? 0 : -*g;
}

/* A gripper that is half open stays so: what is imitated is what was done. */
static void gripper_from_environment(const struct gripper_rule *rule, double *action, int dims)
{
    double *g = &action[dims - 1];

    if (rule->invert)
        *g = *g == 0 ? 0 : -*g;
    if (rule->binarise)
        *g = (*g + 1) / 2;
}

void openvla_to_environment(const struct openvla *model, const double *normalised, double *ret_action)
{
    const struct openvla_config *c = &model->config;

    unnormalise(openvla_stats(model, NULL), normalised, c->oft.kind == OFT_NONE ? 0 : 1e-8, ret_action);
    gripper_to_environment(&c->gripper, ret_action, c->action_dims);
}

int openvla_from_environment(const struct openvla *model, const double *action, double *ret_normalised)
{
    const struct action_stats *stats = openvla_stats(model, NULL);
    double own[OPENVLA_MAX_ACTION_DIMS];
    int outside = 0;

    memcpy(own, action, (size_t)stats->dims * sizeof(*own));
    gripper_from_environment(&model->config.gripper, own, stats->dims);
    for (int i = 0; i < stats->dims; i++) {
        double middle = (stats->q01[i] + stats->q99[i]) / 2, half = (stats->q99[i] - stats->q01[i]) / 2;
        /* With -1 and 1 it is the action itself, to the bit. A range of one value is that value, whatever is said. */
        double x = !stats->mask[i] ? own[i] : half != 0 ? (own[i] - middle) / half : 0;

        outside += x < -1.001 || x > 1.001;
        ret_normalised[i] = CLAMP(x, -1.0, 1.0);
    }
    return outside;
}
