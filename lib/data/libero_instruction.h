/* libero_instruction.h - what a file of LIBERO's demonstrations says is to be done.
 *
 * The attribute problem_info of its group data is JSON; language_instruction there is a text, or a list of its characters, and
 * may stand in quotes (LIBERO's scripts/get_dataset_info.py takes all of these). Files that were played again (OpenVLA's
 * regenerate_libero_dataset.py) have no such attribute: their names say it, behind the scene, KITCHEN_SCENE3_turn_on_the_stove.
 *
 * Thread rule: none. */
#pragma once

#include <stddef.h>

/* task: the file's name without _demo.hdf5. -ENAMETOOLONG: it does not fit into n bytes. -ENOMEM. */
int libero_instruction(const char *problem_info, const char *task, char *ret, size_t n);
