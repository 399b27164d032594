#include "train/sample.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/philox.h"
#include "nn/models/openvla_oft.h"
#include "nn/reward_config.h"
#include "train/sample_check.h"

int dataset_new(const struct openvla *model, struct dataset **ret)
{
    struct dataset *data = calloc(1, sizeof *data);

    if (!data)
        return -ENOMEM;
    data->model = model;
    data->picture_height = model->config.image_height;
    data->picture_width = model->config.image_width;
    data->frame_size = (size_t)model->config.image_height * (size_t)model->config.image_width * 3;
    data->action_dims = data->token_dims = model->config.action_dims;
    data->images = model->config.oft.kind == OFT_NONE ? 1 : model->config.oft.images;
    data->width = model->config.oft.kind == OFT_NONE ? data->action_dims : oft_slots(&model->config);
    *ret = data;
    return 0;
}

int dataset_new_reward(const struct qwen_vl *reward, struct dataset **ret)
{
    struct dataset *data = calloc(1, sizeof *data);

    if (!data)
        return -ENOMEM;
    data->reward = reward;
    data->images = 1;
    *ret = data;
    return 0;
}

static void episode_release(struct train_episode *episode)
{
    free(episode->frames);
    free(episode->tokens);
    free(episode->logp);
    free(episode->hidden);
    free(episode->progress);
    free(episode->env_reward);
    free(episode->label);
    free(episode->turns);
    free(episode->observed);
    free(episode->action);
    free(episode->state);
}

int dataset_expect_end(struct dataset *data, struct error *error)
{
    if (data->model->config.oft.kind != OFT_NONE)
        return error_set(error, EINVAL,
                         "policy.eos_in_logp: this policy answers whole chunks and says no end token; leave the key out");
    data->width = data->token_dims = data->action_dims + 1;
    return 0;
}

struct dataset *dataset_free(struct dataset *data)
{
    if (!data)
        return NULL;
    for (int i = 0; i < data->n; i++)
        episode_release(&data->list[i]);
    for (int i = 0; i < data->n_prompts; i++) {
        free(data->prompts[i].instruction);
        free(data->prompts[i].ids);
        free(data->prompts[i].reward_ids);
    }
    for (int i = 0; i < data->n_tasks; i++)
        free(data->tasks[i]);
    free(data->list);
    free(data->prompts);
    free(data->tasks);
    free(data);
    return NULL;
}

/* ---- building ------------------------------------------------------------------------------------ */

static int task_index(struct dataset *data, const char *task)
{
    char **larger, *name;

    for (int i = 0; i < data->n_tasks; i++)
        if (!strcmp(data->tasks[i], task))
            return i;
    name = strdup(task);
    larger = name ? realloc(data->tasks, (size_t)(data->n_tasks + 1) * sizeof *larger) : NULL;
    if (!larger) {
        free(name);
        return -ENOMEM;
    }
    data->tasks = larger;
    data->tasks[data->n_tasks] = name;
    return data->n_tasks++;
}

static int prompt_index(struct dataset *data, const char *instruction)
{
    struct dataset_prompt prompt = {0}, *larger;
    int r;

    for (int i = 0; i < data->n_prompts; i++)
        if (!strcmp(data->prompts[i].instruction, instruction))
            return i;
    larger = realloc(data->prompts, (size_t)(data->n_prompts + 1) * sizeof *larger);
    if (!larger)
        return -ENOMEM;
    data->prompts = larger;
    r = data->reward ? 0 : openvla_prompt(data->model, instruction, &prompt.ids, &prompt.n);
    if (r < 0)
        return r;
    r = data->reward ? 0 : openvla_reward_prompt(data->model, instruction, &prompt.reward_ids, &prompt.n_reward);
    if (r == -E2BIG && !data->model->config.reward_width)
        r = 0;                  /* there is no head that anybody could ask */
    prompt.instruction = r < 0 ? NULL : strdup(instruction);
    if (!prompt.instruction) {
        free(prompt.ids);
        free(prompt.reward_ids);
        return r < 0 ? r : -ENOMEM;
    }
    data->prompts[data->n_prompts] = prompt;
    return data->n_prompts++;
}

static int copy_floats(const float *from, size_t n, float **ret)
{
    float *copy = NULL;

    if (n) {
        copy = malloc(n * sizeof *copy);
        if (!copy)
            return -ENOMEM;
        memcpy(copy, from, n * sizeof *copy);
    }
    *ret = copy;
    return 0;
}

/* Numbers of steps, which files hold unsigned. None: NULL. */
static int copy_steps(const uint32_t *from, size_t n, int **ret, int *ret_n)
{
    int *copy = NULL;

    if (n) {
        copy = malloc(n * sizeof *copy);
        if (!copy)
            return -ENOMEM;
        for (size_t i = 0; i < n; i++)
            copy[i] = (int)from[i];
    }
    *ret = copy;
    *ret_n = (int)n;
    return 0;
}

/* To the bit as the actor does it. */
static int fill_state(const struct dataset *data, const struct episode_input *in, struct train_episode *episode)
{
    const struct openvla_config *c = &data->model->config;
    int width = c->oft.kind == OFT_NONE ? 0 : c->oft.proprio, rows = in->steps + 1;
    double state[OPENVLA_MAX_PROPRIO], normalised[OPENVLA_MAX_PROPRIO];

    if (!width)
        return 0;
    episode->state = malloc((size_t)(rows * width) * sizeof *episode->state);
    if (!episode->state)
        return -ENOMEM;
    for (int t = 0; t < rows; t++) {
        for (int k = 0; k < width; k++)
            state[k] = (double)in->state[t * width + k];
        oft_normalise_state(openvla_stats(data->model, NULL), state, normalised);
        for (int k = 0; k < width; k++)
            episode->state[t * width + k] = (float)normalised[k];
    }
    return 0;
}

/* As the policy would say them, in [-1,1]: of a data set from its units, of an episode of the suite from the suite's. Counts what
 * lies outside. */
static int fill_labels(struct dataset *data, const struct episode_input *in, struct train_episode *episode)
{
    const struct action_stats *stats = openvla_stats(data->model, NULL);    /* none: nobody could execute what it learns */
    int dims = data->action_dims;
    double action[OPENVLA_MAX_ACTION_DIMS];

    if (copy_floats(in->label, in->n_label, &episode->label) < 0)
        return -ENOMEM;
    for (int t = 0; stats && t < in->steps; t++) {
        for (int k = 0; k < dims; k++)
            action[k] = (double)in->label[t * dims + k];
        data->outside += in->label_units ? openvla_normalise(stats, action, action)
                                         : openvla_from_environment(data->model, action, action);
        data->labels += dims;
        for (int k = 0; k < dims; k++)
            episode->label[t * dims + k] = (float)action[k];
    }
    return 0;
}

/* As the labels say them, an end token behind each step's where the data set has it; or as they were sampled. */
static int fill_tokens(const struct dataset *data, const struct episode_input *in, struct train_episode *episode)
{
    const struct openvla_config *c = &data->model->config;
    size_t dims = (size_t)data->action_dims, width = (size_t)data->token_dims, n = (size_t)in->steps * width;

    episode->tokens = malloc(n * sizeof *episode->tokens);
    if (!episode->tokens)
        return -ENOMEM;
    for (size_t i = 0; i < n; i++) {
        size_t step = i / width, k = i % width;

        if (!in->demo)
            episode->tokens[i] = (int32_t)in->tokens[i];
        else
            episode->tokens[i] = k < dims ? openvla_encode(c, (double)episode->label[step * dims + k]) : c->eos_id;
    }
    return 0;
}

static int fill_episode(struct dataset *data, const struct episode_input *in, struct train_episode *episode)
{
    size_t n_action = (size_t)in->steps * (size_t)data->action_dims;

    if (copy_steps(in->observed, in->n_observed, &episode->observed, &episode->n_observed) < 0)
        return -ENOMEM;
    if (data->reward)
        return copy_floats(in->action, in->n_action, &episode->action);
    if (in->n_action == n_action && copy_floats(in->action, n_action, &episode->action) < 0)
        return -ENOMEM;
    if (copy_floats(in->progress, in->n_progress, &episode->progress) < 0)
        return -ENOMEM;
    if (in->demo && fill_labels(data, in, episode) < 0)
        return -ENOMEM;
    if (fill_tokens(data, in, episode) < 0 || fill_state(data, in, episode) < 0)
        return -ENOMEM;
    if (in->demo)
        return 0;
    if (copy_steps(in->turns, in->n_turns, &episode->turns, &episode->n_turns) < 0 ||
        copy_floats(in->hidden, in->n_hidden, &episode->hidden) < 0 ||
        copy_floats(in->env_reward, in->n_env_reward, &episode->env_reward) < 0)
        return -ENOMEM;
    return copy_floats(in->logp, in->n_logp, &episode->logp);
}

int dataset_add(struct dataset *data, const struct episode_input *in, struct error *error)
{
    struct train_episode episode = {
        .id = in->id, .state_seed = in->state_seed, .policy_version = in->policy_version, .steps = in->steps,
        .max_steps = in->max_steps, .success = in->success, .demo = in->demo, .temperature = in->temperature,
    };
    int r = sample_check(data, in, error);

    if (r < 0)
        return r;
    if (data->n && data->list[data->n - 1].id == in->id)
        return error_set(error, EEXIST, "episode %" PRIu64 " is named twice", in->id);
    if (data->n == data->capacity) {
        int capacity = MAX(64, data->capacity * 2);
        struct train_episode *larger = realloc(data->list, (size_t)capacity * sizeof *larger);

        if (!larger)
            return error_set(error, ENOMEM, "out of memory at %d episodes", data->n);
        data->list = larger;
        data->capacity = capacity;
    }
    if (data->reward) {
        data->picture_height = in->height;
        data->picture_width = in->width;
        data->frame_size = (size_t)in->height * (size_t)in->width * 3;
        data->action_dims = in->action_dims;
    }
    episode.task = task_index(data, in->task);
    episode.prompt = episode.task < 0 ? -ENOMEM : prompt_index(data, in->instruction);
    if (episode.prompt < 0)
        return error_set(error, -episode.prompt, "episode %" PRIu64 ": its instruction %s", in->id,
                         episode.prompt == -E2BIG ? "is too long for the model's context" : "cannot be turned into a prompt");
    r = fill_episode(data, in, &episode);
    if (r < 0) {
        episode_release(&episode);
        return error_set(error, -r, "out of memory at %d episodes", data->n);
    }
    episode.frames = in->frames;
    data->cameras = in->images;
    if (!in->demo) {
        data->full = in->full;
        data->drawn = true;
    }
    snprintf(data->image_chain, sizeof data->image_chain, "%s", sample_chain(in));
    data->list[data->n++] = episode;
    return 0;
}

static int by_id(const void *a, const void *b)
{
    uint64_t x = ((const struct train_episode *)a)->id, y = ((const struct train_episode *)b)->id;

    return (x > y) - (x < y);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

void dataset_sort(struct dataset *data)
{
    if (!data->n)
        return;
    /* tasks are renumbered by name: swap the index for the name's place in the sorted list */
    for (int i = 0; i < data->n; i++) {
        const char *name = data->tasks[data->list[i].task];
        int place = 0;

        for (int j = 0; j < data->n_tasks; j++)
            place += strcmp(data->tasks[j], name) < 0;
        data->list[i].task = place;
    }
    qsort(data->tasks, (size_t)data->n_tasks, sizeof *data->tasks, by_name);
    qsort(data->list, (size_t)data->n, sizeof *data->list, by_id);
}

/* ---- reading ------------------------------------------------------------------------------------- */

static int make_refs(int64_t n, struct step_ref **ret)
{
    struct step_ref *refs = n > INT32_MAX / 2 ? NULL : malloc((size_t)MAX(n, 1) * sizeof *refs);

    if (!refs)
        return n > INT32_MAX / 2 ? -EFBIG : -ENOMEM;
    *ret = refs;
    return 0;
}

int dataset_steps(const struct dataset *data, bool (*want)(const struct train_episode *episode, const void *arg), const void *arg,
                  struct step_ref **ret, int *ret_n)
{
    struct step_ref *steps;
    int64_t total = 0;
    int n = 0, r;

    for (int i = 0; i < data->n; i++)
        total += data->list[i].steps;
    if ((r = make_refs(total, &steps)) < 0)
        return r;
    for (int i = 0; i < data->n; i++)
        for (int k = 0; k + 1 < dataset_observed_count(&data->list[i]) && (!want || want(&data->list[i], arg)); k++)
            steps[n++] = (struct step_ref) {i, dataset_observed(&data->list[i], k)};
    *ret = steps;
    *ret_n = n;
    return 0;
}

int dataset_decision_count(const struct train_episode *episode)
{
    return episode->turns ? episode->n_turns : episode->steps;
}

int dataset_decisions(const struct dataset *data, struct step_ref **ret, int *ret_n)
{
    struct step_ref *steps;
    int64_t total = 0;
    int n = 0, r;

    for (int i = 0; i < data->n; i++)
        total += dataset_decision_count(&data->list[i]);
    if ((r = make_refs(total, &steps)) < 0)
        return r;
    for (int i = 0; i < data->n; i++)
        for (int k = 0; k < dataset_decision_count(&data->list[i]); k++)
            steps[n++] = (struct step_ref) {i, data->list[i].turns ? data->list[i].turns[k] : k};
    *ret = steps;
    *ret_n = n;
    return 0;
}

int dataset_executed(const struct dataset *data, struct step_ref at)
{
    const struct train_episode *episode = &data->list[at.episode];

    for (int i = 0; i < episode->n_turns; i++)
        if (episode->turns[i] == at.step)
            return (i + 1 < episode->n_turns ? episode->turns[i + 1] : episode->steps) - at.step;
    return 1;
}

int dataset_observed_count(const struct train_episode *episode)
{
    return episode->observed ? episode->n_observed : episode->steps + 1;
}

int dataset_observed(const struct train_episode *episode, int i)
{
    return episode->observed ? episode->observed[i] : i;
}

int dataset_frame_number(const struct train_episode *episode, int step)
{
    int low = 0, high = episode->n_observed;

    if (!episode->observed)
        return step;
    while (high - low > 1) {
        int middle = (low + high) / 2;

        if (episode->observed[middle] <= step)
            low = middle;
        else
            high = middle;
    }
    return low;
}

bool dataset_is_observed(const struct dataset *data, struct step_ref at)
{
    const struct train_episode *episode = &data->list[at.episode];

    return dataset_observed(episode, dataset_frame_number(episode, at.step)) == at.step;
}

const uint8_t *dataset_frame(const struct dataset *data, struct step_ref at)
{
    const struct train_episode *episode = &data->list[at.episode];

    return episode->frames + (size_t)dataset_frame_number(episode, at.step) * (size_t)data->cameras * data->frame_size;
}

struct openvla_item dataset_policy_item(const struct dataset *data, struct step_ref at, int n_actions)
{
    const struct train_episode *episode = &data->list[at.episode];
    const struct dataset_prompt *prompt = &data->prompts[episode->prompt];

    struct openvla_item item = {.n_images = data->images, .prompt = prompt->ids, .n_prompt = prompt->n};

    for (int i = 0; i < data->images; i++)
        item.images[i] = dataset_frame(data, at) + (size_t)i * data->frame_size;
    if (data->model->config.oft.kind == OFT_NONE) {
        item.actions = episode->tokens + at.step * data->token_dims;
        item.n_actions = n_actions;
    } else {
        item.slots = data->width;
        item.proprio = episode->state ? episode->state + at.step * data->model->config.oft.proprio : NULL;
    }
    return item;
}

struct openvla_item dataset_reward_item(const struct dataset *data, struct step_ref at, const uint8_t *blank)
{
    const struct dataset_prompt *prompt = &data->prompts[data->list[at.episode].prompt];
    int history = data->model->config.reward_history;
    struct openvla_item item = {.n_images = history + 2, .prompt = prompt->reward_ids, .n_prompt = prompt->n_reward};

    for (int i = 0; i < item.n_images; i++)
        item.images[i] = blank ? blank : dataset_frame(data, (struct step_ref) {at.episode, reward_frame(history, at.step, i)});
    return item;
}

void shuffled(int *ret_order, int n, uint64_t seed, uint64_t round, uint32_t use)
{
    struct philox random = philox_at(seed, PHILOX_SHUFFLE, round, use, 0);

    for (int i = 0; i < n; i++) {
        int j = (int)philox_below(&random, (uint32_t)i + 1);    /* Fisher-Yates, inside out */

        ret_order[i] = ret_order[j];
        ret_order[j] = i;
    }
}
