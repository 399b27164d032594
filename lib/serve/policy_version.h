/* policy_version.h - a version's directory as a model that is ready to serve: manifest checked, weights read and packed, and
 * tried out on fixed probes, so that a bad checkpoint is refused before it meets a request.
 *
 * Also keeps the prompts of the instructions it has seen: they are few, and the same request after request. */
#pragma once

#include <pthread.h>

#include "base/error.h"
#include "nn/models/openvla.h"

enum { PROMPTS_MAX = 256 };

struct policy_version {
    struct openvla *model;
    bool reward;                        /* prompts are the reward model's */
    pthread_mutex_t lock;               /* of the prompts */
    struct { char *instruction; int32_t *ids; int n; } prompts[PROMPTS_MAX];
    int n_prompts;
};

/* `fast`: linear layers compute in bf16 (params_use_fast). `reward`: it must have a reward head and is probed by scoring,
 * otherwise by acting. -EBADMSG: manifest or weights are not what was announced; -EINVAL: the probe gave numbers that are not
 * finite. */
int policy_version_load(const char *dir, const uint8_t digest[32], bool fast, bool reward, struct policy_version **ret,
                        struct error *error);
struct policy_version *policy_version_free(struct policy_version *version);
DEFINE_FREEP(struct policy_version, policy_version_free)

/* The manifest in `dir` is the one with this digest, and the files are what it says; so are those of the base below it, which are not
 * read again while a version on it is held: *ret_base keeps these from going meanwhile (NULL: none are), for base_files_unref. */
struct base_files;
int version_check_manifest(const char *dir, const uint8_t digest[32], struct base_files **ret_base, struct error *error);
/* A trainer's state is two thirds of a version, and nothing of it is read by servers. */
bool version_file_is_served(const char *name);

/* A line about weights that could not be packed: too little memory on a device names how much is missing. reward: of a reward
 * model. Returns r. */
int version_pack_failed(const char *dir, const struct params *params, bool reward, int r, struct error *error);

/* Prompt ids of an instruction; borrowed, valid as long as the version. Any thread. */
int policy_version_prompt(struct policy_version *version, const char *instruction, const int32_t **ret_ids, int *ret_n);

/* *session fits `config` (it was made for *made_for), or is replaced by one that does. -ENOMEM: the old one is still there. */
int session_fit(struct openvla_session **session, struct openvla_config *made_for, const struct openvla_config *config,
                int max_batch);
