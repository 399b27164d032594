/* oft_lab.h - an OpenVLA-OFT a few thousand numbers wide that answers chunks of three actions, and episodes it has played itself,
 * for tests of acting and learning. Failures end the test. */
#pragma once

#include "nn/models/openvla_oft.h"
#include "train/objective.h"

enum { OFT_LAB_SIDE = 64, OFT_LAB_FRAME = OFT_LAB_SIDE * OFT_LAB_SIDE * 3, OFT_LAB_DIMS = 7, OFT_LAB_CHUNK = 3,
       OFT_LAB_SLOTS = OFT_LAB_CHUNK * OFT_LAB_DIMS, OFT_LAB_MAX_STEPS = 8, OFT_LAB_STATE = 8 };

/* What an observation is: one picture at first, or two pictures and the robot's state. */
extern int oft_lab_cameras, oft_lab_numbers;
extern float oft_lab_states[(OFT_LAB_MAX_STEPS + 1) * OFT_LAB_STATE];   /* (T+1, numbers) of every episode */
/* cmocka's setup and teardown */
int oft_lab_two_cameras_and_state(void **state);
int oft_lab_one_camera(void **state);

struct openvla *oft_lab_model(enum oft_kind kind);      /* with all heads, and a critic that reads the time */
uint8_t *oft_lab_pictures(uint64_t seed, int n);        /* (n, OFT_LAB_FRAME); caller frees */
struct episode_input oft_lab_episode(uint64_t id, int steps);           /* without actions; its frames are new */
/* (numbers) as the policy is told it; until the next call */
const float *oft_lab_normalised(const struct openvla *model, const float *state);
void oft_lab_add_rollout(struct dataset *data, const struct openvla *model, uint64_t id, int steps);
struct dataset *oft_lab_rollouts(const struct openvla *model);          /* six of 3 to 7 steps, as `model` (packed) plays them, by
                                                                         * version 3; sorted */
struct dataset *oft_lab_demonstrations(const struct openvla *model);    /* two of four steps */
