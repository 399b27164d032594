#include "train/sample_check.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "base/episode.h"
#include "nn/models/openvla_oft.h"

static int bad(struct error *error, const struct episode_input *in, const char *what)
{
    return error_set(error, EINVAL, "episode %" PRIu64 ": %s; it cannot be trained on", in->id, what);
}

static bool in_range(const float *x, size_t n, float low, float high)
{
    for (size_t i = 0; i < n; i++)
        if (!(x[i] >= low && x[i] <= high))     /* NaN fails too */
            return false;
    return true;
}

const char *sample_chain(const struct episode_input *in)
{
    return in->image_chain && in->image_chain[0] ? in->image_chain : IMAGE_CHAIN_RENDER;
}

/* From 0 on, ascending, none longer than the policy's chunk. */
static bool turns_fit(const struct openvla_config *c, const struct episode_input *in)
{
    uint32_t chunk = c->oft.kind == OFT_NONE ? 1 : (uint32_t)c->oft.chunk;

    for (size_t i = 0; i < in->n_turns; i++) {
        uint32_t end = i + 1 < in->n_turns ? in->turns[i + 1] : (uint32_t)in->steps;

        if ((i == 0 && in->turns[0] != 0) || end <= in->turns[i] || end - in->turns[i] > chunk)
            return false;
    }
    return true;
}

static bool tokens_fit(const struct openvla_config *c, const struct episode_input *in)
{
    bool numbers = c->oft.kind == OFT_L1 || c->oft.kind == OFT_LAPLACE;
    uint32_t first = in->full ? 0 : (uint32_t)(c->vocab - OPENVLA_ACTION_BINS);
    uint32_t end = (uint32_t)(in->full ? c->vocab_padded : c->vocab);

    for (size_t i = 0; i < in->n_tokens; i++) {
        float x;

        memcpy(&x, &in->tokens[i], sizeof x);
        if (numbers ? !isfinite(x) : in->tokens[i] < first || in->tokens[i] >= end)
            return false;
    }
    return true;
}

/* All that were drawn are there, of so many bytes a picture. */
static int check_frames(const struct episode_input *in, size_t picture, struct error *error)
{
    const char *problem = episode_check_observed(in->observed, in->n_observed, in->turns, in->n_turns, (size_t)in->steps);

    if (!problem && in->n_frames != (in->n_observed ? in->n_observed : (size_t)in->steps + 1) * picture * (size_t)in->images)
        problem = "the number of frames is not steps + 1, or as many as were drawn";
    return problem ? bad(error, in, problem) : 0;
}

/* For a reward model of its own backbone: pictures as the first episode has them, an action for every step. */
static int check_reward_input(const struct dataset *data, const struct episode_input *in, struct error *error)
{
    size_t t = (size_t)in->steps, picture = (size_t)MAX(in->height, 0) * (size_t)MAX(in->width, 0) * 3;
    int height, width, tokens, r;

    if (data->n && (in->height != data->picture_height || in->width != data->picture_width))
        return error_set(error, EINVAL, "episode %" PRIu64 ": pictures of %dx%d, those before are of %dx%d", in->id, in->height,
                         in->width, data->picture_height, data->picture_width);
    r = qwen_vl_picture_size(&data->reward->config, in->height, in->width, &height, &width, &tokens, error);
    if (r < 0)
        return error_prefix(error, r, "episode %" PRIu64 ": the reward model cannot see it", in->id);
    if (in->images < 1 || (data->n && in->images != data->cameras))
        return error_set(error, EINVAL, "episode %" PRIu64 ": %d pictures of each observation, those before have %d", in->id,
                         in->images, data->cameras);
    r = check_frames(in, picture, error);
    if (r < 0)
        return r;
    if (in->action_dims < 1 || (data->n && in->action_dims != data->action_dims) || in->n_action != t * (size_t)in->action_dims ||
        !in_range(in->action, in->n_action, -1e6f, 1e6f))
        return bad(error, in, "its actions are missing, of another size, or not numbers");
    return 0;
}

/* What the policy looks at must be there: so many pictures, so many numbers of the robot's own. More pictures, or a state that
 * the policy does not read, are no harm. */
static int check_observation(const struct openvla_config *c, const struct episode_input *in, struct error *error)
{
    size_t t = (size_t)in->steps;
    int images = c->oft.kind == OFT_NONE ? 1 : c->oft.images;

    if (in->images < images || in->images > OPENVLA_MAX_IMAGES)
        return error_set(error, EINVAL, "episode %" PRIu64 ": %d pictures of each observation, the policy takes %d", in->id,
                         in->images, images);
    if (c->oft.kind == OFT_NONE || !c->oft.proprio)
        return 0;
    if (in->n_state != (t + 1) * (size_t)c->oft.proprio)
        return error_set(error, EINVAL,
                         "episode %" PRIu64 ": %zu numbers of the robot's state at each of %zu observations, the policy takes %d",
                         in->id, in->n_state / (t + 1), t + 1, c->oft.proprio);
    return in_range(in->state, in->n_state, -1e6f, 1e6f) ? 0
         : bad(error, in, "a number of the robot's state is not finite, or beyond 1e6");
}

/* Of the size and the chain that the policy knows. */
static int check_pictures(const struct openvla_config *c, const struct episode_input *in, struct error *error)
{
    const char *chain = sample_chain(in);

    if (in->height != c->image_height || in->width != c->image_width)
        return error_set(error, EINVAL,
                         "episode %" PRIu64 ": pictures of %dx%d, the model wants %dx%d (suite.image in the run file)",
                         in->id, in->height, in->width, c->image_height, c->image_width);
    if (c->image_chain[0] && strcmp(chain, c->image_chain) != 0)
        return error_set(error, EINVAL,
                         "episode %" PRIu64 ": pictures of the chain %s, the policy was trained on %s (suite.chain in the run file)",
                         in->id, chain, c->image_chain);
    return check_frames(in, (size_t)c->image_height * (size_t)c->image_width * 3, error);
}

static int check_demonstration(const struct openvla_config *c, const struct episode_input *in, struct error *error)
{
    size_t labels = (size_t)in->steps * (size_t)c->action_dims;
    float limit = in->label_units ? 1e6f : 1.001f;

    if (in->action_dims != c->action_dims || in->n_label != labels || !in_range(in->label, in->n_label, -limit, limit))
        return bad(error, in, "its action labels are missing, of another size, or not in [-1,1]");
    return 0;
}

/* What a policy said, with what probability, and when it was asked. */
static int check_sampled(const struct openvla_config *c, bool ends, const struct episode_input *in, struct error *error)
{
    size_t steps = (size_t)in->steps, tokens = steps * (size_t)(c->action_dims + ends);
    size_t decisions = in->n_turns ? in->n_turns : steps;

    if (in->ended != ends)
        return bad(error, in, in->ended ? "an end token was sampled behind its actions, and policy.eos_in_logp is false"
                                        : "it has no end tokens, and policy.eos_in_logp is true");
    if (in->n_tokens != tokens || in->n_logp != tokens)
        return bad(error, in, "tokens or log-probabilities are missing");
    if (!in_range(in->logp, in->n_logp, -1e4f, c->oft.kind == OFT_LAPLACE ? 1e4f : 1e-3f))
        return bad(error, in, "a log-probability is not a number below 0");
    if (!turns_fit(c, in))
        return bad(error, in, "its turns do not ascend from 0, or are longer than the policy's chunk");
    if (in->n_hidden && (in->n_hidden != decisions * (size_t)c->hidden || !in_range(in->hidden, in->n_hidden, -1e30f, 1e30f)))
        return bad(error, in, "its hidden states are of another size than the policy's, or not finite");
    if (!(in->temperature >= 0 && in->temperature < 100))
        return bad(error, in, "its temperature is none");
    if (!tokens_fit(c, in))
        return bad(error, in, "a token is no action id, or no number");
    return 0;
}

static int check_steps(const struct episode_input *in, struct error *error)
{
    return in->steps >= 1 && in->steps <= in->max_steps ? 0
         : error_set(error, EINVAL, "episode %" PRIu64 ": %d steps of at most %d; it cannot be trained on", in->id, in->steps,
                     in->max_steps);
}

int episode_check(const struct openvla_config *c, const struct episode_input *in, struct error *error)
{
    int r = check_steps(in, error);

    if (r == 0)
        r = check_observation(c, in, error);
    if (r == 0)
        r = check_pictures(c, in, error);
    if (r < 0)
        return r;
    if (in->n_env_reward && (in->n_env_reward != (size_t)in->steps || !in_range(in->env_reward, in->n_env_reward, -1e6f, 1e6f)))
        return bad(error, in, "a reward of the environment is missing or not a number");
    return in->demo ? check_demonstration(c, in, error) : 0;
}

int episode_check_answers(const struct openvla_config *c, bool ends, const struct episode_input *in, struct error *error)
{
    if (in->n_progress && (in->n_progress != (size_t)in->steps + 1 || !in_range(in->progress, in->n_progress, 0, 1)))
        return bad(error, in, "a progress score is missing or not in [0,1]");
    return in->demo ? 0 : check_sampled(c, ends, in, error);
}

/* What the policy's statistics must say for numbers in units. */
static int check_statistics(const struct dataset *data, const struct episode_input *in, struct error *error)
{
    const struct openvla_config *c = &data->model->config;
    const struct action_stats *stats = openvla_stats(data->model, NULL);

    if (c->oft.kind != OFT_NONE && c->oft.proprio && (!stats || stats->proprio != c->oft.proprio))
        return error_set(error, EINVAL,
                         "the policy takes %d numbers of the robot's state, but its dataset_statistics.json does not say their "
                         "range (proprio: q01, q99) for one data set",
                         c->oft.proprio);
    if (in->demo && in->label_units && (!stats || stats->dims != c->action_dims))
        return error_set(error, EINVAL,
                         "episode %" PRIu64 ": its actions are in the data's units, but the policy's dataset_statistics.json "
                         "does not say how one data set's actions of %d numbers are normalised; put the data set's own there",
                         in->id, c->action_dims);
    return 0;
}

/* As the episodes before it are. */
static int check_alike(const struct dataset *data, const struct episode_input *in, struct error *error)
{
    if (data->n && in->images != data->cameras)
        return error_set(error, EINVAL, "episode %" PRIu64 ": %d pictures of each observation, those before have %d", in->id,
                         in->images, data->cameras);
    if (data->n && strcmp(sample_chain(in), data->image_chain) != 0)
        return error_set(error, EINVAL,
                         "episode %" PRIu64 ": pictures of the chain %s, those before are of %s (suite.chain in the run file)",
                         in->id, sample_chain(in), data->image_chain);
    if (!in->demo && data->drawn && in->full != data->full)
        return bad(error, in, "its tokens are over another support than those before");
    return 0;
}

int sample_check(const struct dataset *data, const struct episode_input *in, struct error *error)
{
    int r;

    if (data->reward) {
        r = check_steps(in, error);
        return r < 0 ? r : check_reward_input(data, in, error);
    }
    r = episode_check(&data->model->config, in, error);
    if (r == 0)
        r = episode_check_answers(&data->model->config, data->token_dims > data->action_dims, in, error);
    if (r == 0)
        r = check_statistics(data, in, error);
    return r < 0 ? r : check_alike(data, in, error);
}
