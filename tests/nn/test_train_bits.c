/* What is trained is the same to the bit, whatever the threads, the ranks, a restart in between, or who computed the hidden
 * states. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/atomic_file.h"
#include "tests/harness/scratch.h"
#include "tests/harness/train_lab.h"
#include "train/checkpoint.h"
#include "train/objective.h"

/* What the actor recorded stands for the learner's own pass; an episode whose hidden states are missing is asked about again. */
static void hidden_states_of_the_actor_are_the_learners(void **state)
{
    struct openvla *reference = NULL;
    struct trainer *trainers[3];

    (void)state;
    for (int i = 0; i < 3; i++) {       /* none lost, all, every second */
        struct ppo_result result;

        trainers[i] = lab_trainer(lab_critic_model(1), 1 + i);
        if (!reference)
            reference = lab_packed_clone(trainers[i]->model);
        for (uint64_t round = 0; round < 2; round++) {
            result = lab_iterate_forgetting(trainers[i], reference, &lab_rl, round, i);
            assert_true(result.logp_gap_max == 0 && result.logp_gap_tokens > 0);
        }
        lab_same_bits(trainers[0], trainers[i]);
    }
    for (int i = 0; i < 3; i++)
        trainer_free(trainers[i]);
    openvla_free(reference);
}

static void threads_change_nothing(void **state)
{
    struct trainer *one = lab_trainer(lab_critic_model(1), 1), *three = lab_trainer(lab_critic_model(1), 3);
    struct openvla *reference = lab_packed_clone(one->model);
    struct rl_config joint = lab_rl;

    (void)state;
    joint.value_detach = false;
    for (uint64_t i = 0; i < 2; i++) {
        struct ppo_result a = lab_iterate(one, reference, i ? &joint : &lab_rl, i),
                          b = lab_iterate(three, reference, i ? &joint : &lab_rl, i);

        assert_memory_equal(&a, &b, sizeof a);
    }
    lab_same_bits(one, three);
    openvla_free(reference);
    trainer_free(one);
    trainer_free(three);
}

static void resume_changes_nothing(void **state)
{
    char dir[SCRATCH_PATH], path[SCRATCH_PATH + 32];
    struct trainer *whole = lab_trainer(lab_critic_model(1), 2), *resumed;
    struct openvla *reference = lab_packed_clone(whole->model), *loaded = NULL;
    struct error error = {0};

    (void)state;
    scratch_new(dir);
    (void)lab_iterate(whole, reference, &lab_rl, 0);
    whole->stage = 4;
    whole->reference = 2;
    if (checkpoint_save(whole, dir, &error) < 0 || openvla_load(dir, &loaded, &error) < 0)
        fail_msg("%s", error.text);
    resumed = lab_trainer(loaded, 2);
    assert_int_equal(checkpoint_load_state(resumed, dir, &error), 0);
    assert_int_equal(resumed->stage, 4);
    assert_int_equal(resumed->reference, 2);
    lab_same_bits(whole, resumed);
    (void)lab_iterate(whole, reference, &lab_rl, 1);
    (void)lab_iterate(resumed, reference, &lab_rl, 1);
    lab_same_bits(whole, resumed);

    /* torn: refused by name, nothing half-restored */
    snprintf(path, sizeof path, "%s/train_state.safetensors", dir);
    assert_int_equal(truncate(path, 100), 0);
    assert_true(checkpoint_load_state(resumed, dir, &error) < 0);
    lab_same_bits(whole, resumed);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(checkpoint_load_state(resumed, dir, &error), 1);
    assert_int_equal(remove_tree(dir), 0);
    openvla_free(reference);
    trainer_free(whole);
    trainer_free(resumed);
}

/* A trainer that is reset goes on as one that has just begun with these weights: no moment, step count or statistic of before is
 * left. */
static void reset_forgets_all(void **state)
{
    struct trainer *used = lab_trainer(lab_critic_model(1), 2), *fresh;
    struct openvla *reference = lab_packed_clone(used->model), *copy = NULL;

    (void)state;
    (void)lab_iterate(used, reference, &lab_rl, 0);
    assert_int_equal(openvla_clone(used->model, &copy), 0);
    fresh = lab_trainer(copy, 2);
    trainer_reset(used);
    (void)lab_iterate(used, reference, &lab_rl, 1);
    (void)lab_iterate(fresh, reference, &lab_rl, 1);
    lab_same_bits(used, fresh);
    openvla_free(reference);
    trainer_free(used);
    trainer_free(fresh);
}

/* bf16 weights: passes see bf16, AdamW moves fp32 masters; what is saved is what acts; a restart changes no bit. */
static void bf16_weights_have_masters(void **state)
{
    char dir[SCRATCH_PATH], path[SCRATCH_PATH + 32];
    struct trainer *whole = lab_trainer(lab_critic_model(1), 2), *resumed;
    struct openvla *reference = lab_packed_clone(whole->model), *loaded = NULL;
    struct error error = {0};
    const struct part *trunk;
    int hidden = 0;

    (void)state;
    assert_int_equal(trainer_use_bf16(whole), -EDOM);       /* fresh weights are not bf16 */
    trainer_free(whole);
    scratch_new(dir);
    if (openvla_save(reference, dir, "BF16", &error) < 0 || openvla_load(dir, &loaded, &error) < 0)
        fail_msg("%s", error.text);
    openvla_free(reference);
    whole = lab_trainer(loaded, 2);
    assert_int_equal(trainer_use_bf16(whole), 0);
    reference = lab_packed_clone(whole->model);
    for (uint64_t i = 0; i < 2; i++)
        (void)lab_iterate(whole, reference, &lab_rl, i);
    trunk = &whole->parts[TRAIN_TRUNK];
    for (int i = 0; i < trunk->n; i++)
        for (int64_t k = trunk->ranges[i].begin; k < trunk->ranges[i].end; k++) {
            float value = whole->params->values[k], master = whole->masters[k - trunk->begin];
            uint16_t half = float_to_bf16(master);

            assert_int_equal(half, float_to_bf16(value));
            assert_true(value == reference->params.values[k] || half != float_to_bf16(reference->params.values[k]));
            hidden += value == reference->params.values[k] && master != value;
        }
    assert_true(hidden > 100);          /* steps too small for bf16 are not lost */
    snprintf(path, sizeof path, "%s/again", dir);
    assert_int_equal(mkdir_p(path, 0755), 0);
    loaded = NULL;
    if (checkpoint_save(whole, path, &error) < 0 || openvla_load(path, &loaded, &error) < 0)
        fail_msg("%s", error.text);
    for (int i = 0; i < trunk->n; i++)
        assert_memory_equal(loaded->params.values + trunk->ranges[i].begin, whole->params->values + trunk->ranges[i].begin,
                            (size_t)(trunk->ranges[i].end - trunk->ranges[i].begin) * sizeof(float));
    resumed = lab_trainer(loaded, 1);
    assert_int_equal(trainer_use_bf16(resumed), 0);
    assert_int_equal(checkpoint_load_state(resumed, path, &error), 0);
    (void)lab_iterate(whole, reference, &lab_rl, 2);
    (void)lab_iterate(resumed, reference, &lab_rl, 2);
    assert_memory_equal(whole->masters, resumed->masters, (size_t)(trunk->end - trunk->begin) * sizeof(float));
    lab_same_bits(whole, resumed);
    assert_int_equal(remove_tree(dir), 0);
    openvla_free(reference);
    trainer_free(whole);
    trainer_free(resumed);
}

/* Two ranks in two threads: gather through a shared buffer. */
struct pair { pthread_barrier_t barrier; char *bytes; };
struct rank { struct pair *pair; int rank; struct trainer *trainer; struct openvla *reference; };

static int gather(void *arg, const void *mine, size_t bytes, void *ret_all)
{
    struct rank *rank = arg;

    memcpy(rank->pair->bytes + (size_t)rank->rank * bytes, mine, bytes);
    pthread_barrier_wait(&rank->pair->barrier);
    memcpy(ret_all, rank->pair->bytes, 2 * bytes);
    pthread_barrier_wait(&rank->pair->barrier);
    return 0;
}

static void *play_rank(void *arg)
{
    struct rank *rank = arg;

    for (uint64_t i = 0; i < 2; i++)
        (void)lab_iterate(rank->trainer, rank->reference, &lab_rl, i);
    return NULL;
}

static void ranks_change_nothing(void **state)
{
    struct trainer *alone = lab_trainer(lab_critic_model(1), 2);
    struct pair pair = {.bytes = malloc((size_t)alone->model->params.numel * 2 * sizeof(float))};
    struct rank rank[2];
    pthread_t thread[2];

    (void)state;
    pthread_barrier_init(&pair.barrier, NULL, 2);
    for (int i = 0; i < 2; i++) {
        rank[i] = (struct rank) {.pair = &pair, .rank = i, .reference = lab_packed_clone(alone->model)};
        assert_int_equal(trainer_new(lab_critic_model(1), 1, &(struct group) {.rank = i, .ranks = 2, .gather = gather,
                                                                             .arg = &rank[i]},
                                     &rank[i].trainer), 0);
    }
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, play_rank, &rank[i]), 0);
    for (int i = 0; i < 2; i++)
        pthread_join(thread[i], NULL);
    for (uint64_t i = 0; i < 2; i++)
        (void)lab_iterate(alone, rank[0].reference, &lab_rl, i);
    lab_same_bits(alone, rank[0].trainer);
    lab_same_bits(alone, rank[1].trainer);
    for (int i = 0; i < 2; i++) {
        trainer_free(rank[i].trainer);
        openvla_free(rank[i].reference);
    }
    pthread_barrier_destroy(&pair.barrier);
    free(pair.bytes);
    trainer_free(alone);
}

/* Random changes are drawn by the sample's number: the same whatever the threads, and they matter. The policy crops from then
 * on. */
static void augmented_imitation_repeats(void **state)
{
    const struct sft_config plain = {.steps = 3, .batch = 4, .lr = 1e-3, .clip = 1, .beta2 = .95, .lr_end = 1};
    struct sft_config augmented = plain;
    struct trainer *trainers[3];
    struct sft_result results[3];
    struct error error = {0};

    (void)state;
    augmented.augment = true;
    for (int i = 0; i < 3; i++) {
        struct dataset *data;

        trainers[i] = lab_trainer(lab_model(2), 1 + i);
        data = lab_demonstrations(trainers[i]->model, 3);
        if (objective_sft(trainers[i], data, i < 2 ? &augmented : &plain, &(struct objective) {.seed = 1}, &results[i],
                          &error) < 0)
            fail_msg("%s", error.text);
        assert_true(trainers[i]->model->config.center_crop == (i < 2 ? 0.9f : 0.0f));
        assert_string_equal(trainers[i]->model->config.image_chain, "render");
        dataset_free(data);
    }
    lab_same_bits(trainers[0], trainers[1]);
    assert_true(results[0].last_loss == results[1].last_loss && results[0].last_loss != results[2].last_loss);
    for (int i = 0; i < 3; i++)
        trainer_free(trainers[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hidden_states_of_the_actor_are_the_learners),
        cmocka_unit_test(threads_change_nothing),
        cmocka_unit_test(resume_changes_nothing),
        cmocka_unit_test(reset_forgets_all),
        cmocka_unit_test(bf16_weights_have_masters),
        cmocka_unit_test(ranks_change_nothing),
        cmocka_unit_test(augmented_imitation_repeats),
    };

    return lab_run_in_both(tests, ARRAY_SIZE(tests), tests, ARRAY_SIZE(tests) - 1);
}
