/* peft.h - adapter_config.json: what a LoRA adapter in PEFT's form says about itself.
 *
 * Read is what PEFT 0.11 to 0.15 write; written are the keys of 0.11.1, which all of them read. What this build cannot do
 * (DoRA, trained biases, modules saved whole, replicated layers) is refused, never dropped: the adapter would be another one. So
 * is what those versions understand differently.
 * Thread rule: none.  Failure rule: -errno, one line that names the file and the key. */
#pragma once

#include <jansson.h>
#include <stdbool.h>

#include "base/error.h"

struct peft_config {
    int r;                      /* rank, unless rank_pattern says otherwise */
    double alpha;
    bool rslora;                /* scale is alpha / sqrt(r) instead of alpha / r */
    char *base;                 /* base_model_name_or_path; NULL: not said */
    char **targets; int n_targets;      /* full module names, or how they end; n_targets 0: "all-linear", or a pattern */
    json_t *alpha_pattern;      /* regular expression for the end of a module's name -> its alpha; NULL: none */
    json_t *rank_pattern;       /* beside alpha_pattern, where no peft_version is said; else NULL: ranks are the tensors' */
};

/* -ENOENT: DIR has no adapter_config.json; -EINVAL, -ENOTSUP: with the line. */
int peft_config_read(const char *dir, struct peft_config *ret, struct error *error);
/* From memory (fuzzing): `path` is for messages. */
int peft_config_parse(const char *text, size_t n, const char *path, struct peft_config *ret, struct error *error);
int peft_config_copy(const struct peft_config *from, struct peft_config *ret);      /* -ENOMEM */
void peft_config_release(struct peft_config *config);

/* Whether a target says this module: it is the name, or the name ends with "." and it. */
bool peft_config_matches(const struct peft_config *config, const char *module);
/* -ENOTSUP: PEFT before 0.14 gave this module another alpha than it does since, and nothing says which of them trained it. */
int peft_config_check_alpha(const struct peft_config *config, const char *module, const char *dir, struct error *error);
/* What (x A^T) B^T of this module, of rank r, is multiplied with. */
double peft_config_scale(const struct peft_config *config, const char *module, int64_t r);

/* The class that PEFT makes the base with, and the Python module it is in. */
struct peft_class { const char *name, *library; };
/* One adapted module, for writing: its rank and scale may differ from the configuration's. */
struct peft_module { char *name; int64_t r; double scale; };
/* DIR/adapter_config.json with these modules as targets, by full name. */
int peft_config_write(const struct peft_config *config, const struct peft_class *base, const struct peft_module *modules, int n,
                      const char *dir, struct error *error);
