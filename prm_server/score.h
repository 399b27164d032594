/* score.h - Score requests: what makes sense, and how a batch of them is answered. */
#pragma once

#include "serve/server.h"

extern const struct serve_kind score_kind;
