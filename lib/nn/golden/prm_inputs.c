/* prm_inputs.c - from text and pictures to what the model reads: ids, prompts, positions, windows, pixels. */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "base/strbuf.h"
#include "image/smart_resize.h"
#include "nn/golden/prm_internal.h"
#include "nn/tokenizer.h"

static int check_tokenizer(struct prm_check *p, const char *path)
{
    _cleanup_json_ json_t *list = prm_json(p, path);
    struct prm_tally tally = {0};
    size_t at;
    json_t *entry;

    if (!list)
        return -EINVAL;
    json_array_foreach(list, at, entry) {
        const json_t *text = json_object_get(entry, "text"), *decoded = json_object_get(entry, "decoded");
        _cleanup_free_ int32_t *ids = NULL;
        _cleanup_free_ char *back = NULL;
        size_t length = 0;
        int n = 0, r = tokenizer_encode(p->model->tokenizer, json_string_value(text), json_string_length(text), true, &ids, &n);

        if (r >= 0)
            r = tokenizer_decode(p->model->tokenizer, ids, n, false, &back, &length);
        if (r >= 0 && prm_same_integers(json_object_get(entry, "ids"), ids, n) && length == json_string_length(decoded) &&
            !memcmp(back, json_string_value(decoded), length))
            continue;
        prm_wrong(&tally, "string %zu: %.60s", at, json_string_value(text));
    }
    prm_count_tally(p, "tokenizer: ids and back", (int)json_array_size(list), &tally);
    return 0;
}

/* ---- prompts --------------------------------------------------------------------------------------------------------- */

/* The past of a prompt as its file has it; actions in `numbers`. */
static int read_past(const json_t *prompt, struct qwen_step *past, float *numbers)
{
    const json_t *frames = json_object_get(prompt, "frames"), *actions = json_object_get(prompt, "actions");
    int n = (int)json_array_size(frames);

    for (int i = 0; i < n; i++) {
        const json_t *action = json_array_get(actions, (size_t)i);

        past[i] = (struct qwen_step) {.frame = (int)json_integer_value(json_array_get(frames, (size_t)i)), .action = numbers,
                                      .dims = (int)json_array_size(action)};
        for (size_t k = 0; k < json_array_size(action); k++)
            *numbers++ = (float)json_number_value(json_array_get(action, k));
    }
    return n;
}

static size_t count_numbers(const json_t *prompt)
{
    const json_t *actions = json_object_get(prompt, "actions");
    size_t n = 0;

    for (size_t i = 0; i < json_array_size(actions); i++)
        n += json_array_size(json_array_get(actions, i));
    return n;
}

/* Frames kept, text, pictures and their tokens; fills item i. *ret_same: all as the file has it. */
static int make_item(struct prm_check *p, const json_t *prompt, int i, bool *ret_same)
{
    const json_t *pictures = json_object_get(prompt, "images"), *tokens = json_object_get(prompt, "image_tokens");
    const char *instruction = json_string_value(json_object_get(prompt, "instruction"));
    const char *want = json_string_value(json_object_get(prompt, "text"));
    int recent = (int)json_integer_value(json_object_get(p->manifest, "k_recent")), kept, count[QWEN_MAX_PICTURES];
    _cleanup_free_ struct qwen_step *past = calloc((size_t)recent + 2, sizeof(*past));
    _cleanup_free_ float *numbers = calloc(count_numbers(prompt) + 1, sizeof(*numbers));
    _cleanup_free_ int *frames = calloc((size_t)recent + 1, sizeof(*frames));
    _cleanup_free_ char *text = NULL;
    struct qwen_item *item = &p->items[i];
    int side = p->model->config.vision.patch * p->model->config.vision.merge, n_past, r;
    size_t length;

    if (!past || !numbers || !frames)
        return error_set(p->error, ENOMEM, "out of memory");
    item->n_pictures = (int)json_array_size(pictures);
    if (!instruction || !want || item->n_pictures > QWEN_MAX_PICTURES ||
        (int)json_array_size(json_object_get(prompt, "frames")) > recent + 1)
        return error_set(p->error, EINVAL, "%s/prompts.json: prompt %d: no instruction or text, or more frames than k_recent + 1",
                         p->name, i);
    kept = qwen_vl_kept_frames((int)json_integer_value(json_object_get(prompt, "t")), recent, 1,
                               json_is_true(json_object_get(p->manifest, "keep_first")), frames);
    n_past = read_past(prompt, past, numbers);
    *ret_same = kept == n_past && item->n_pictures == n_past + 1;
    for (int k = 0; k < MIN(kept, n_past); k++)
        *ret_same = *ret_same && frames[k] == past[k].frame;
    for (int k = 0; k < item->n_pictures; k++) {
        int64_t at = json_integer_value(json_array_get(pictures, (size_t)k));

        if (at < 0 || at >= p->n_pictures)
            return error_set(p->error, EINVAL, "%s/prompts.json: prompt %d: there is no picture %lld", p->name, i, (long long)at);
        item->pictures[k] = p->picture[at];
        count[k] = p->picture[at].height / side * (p->picture[at].width / side);
        *ret_same = *ret_same && count[k] == json_integer_value(json_array_get(tokens, (size_t)k));
    }
    r = qwen_vl_prompt_text(instruction, past, n_past, &text, &length);
    if (r >= 0) {
        *ret_same = *ret_same && !strcmp(text, want);
        r = qwen_vl_prompt_ids(p->model, text, length, count, item->n_pictures, &p->ids[i], &item->n_ids);
    }
    item->ids = p->ids[i];
    *ret_same = *ret_same && item->n_ids == json_integer_value(json_object_get(prompt, "n_tokens"));
    return r < 0 ? error_set(p->error, -r, "%s: prompt %d: %s", p->name, i, strerror(-r)) : 0;
}

static int check_prompts(struct prm_check *p)
{
    struct prm_tally tally = {0};
    char path[512];
    int r;

    snprintf(path, sizeof(path), "%s/prompts.json", p->name);
    p->prompts = prm_json(p, path);
    if (!p->prompts)
        return -EINVAL;
    p->n = (int)json_array_size(p->prompts);
    p->items = calloc((size_t)p->n + 1, sizeof(*p->items));
    p->ids = calloc((size_t)p->n + 1, sizeof(*p->ids));
    p->labels = calloc((size_t)p->n + 1, sizeof(*p->labels));
    if (!p->items || !p->ids || !p->labels)
        return error_set(p->error, ENOMEM, "out of memory");
    for (int i = 0; i < p->n; i++) {
        const json_t *prompt = json_array_get(p->prompts, (size_t)i);
        bool same = false;

        p->labels[i] = (float)json_number_value(json_object_get(prompt, "label"));
        r = make_item(p, prompt, i, &same);
        if (r < 0)
            return r;
        if (!same)
            prm_wrong(&tally, "prompt %d", i);
    }
    prm_count_tally(p, "prompts: frames, text, pictures, tokens", p->n, &tally);
    return p->n ? 0 : error_set(p->error, EINVAL, "%s: no prompts", path);
}

/* ---- where everything lies ---------------------------------------------------------------------------------------------- */

/* The tower's table against the cosines and sines of the reference's angles, which are in the pictures' own order. */
static int wrong_angles(const struct qwen_layout *l, const struct st_tensor *angles, const float *table, int half)
{
    int wrong = 0;

    for (int64_t r = 0; r < l->patches; r++)
        for (int i = 0; i < half; i++) {
            const float *row = table + 2 * r * half;
            float angle = 0;

            (void)st_read_f32(angles, (l->n_windows ? l->window_rows[r] : r) * half + i, 1, &angle);
            wrong +=
                !(fabs((double)row[i] - cos((double)angle)) < 1e-6 && fabs((double)row[half + i] - sin((double)angle)) < 1e-6);
        }
    return wrong;
}

static void check_angles(struct prm_check *p, const struct safetensors *file, const struct qwen_layout *l)
{
    static const char name[] = "vision.rotary_angles (cos, sin to 1e-6)";
    const struct qwen_vision_config *v = &p->model->config.vision;
    const struct st_tensor *angles = safetensors_find(file, "vision.rotary_angles");
    int half = v->dim / v->heads / 2;
    struct tape tape;
    float *table;

    tape_init(&tape, false);
    if (tape_reserve(&tape, (size_t)l->patches * (size_t)half * 2 * sizeof(*table) + 4096) < 0)
        return;
    tape_begin(&tape);
    table = qwen_vision_table(v, &tape, l);
    prm_note(p, file, "vision.rotary_angles");
    if (!table || !angles || angles->numel != (int64_t)l->patches * half)
        prm_count(p, name, l->patches, 1, "missing, or of another size");
    else
        prm_count(p, name, l->patches * half, wrong_angles(l, angles, table, half), "an angle");
    tape_release(&tape);
}

static void check_pixels(struct prm_check *p, const struct qwen_layout *l)
{
    const struct qwen_vision_config *v = &p->model->config.vision;
    int64_t cols = (int64_t)3 * v->patch * v->patch;
    _cleanup_free_ float *x = calloc((size_t)(l->patches * cols) + 1, sizeof(*x));
    _cleanup_free_ int32_t *grid = calloc((size_t)l->n_pictures * 3 + 1, sizeof(*grid));

    for (int i = 0; x && grid && i < l->n_pictures; i++) {
        const struct qwen_picture *picture = &l->pictures[i];

        (void)image_qwen_patches(picture->rgb, picture->height, picture->width, v->patch, v->merge, p->model->lut,
                                 x + l->picture_start[i] * cols);
        grid[3 * i] = 1;
        grid[3 * i + 1] = picture->height / v->patch;
        grid[3 * i + 2] = picture->width / v->patch;
    }
    if (x && grid) {
        prm_tensor(p, p->pictures, "pixel_values_half", x, l->patches * cols, PRM_EXACT, 0);
        prm_integers(p, p->pictures, "image_grid_thw", grid, 3 * (int64_t)l->n_pictures);
    }
}

static void compare_layout(struct prm_check *p, const struct safetensors *file, const struct qwen_layout *l)
{
    _cleanup_free_ int32_t *ids = calloc((size_t)l->rows + 1, sizeof(*ids)),
                           *position = calloc(3 * (size_t)l->rows + 1, sizeof(*position));
    int rows = 0;

    if (!ids || !position)
        return;
    for (int i = 0; i < p->n; i++)
        for (int k = 0; k < p->items[i].n_ids; k++)
            ids[rows++] = p->items[i].ids[k];
    for (int axis = 0; axis < 3; axis++)
        memcpy(position + axis * l->rows, l->position[axis], (size_t)l->rows * sizeof(*position));
    prm_integers(p, file, "input_ids", ids, rows);
    prm_integers(p, file, "cu_prompt_lens", l->start, p->n + 1);
    prm_integers(p, file, "position_ids", position, 3 * (int64_t)l->rows);
    prm_integers(p, file, "rope_delta", l->delta, p->n);
    prm_tensor(p, file, "labels", p->labels, p->n, PRM_EXACT, 0);
    prm_integers(p, file, "vision.cu_seqlens", l->picture_start, l->n_pictures + 1);
    if (p->model->config.vision.window) {
        prm_integers(p, file, "vision.window_index", l->window_order, l->merged);
        prm_integers(p, file, "vision.cu_window_seqlens", l->window_start, l->n_windows + 1);
        prm_integers(p, file, "vision.cu_window_seqlens_raw", l->window_start_raw, l->n_windows_raw + 1);
    }
    check_angles(p, file, l);
    check_pixels(p, l);
}

static int check_layout(struct prm_check *p)
{
    _cleanup_(safetensors_closep) struct safetensors *file = NULL;
    struct qwen_layout layout;
    struct tape tape;
    char path[512];
    int r;

    snprintf(path, sizeof(path), "%s/inputs.safetensors", p->name);
    file = prm_open(p, path);
    if (!file)
        return -EINVAL;
    tape_init(&tape, false);
    tape_plan(&tape);           /* a dry run: its small memory is real */
    r = qwen_layout(p->model, &tape, p->items, p->n, &layout);
    if (r >= 0)
        compare_layout(p, file, &layout);
    else
        (void)error_set(p->error, -r, "%s: the prompts cannot be laid out: %s", p->name, strerror(-r));
    tape_release(&tape);
    return r;
}

int prm_check_inputs(struct prm_check *p)
{
    char path[512];
    int r = 0;

    snprintf(path, sizeof(path), "%s/tokenizer_goldens.json", p->name);
    if (prm_has(p, path))
        r = check_tokenizer(p, path);
    if (r >= 0)
        r = check_prompts(p);
    return r < 0 ? r : check_layout(p);
}
