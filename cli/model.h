/* model.h - the verbs of `gantry model`, shared among cli/model_*.c and cli/cmd_model.c. Each gets the words behind its name and
 * returns an exit status (cli.h). */
#pragma once

#include <stdbool.h>

#include "base/error.h"

int model_inspect(int argc, char **argv);
int model_verify(int argc, char **argv);
int model_convert(int argc, char **argv);
int model_synth(int argc, char **argv);
int model_export(int argc, char **argv);
int model_merge(int argc, char **argv);
int model_act(int argc, char **argv);
int model_oft(int argc, char **argv);

/* One line on stderr; CLI_FAILED. */
int model_fail(const struct error *error, int r);

/* The value behind `name`, removed from argv; NULL: not there. "" when nothing follows. */
const char *model_option(int *argc, char **argv, const char *name);
bool model_flag(int *argc, char **argv, const char *name);
/* "5GB", "500MB", "64KB" (powers of ten, as save_pretrained counts), or bytes. -EINVAL. */
int model_size(const char *text, int64_t *ret, struct error *error);
/* "bf16", "f32", "F16", "float32"... -EINVAL. */
int model_dtype(const char *text, int *ret, struct error *error);

struct hf_shards;
struct peft_config;
/* 1: a PEFT adapter without a model beside it; its configuration and its file are open then. 0: no. */
int model_is_adapter(const char *dir, struct hf_shards *ret_file, struct peft_config *ret_config, struct error *error);

struct openvla;
/* The model's directory, whole or not at all. dtype NULL: as it was read. */
int model_save(const struct openvla *model, const char *path, const char *dtype, struct error *error);
