/* eval_suite.h - the form of `gantry eval` that takes a checkpoint and a suite; argv as cmd_eval's. */
#pragma once

int eval_suite(int argc, char **argv);
