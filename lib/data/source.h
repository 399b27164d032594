/* source.h - where episodes are imported from: one way of reading files of others, episode by episode.
 *
 *   source_open("rlds", "DIR", &options, &source) -> source_next(source, &episode)* until 0 -> source_close
 *
 * What is read stays what it was: pictures of their own size, numbers in their own units; dataset_import makes a data set of it.
 *
 *     libero-hdf5   *.hdf5 of LIBERO's demonstrations: data/demo_N/{actions, rewards, dones, obs/{agentview_rgb, eye_in_hand_rgb,
 *                   ee_states, gripper_states}}, the instruction in the attribute problem_info of data, else in the file's
 *                   name; pictures bottom row first, unless its attribute macros_image_convention is opencv
 *     rlds          *.tfrecord* as TFDS writes it: one tf.train.Example an episode, features steps/...
 *     npz           *.npz, one an episode: action (T,A), image (T,H,W,3) u8 [wrist_image ...], state (T,S), instruction, task,
 *                   success
 *
 * All of them are bytes from outside: bad ones get one line that names the file, the episode and the field.
 * Thread rule: one source, one thread. */
#pragma once

#include "base/episode.h"
#include "image/image.h"

enum { SOURCE_MAX_STEPS = 100000, SOURCE_MAX_DIMS = 64, SOURCE_MAX_CAMERAS = 8 };

struct source_options {         /* "" or NULL: what the format has by default */
    const char *images;         /* names of the cameras' fields, with commas between; the first is what reward models see */
    const char *state, *action; /* names of these fields; state "none": not read */
    const char *instruction;    /* likewise; libero-hdf5 has no such field */
};

struct source_episode {
    char where[512]; /* file and episode, for messages */
    char task[EPISODE_TASK_MAX], instruction[256];
    int steps, dims, cameras, state_dims; /* steps 0: an episode without any, of which nothing else was read */
    struct image *pictures; /* [steps][cameras], before the action of that step */
    double *action;         /* (steps, dims) */
    double *state;          /* (steps, state_dims); NULL: none */
    bool success;           /* also when nothing is said */
};
void source_episode_release(struct source_episode *episode);
/* Room for steps * cameras pictures, the actions and the states. -ENOMEM; -EINVAL: nonsense sizes. */
int source_episode_reserve(struct source_episode *episode, struct error *error);

struct source;
struct source_driver {
    const char *name;
    const char *extension;                                   /* which files of a directory: the name holds this */
    int (*open)(struct source *source, struct error *error); /* sets total */
    int (*next)(struct source *source, struct source_episode *ret, struct error *error); /* 1, 0: no more */
    void (*close)(struct source *source);
};
struct source {
    const struct source_driver *driver;
    struct source_options options;
    char **files;
    int n_files; /* sorted */
    int total;   /* episodes, as far as the files say */
    void *state; /* the driver's */
};

/* path: a file, or a directory that is searched for files of the kind, two levels deep. -EINVAL: no such format. -ENOENT: no
 * files. */
int source_open(const char *format, const char *path, const struct source_options *options, struct source **ret,
                struct error *error);
int source_next(struct source *source, struct source_episode *ret, struct error *error);
struct source *source_close(struct source *source);
DEFINE_FREEP(struct source, source_close)

/* Name i of a list with commas between; false: there are fewer. */
bool source_name_of(const char *list, int i, char *ret, size_t n);
/* A task's name: as many whole characters (UTF-8) of the text as it has room for, with _ for blanks. */
void source_name_task(struct source_episode *episode, const char *text);

extern const struct source_driver source_hdf5, source_rlds, source_npz;
