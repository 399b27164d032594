/* adapters_internal.h - what making adapters and reading them share. */
#pragma once

#include "nn/adapters.h"

#define ADAPTERS_PREFIX "base_model.model."             /* of every name in PEFT's file */
#define ADAPTERS_TENSORS "adapter_model.safetensors"
enum { ADAPTERS_NAME = 256 };

/* The name of the linear module or convolution that has this weight; false: it takes no adapter. */
bool adapters_module(const struct param *p, char ret[ADAPTERS_NAME]);
/* PEFT's name of its A or B. */
void adapters_tensor_name(const char *module, char which, char ret[ADAPTERS_NAME + 40]);

/* Rank of a module's adapter; 0: none. */
typedef int64_t adapters_rank(const struct param *weight, const char *module, const void *arg);
/* adapters_register, and room for the values: zeros. */
int adapters_attach(const struct adapted *model, struct peft_config *config, adapters_rank *rank, const void *arg,
                    struct error *error);
/* After an attach that failed, or values that could not be read: as before. Returns r. */
int adapters_undo(const struct adapted *model, int r);
