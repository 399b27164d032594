/* sample_check.h - is an episode fit to be trained on? Everything that came from outside is looked at before it is copied.
 * Internal to lib/train. */
#pragma once

#include "base/error.h"
#include "train/sample.h"

/* 0, or -EINVAL with *error naming the episode, what was found and what the model (or the episodes before it) wants. */
int sample_check(const struct dataset *data, const struct episode_input *in, struct error *error);

/* How its pictures were made; one that does not say was rendered as it is (IMAGE_CHAIN_RENDER). */
const char *sample_chain(const struct episode_input *in);
