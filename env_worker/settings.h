/* settings.h - the part of the run's configuration a worker needs, from Welcome.config. */
#pragma once

#include "base/error.h"

struct worker_settings {
    char suite[32];
    int image;                  /* pixels, square */
};

/* `text`: YAML, either flat (`suite: tabletop`, `image: 64`) or a run's own `suite: {name: tabletop, image: 64}`; other keys
 * are other members' business. -EINVAL: *error says which key is missing or odd. */
int worker_settings_parse(const char *text, struct worker_settings *ret, struct error *error);
