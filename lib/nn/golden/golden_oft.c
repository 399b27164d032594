/* golden_oft.c - OpenVLA-OFT: two pictures, robot state and L1 head; one picture and ids.
 *
 * Third-person picture i is the resized picture i, the wrist's the next one turned by 180 degrees. */
#include <errno.h>

#include "base/strbuf.h"
#include "nn/golden/golden_internal.h"
#include "nn/models/openvla_oft.h"

struct oft {
    struct golden *g;
    struct openvla_item item;
    bool l1;
    struct openvla_pass pass;
    struct tensor *answers, *actions, *logits;
};

static int oft_pass(struct tape *tape, void *arg)
{
    struct oft *o = arg;
    const struct openvla *model = o->g->model;
    int r = openvla_forward(model, tape, &o->item, 1, &o->pass);

    if (r < 0)
        return r;
    o->answers = oft_answers(model, tape, &o->pass, 1);
    if (o->l1)
        o->actions = oft_actions(model, tape, o->answers);
    else
        o->logits = openvla_logits(model, tape, o->answers, false);
    return tape->error;
}

static int compare_named(struct golden *g, int sample, const char *what, const float *x, int64_t n)
{
    char name[64];

    snprintf(name, sizeof(name), "%s.s%d.%s", g->dtype, sample, what);
    return golden_compare(g, "oft", name, x, n);
}

static int compare_actions(struct golden *g, int sample, const char *what, const double *normalised)
{
    const struct openvla_config *c = &g->model->config;
    const struct action_stats *stats = openvla_stats(g->model, NULL);
    double actions[OFT_MAX_SLOTS];
    char name[64];

    if (!stats)
        return error_set(g->error, EINVAL, "%s: statistics of exactly one data set are needed", g->model->dir);
    for (int i = 0; i < c->oft.chunk; i++)
        oft_unnormalise(stats, normalised + i * c->action_dims, actions + i * c->action_dims);
    snprintf(name, sizeof(name), "%s.s%d.%s", g->dtype, sample, what);
    return golden_compare_double(g, "oft", name, actions, oft_slots(c));
}

static int check_l1(struct golden *g, int sample, const struct tensor *answers, const struct tensor *actions)
{
    double normalised[OFT_MAX_SLOTS];
    int slots = oft_slots(&g->model->config), r;

    for (int i = 0; i < slots; i++)
        normalised[i] = (double)actions->x[i];
    r = compare_named(g, sample, "l1.hidden", answers->x, answers->rows * answers->cols);
    if (r >= 0)
        r = compare_named(g, sample, "l1.normalized", actions->x, slots);
    return r < 0 ? r : compare_actions(g, sample, "l1.actions", normalised);
}

/* Highest column of begin..end-1, the first of equals; its distance to the second best. */
static int32_t best(const float *row, int begin, int end, float *ret_margin)
{
    int at = begin;
    float second = -1e30f;

    for (int i = begin; i < end; i++)
        at = row[i] > row[at] ? i : at;
    for (int i = begin; i < end; i++)
        second = i != at && row[i] > second ? row[i] : second;
    *ret_margin = row[at] - second;
    return at;
}

static int check_ids(struct golden *g, int sample, const struct tensor *answers, const struct tensor *logits)
{
    const struct openvla_config *c = &g->model->config;
    int slots = oft_slots(c), first = c->vocab - OPENVLA_ACTION_BINS, r;
    _cleanup_free_ float *action_logits = calloc((size_t)slots * OPENVLA_ACTION_BINS, sizeof(*action_logits));
    int32_t ids_action[OFT_MAX_SLOTS], ids_full[OFT_MAX_SLOTS];
    float margin[OFT_MAX_SLOTS], unused;
    double normalised[OFT_MAX_SLOTS];
    char name[64], act_name[64], full_name[64], margin_name[64];

    if (!action_logits)
        return error_set(g->error, ENOMEM, "out of memory");
    snprintf(act_name, sizeof(act_name), "s%d.tok.ids_act", sample);
    snprintf(full_name, sizeof(full_name), "s%d.tok.ids_full", sample);
    snprintf(margin_name, sizeof(margin_name), "s%d.tok.margin_act", sample);
    for (int i = 0; i < slots; i++) {
        const float *row = logits->x + i * logits->cols;

        memcpy(action_logits + i * OPENVLA_ACTION_BINS, row + first, OPENVLA_ACTION_BINS * sizeof(*row));
        ids_action[i] = best(row, first, c->vocab, &margin[i]);
        ids_full[i] = best(row, 0, c->vocab_padded, &unused);
        ids_action[i] = golden_undecided(g, "oft", act_name, margin_name, i, ids_action[i]);
        ids_full[i] = golden_undecided(g, "oft", full_name, margin_name, i, ids_full[i]);
        normalised[i] = openvla_decode(c, ids_full[i]);
    }
    r = compare_named(g, sample, "tok.hidden", answers->x, answers->rows * answers->cols);
    snprintf(name, sizeof(name), "s%d.tok.act_logits", sample);
    if (r >= 0 && golden_has(g, "oft", name) && !strcmp(g->dtype, "fp32"))
        r = golden_compare(g, "oft", name, action_logits, (int64_t)slots * OPENVLA_ACTION_BINS);
    snprintf(name, sizeof(name), "%s.s%d.tok.ids_act", g->dtype, sample);
    if (r >= 0)
        r = golden_compare_int(g, "oft", name, ids_action, slots);
    snprintf(name, sizeof(name), "%s.s%d.tok.ids_full", g->dtype, sample);
    if (r >= 0)
        r = golden_compare_int(g, "oft", name, ids_full, slots);
    if (r >= 0)
        r = golden_compare_margin(g, "oft", golden_name(g, margin_name, name), margin, slots);
    return r < 0 ? r : compare_actions(g, sample, "tok.actions", normalised);
}

/* The embeddings in, from the position that the manifest names. */
static int check_embeddings(struct golden *g, int sample, const struct tensor *embeddings)
{
    const json_t *tensors = json_object_get(json_object_get(json_object_get(g->manifest, "files"), "oft.safetensors"), "tensors");
    char name[64];
    int64_t first;

    snprintf(name, sizeof(name), "s%d.l1.embed_tail", sample);
    if (!golden_has(g, "oft", name) || strcmp(g->dtype, "fp32"))
        return 0;
    first = json_integer_value(json_object_get(json_object_get(tensors, name), "first_position"));
    return golden_compare(g, "oft", name, embeddings->x + first * embeddings->cols,
                          (embeddings->rows - first) * embeddings->cols);
}

static int check_state(struct golden *g, double *ret_normalised)
{
    const struct action_stats *stats = openvla_stats(g->model, NULL);
    const struct st_tensor *state = golden_input(g, "oft", "proprio_state");
    int n = stats ? stats->proprio : 0;

    if (!state || state->dtype != DTYPE_F64 || state->numel != (int64_t)GOLDEN_SAMPLES * n || n > OPENVLA_MAX_PROPRIO)
        return error_set(g->error, EINVAL, "golden/oft.safetensors: proprio_state must be F64 [%d,%d]", GOLDEN_SAMPLES, n);
    for (int s = 0; s < GOLDEN_SAMPLES; s++) {
        double raw[OPENVLA_MAX_PROPRIO];

        memcpy(raw, (const char *)state->data + (size_t)(s * n) * sizeof(*raw), (size_t)n * sizeof(*raw));
        oft_normalise_state(stats, raw, ret_normalised + s * n);
    }
    return golden_compare_double(g, "oft", "proprio_normalized", ret_normalised, (int64_t)GOLDEN_SAMPLES * n);
}

static int check_sample(struct golden *g, int sample, bool l1, const uint8_t *wrist, const double *state)
{
    struct oft o = {.g = g,
                    .l1 = l1,
                    .item = {.images = {g->image[sample], wrist},
                             .n_images = l1 ? 2 : 1,
                             .prompt = g->prompt[sample],
                             .n_prompt = g->n_prompt[sample],
                             .slots = oft_slots(&g->model->config)}};
    float proprio[OPENVLA_MAX_PROPRIO];
    struct tape tape;
    int r;

    for (int i = 0; l1 && i < g->model->config.oft.proprio; i++)
        proprio[i] = (float)state[i];
    o.item.proprio = l1 ? proprio : NULL;
    tape_init(&tape, false);
    r = tape_run(&tape, oft_pass, &o);
    if (r >= 0)
        r = l1 ? check_l1(g, sample, o.answers, o.actions) : check_ids(g, sample, o.answers, o.logits);
    if (r >= 0 && l1)
        r = check_embeddings(g, sample, o.pass.layer[0]);
    tape_release(&tape);
    return r;
}

/* The picture after this one, last pixel first. */
static uint8_t *wrist_picture(const struct golden *g, int sample)
{
    size_t n = (size_t)g->model->config.image_height * (size_t)g->model->config.image_width;
    const uint8_t *from = g->image[(sample + 1) % GOLDEN_SAMPLES];
    uint8_t *rgb = malloc(n * 3);

    for (size_t i = 0; rgb && i < n; i++)
        memcpy(rgb + i * 3, from + (n - 1 - i) * 3, 3);
    return rgb;
}

static int attach(struct golden *g)
{
    const struct st_tensor *actions = golden_input(g, "oft", "fp32.s0.l1.normalized");
    _cleanup_(strbuf_release) struct strbuf dir = STRBUF_INIT;
    struct oft_config how = {.kind = OFT_L1, .images = 2};
    int r;

    if (!actions)
        return -ENOENT;
    if (actions->ndim != 2 || actions->dim[1] != g->model->config.action_dims || actions->numel > OFT_MAX_SLOTS)
        return error_set(g->error, EINVAL, "golden/oft.safetensors: fp32.s0.l1.normalized must be [chunk,%d]",
                         g->model->config.action_dims);
    how.chunk = (int)actions->dim[0];
    strbuf_addf(&dir, "%s/golden/oft", g->dir);
    r = dir.failed ? -ENOMEM : oft_attach(g->model, dir.text, &how, g->error);
    if (r >= 0 && openvla_pack(g->model, false) < 0)
        r = error_set(g->error, ENOMEM, "out of memory");
    return r;
}

int golden_check_oft(struct golden *g)
{
    double state[GOLDEN_SAMPLES * OPENVLA_MAX_PROPRIO];
    int r;

    if (!golden_has(g, "oft", "fp32.s0.l1.normalized"))
        return 0;
    golden_begin(g);
    r = attach(g);
    if (r >= 0)
        r = check_state(g, state);
    for (int s = 0; s < GOLDEN_SAMPLES && r >= 0; s++) {
        _cleanup_free_ uint8_t *wrist = wrist_picture(g, s);

        if (!wrist)
            return error_set(g->error, ENOMEM, "out of memory");
        r = check_sample(g, s, true, wrist, state + s * g->model->config.oft.proprio);
        if (r >= 0)
            r = check_sample(g, s, false, NULL, NULL);
    }
    golden_end(g, "oft");
    return r;
}
