/* spec_policy.h - policies of the shape of models/tiny-spec. Failures end the test. */
#pragma once

#include "nn/models/openvla.h"

struct openvla *spec_policy(uint64_t seed);
/* Of seed 1, with value and reward head (32 wide), whose last layers, zeros in a new head, speak. Not packed. */
struct openvla *spec_policy_with_heads(void);
