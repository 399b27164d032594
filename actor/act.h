/* act.h - Act requests: what makes sense, and how a batch of them is answered. */
#pragma once

#include "serve/server.h"

extern const struct serve_kind act_kind;
