/* video.c - pictures to the ffmpeg program's standard input. */
#include "cli/video.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

struct video {
    pid_t pid;
    int pipe;
    size_t picture; /* bytes */
};

static int start(struct video *video, int from, const char *path, int height, int width, double fps)
{
    char size[32], rate[32], target[4096];
    char *const words[] = {"ffmpeg",   "-loglevel", "error",    "-y",      "-f",  "rawvideo",
                           "-pix_fmt", "rgb24",     "-s",       size,      "-r",  rate,
                           "-i",       "-",         "-pix_fmt", "yuv420p", "-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2",
                           "-f",       "mp4",       target,     NULL};
    posix_spawn_file_actions_t actions;
    int r;

    snprintf(size, sizeof(size), "%dx%d", width, height);
    snprintf(rate, sizeof(rate), "%g", fps);
    snprintf(target, sizeof(target), "%s%s", path[0] == '-' ? "./" : "", path);
    r = posix_spawn_file_actions_init(&actions);
    if (r == 0) {
        r = posix_spawn_file_actions_adddup2(&actions, from, STDIN_FILENO);
        if (r == 0)
            r = posix_spawnp(&video->pid, words[0], &actions, NULL, words, environ);
        posix_spawn_file_actions_destroy(&actions);
    }
    return -r;
}

int video_open(const char *path, int height, int width, double fps, struct video **ret, struct error *error)
{
    struct video *video = calloc(1, sizeof(*video));
    int ends[2], r;

    if (!video)
        return error_set(error, ENOMEM, "%s: out of memory", path);
    if (pipe2(ends, O_CLOEXEC) < 0) {
        r = error_set(error, errno, "%s: no pipe: %s", path, strerror(errno));
        free(video);
        return r;
    }
    signal(SIGPIPE, SIG_IGN); /* an encoder that gave up is an error to report, not to die of */
    r = start(video, ends[0], path, height, width, fps);
    close(ends[0]);
    if (r < 0) {
        close(ends[1]);
        free(video);
        if (r == -ENOENT)
            return error_set(error, ENOENT,
                             "%s: videos are made by the ffmpeg program, which is not installed (apt-get install ffmpeg)", path);
        return error_set(error, -r, "%s: ffmpeg does not start: %s", path, strerror(-r));
    }
    video->pipe = ends[1];
    video->picture = (size_t)height * (size_t)width * 3;
    *ret = video;
    return 0;
}

int video_add(struct video *video, const uint8_t *rgb)
{
    size_t left = video->picture;

    while (left > 0) {
        ssize_t n = write(video->pipe, rgb, left);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        rgb += n;
        left -= (size_t)n;
    }
    return 0;
}

int video_close(struct video *video, struct error *error)
{
    int status = 0, r = 0;

    if (!video)
        return 0;
    close(video->pipe);
    while (waitpid(video->pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        r = error_set(error, EIO, "ffmpeg failed; its words are above");
    free(video);
    return r;
}
