/* model_act.c - `gantry model act DIR INSTRUCTION`: one answer of a policy by itself, with what it took. For a look at a
 * checkpoint, and for dry runs of large ones. Of an OpenVLA-OFT that is a chunk of actions; all its cameras see the one picture, and
 * the robot is in the middle of its states' ranges. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "base/clock.h"
#include "base/json_write.h"
#include "cli/cli.h"
#include "cli/model.h"
#include "image/prepare.h"
#include "nn/models/openvla.h"
#include "nn/models/openvla_oft.h"

struct shown {
    struct openvla *model;
    struct openvla_session *session;
    uint8_t *picture;           /* [H][W][3] */
    int32_t *prompt; int n_prompt;
    struct act_result result;
    struct oft_result chunk;    /* an OpenVLA-OFT's */
    double load_s, pack_s, act_s, act_cpu_s;
};

static void shown_release(struct shown *s)
{
    openvla_free(s->model);
    openvla_session_free(s->session);
    free(s->picture);
    free(s->prompt);
}

/* The file, brought to the model's size as its processor would; without one a gradient. */
static int read_picture(const char *path, const struct openvla_config *c, uint8_t **ret, struct error *error)
{
    struct image_prepare how = c->prepare;
    _cleanup_free_ uint8_t *rgb = malloc((size_t)how.height * (size_t)how.width * 3);
    struct image image = {0};
    int r;

    if (!rgb)
        return error_set(error, ENOMEM, "out of memory");
    if (!path)
        for (int i = 0; i < how.height * how.width * 3; i++)
            rgb[i] = (uint8_t)((i / 3 % how.width + i / 3 / how.width * (1 + i % 3)) & 255);
    else {
        r = image_read(path, &image, error);
        if (r < 0)
            return r;
        r = image_prepare(image.rgb, image.height, image.width, &how, rgb);
        free(image.rgb);
        if (r < 0)
            return error_set(error, -r, "%s: %s", path, strerror(-r));
    }
    *ret = TAKE_PTR(rgb);
    return 0;
}

static double seconds_since(uint64_t begin_ns)
{
    return (double)(clock_mono_ns() - begin_ns) * 1e-9;
}

/* Multiply-adds of the linear maps and attention, twice. The rows that nobody asks for are not computed, and not counted. */
static double count_flops(const struct openvla_config *c, int n_prompt)
{
    double h = c->hidden, fused = c->tower[0].dim + c->tower[1].dim, sequence = c->patches + n_prompt, sum = 0;
    double layer = 4 * h * h + 3 * h * c->intermediate;

    for (int i = 0; i < 2; i++) {
        const struct openvla_tower *t = &c->tower[i];
        double rows = c->patches + t->prefix, d = t->dim;

        sum += 2 * c->patches * d * 3 * t->patch * t->patch;
        sum += (t->depth - 1) * (2 * rows * (4 * d * d + 2 * d * t->mlp) + 4 * rows * rows * d);
    }
    sum += 2 * c->patches * (4 * fused * fused + 4 * fused * h + h * h);
    sum += (c->layers - 1) * (2 * sequence * layer + 2 * sequence * sequence * h);
    sum += 2 * (2 * sequence * h * h + 2 * h * h + 3 * h * c->intermediate) + 4 * sequence * h; /* the last layer: one row asks */
    for (int k = 1; k < c->action_dims; k++)
        sum += c->layers * (2 * layer + 4 * (sequence + k) * h);
    return sum + c->action_dims * 2.0 * h * OPENVLA_ACTION_BINS;
}

static int ask(struct shown *s, bool full)
{
    static const float middle[OPENVLA_MAX_PROPRIO];
    const struct oft_config *oft = &s->model->config.oft;
    struct act_item item = {.images = {s->picture}, .n_images = 1, .prompt = s->prompt, .n_prompt = s->n_prompt, .full = full};
    struct oft_item chunk = {.n_images = oft->images, .prompt = s->prompt, .n_prompt = s->n_prompt, .full = full,
                             .proprio = oft->proprio ? middle : NULL};

    if (oft->kind == OFT_NONE)
        return openvla_act(s->model, s->session, &item, 1, &s->result);
    for (int i = 0; i < oft->images; i++)
        chunk.images[i] = s->picture;
    return oft_act(s->model, s->session, &chunk, 1, &s->chunk);
}

static int act(struct shown *s, const char *dir, const char *instruction, const char *picture, bool full, bool fast,
               struct error *error)
{
    uint64_t begin = clock_mono_ns(), cpu;
    int r = openvla_load_halves(dir, OPENVLA_LARGE, &s->model, error);

    if (r < 0)
        return r;
    s->load_s = seconds_since(begin);
    if (fast && !params_use_fast(&s->model->params))
        return error_set(error, ENOTSUP, "--fast: this CPU has no VDPBF16PS (AVX512_BF16); leave it out for strict products");
    begin = clock_mono_ns();
    r = openvla_pack(s->model, false);
    s->pack_s = seconds_since(begin);
    if (r >= 0)
        r = openvla_prompt(s->model, instruction, &s->prompt, &s->n_prompt);
    if (r == -E2BIG)
        return openvla_prompt_failed(s->model, r, error);
    if (r >= 0)
        r = openvla_session_new(&s->model->config, 1, &s->session);
    if (r < 0)
        return error_set(error, -r, "%s: %s", dir, strerror(-r));
    r = read_picture(picture, &s->model->config, &s->picture, error);
    if (r < 0)
        return r;
    begin = clock_mono_ns();
    cpu = clock_cpu_ns();
    r = ask(s, full);
    s->act_s = seconds_since(begin);
    s->act_cpu_s = (double)(clock_cpu_ns() - cpu) * 1e-9;
    return r < 0 ? error_set(error, -r, "%s: acting: %s", dir, strerror(-r)) : 0;
}

static void write_numbers(struct json_writer *w, const char *key, const double *numbers, int n)
{
    json_open(w, key, '[');
    for (int k = 0; k < n; k++)
        json_number(w, NULL, numbers[k]);
    json_close(w, ']');
}

/* One action: its tokens, as numbers in [-1,1], and in the data's units. */
static void write_action(struct json_writer *w, const struct shown *s, const struct action_stats *stats)
{
    const struct openvla_config *c = &s->model->config;
    double logp[OPENVLA_MAX_ACTION_DIMS], normalised[OPENVLA_MAX_ACTION_DIMS], action[OPENVLA_MAX_ACTION_DIMS];

    json_open(w, "tokens", '[');
    for (int k = 0; k < c->action_dims; k++) {
        json_signed(w, NULL, s->result.tokens[k]);
        logp[k] = (double)s->result.logp[k];
        normalised[k] = openvla_decode(c, s->result.tokens[k]);
    }
    json_close(w, ']');
    write_numbers(w, "logp", logp, c->action_dims);
    write_numbers(w, "normalised", normalised, c->action_dims);
    if (stats && stats->dims == c->action_dims) {
        openvla_unnormalise(stats, normalised, action);
        write_numbers(w, "action", action, c->action_dims);
    }
}

static void write_chunk(struct json_writer *w, const struct shown *s, const struct action_stats *stats)
{
    const struct openvla_config *c = &s->model->config;
    bool units = stats && stats->dims == c->action_dims;
    double action[OPENVLA_MAX_ACTION_DIMS];

    json_open(w, "normalised", '[');
    for (int i = 0; i < c->oft.chunk; i++)
        write_numbers(w, NULL, s->chunk.action + i * c->action_dims, c->action_dims);
    json_close(w, ']');
    if (units)
        json_open(w, "actions", '[');
    for (int i = 0; i < c->oft.chunk && units; i++) {
        oft_unnormalise(stats, s->chunk.action + i * c->action_dims, action);
        write_numbers(w, NULL, action, c->action_dims);
    }
    if (units)
        json_close(w, ']');
}

static int print(const struct shown *s, const char *key, struct error *error)
{
    const struct openvla_config *c = &s->model->config;
    const struct action_stats *stats = openvla_stats(s->model, key);
    _cleanup_(strbuf_release) struct strbuf out = STRBUF_INIT;
    struct json_writer w = {.out = &out};
    bool one = c->oft.kind == OFT_NONE;
    struct rusage usage;

    if (key && !stats)
        return error_set(error, ENOENT, "--key %s: no such dataset; `gantry model inspect` lists them", key);
    (void)getrusage(RUSAGE_SELF, &usage);
    json_open(&w, NULL, '{');
    if (one)
        write_action(&w, s, stats);
    else
        write_chunk(&w, s, stats);
    json_signed(&w, "prompt_ids", s->n_prompt);
    json_signed(&w, "sequence", one ? c->patches + s->n_prompt : s->n_prompt + c->oft.images * c->patches + !!c->oft.proprio +
                                                                     c->oft.chunk * c->action_dims + 1);
    json_number(&w, "load_s", s->load_s);
    json_number(&w, "pack_s", s->pack_s);
    json_number(&w, "act_s", s->act_s);
    json_number(&w, "act_cpu_s", s->act_cpu_s);
    if (one) {
        double flops = count_flops(c, s->n_prompt);

        json_number(&w, "gflop", flops * 1e-9);
        json_number(&w, "gflop_per_s", flops * 1e-9 / s->act_s);
        json_number(&w, "gflop_per_cpu_s", flops * 1e-9 / s->act_cpu_s);
    }
    json_number(&w, "peak_resident_gib", (double)usage.ru_maxrss / (1 << 20));
    json_close(&w, '}');
    if (out.failed)
        return error_set(error, ENOMEM, "out of memory");
    printf("%s\n", out.text);
    return 0;
}

int model_act(int argc, char **argv)
{
    const char *picture = model_option(&argc, argv, "--picture"), *key = model_option(&argc, argv, "--key");
    bool full = model_flag(&argc, argv, "--full"), fast = model_flag(&argc, argv, "--fast");
    _cleanup_(shown_release) struct shown s = {0};
    struct error error = {0};
    int r;

    if (argc != 2)
        return CLI_USAGE;
    r = act(&s, argv[0], argv[1], picture, full, fast, &error);
    if (r >= 0)
        r = print(&s, key, &error);
    return r < 0 ? model_fail(&error, r) : CLI_OK;
}
