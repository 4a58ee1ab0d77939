/* Holds elect at a chosen place for as long as a file is there: where a fault has to come between two steps.
 *
 * GATE_WALK names a directory: the campaigner waits before it lists its own threads' children.
 * GATE_EXEC names a directory: a child of the keeper waits between fork and exec.
 * GATE_LAST_STEP names a directory: a child of the keeper waits after all preparations for exec, before its signals are unblocked.
 * GATE_TERMINAL names a directory: a child of the keeper waits between fork and exec, once its group has the terminal.
 * GATE_CLAIM names a directory: a claim finds no room in the socket to the keeper.
 * In the directory, `armed` closes the gate, and `reached` is made by whoever waits at it. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static int is_keeper(void) {
    char name[16] = {0};
    prctl(PR_GET_NAME, name);
    return strcmp(name, "keeper") == 0;
}

static int is_closed(const char *variable, char *armed, size_t length) {
    const char *directory = getenv(variable);
    char reached[256];
    if (!directory) return 0;
    snprintf(armed, length, "%s/armed", directory);
    snprintf(reached, sizeof reached, "%s/reached", directory);
    if (syscall(SYS_access, armed, F_OK) != 0) return 0;
    int file = (int)syscall(SYS_openat, AT_FDCWD, reached, O_CREAT | O_WRONLY | O_CLOEXEC, 0644);
    if (file >= 0) syscall(SYS_close, file);
    return 1;
}

static void pass(const char *variable) {
    char armed[256];
    struct timespec rest = {0, 1000000};
    if (!is_closed(variable, armed, sizeof armed)) return;
    while (syscall(SYS_access, armed, F_OK) == 0) syscall(SYS_nanosleep, &rest, NULL);
    /* `armed` becomes `reached`: it has gone through, and the gate may be closed behind it. */
    memcpy(strrchr(armed, '/'), "/reached", sizeof "/reached");
    syscall(SYS_unlinkat, AT_FDCWD, armed, 0);
}

static int opens(const char *path, int flags, int mode) {
    char own[32];
    snprintf(own, sizeof own, "/proc/%d/task", (int)syscall(SYS_getpid));
    if (path && strcmp(path, own) == 0 && !is_keeper()) pass("GATE_WALK");
    return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

static int mode_of(int flags, va_list rest) { return flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, int) : 0; }

int open(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    int mode = mode_of(flags, rest);
    va_end(rest);
    return opens(path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    int mode = mode_of(flags, rest);
    va_end(rest);
    return opens(path, flags, mode);
}

static int is_child_of_keeper;

int setpgid(pid_t pid, pid_t group) {
    if (pid == 0 && group == 0 && is_keeper()) {
        is_child_of_keeper = 1;
        pass("GATE_EXEC");
    }
    return (int)syscall(SYS_setpgid, pid, group);
}

int sigprocmask(int how, const sigset_t *set, sigset_t *before) {
    if (is_child_of_keeper) pass("GATE_LAST_STEP");
    /* The kernel's set has 64 signals. */
    return (int)syscall(SYS_rt_sigprocmask, how, set, before, 8);
}

/* The keeper itself only ever gives the terminal to other groups. */
int tcsetpgrp(int terminal, pid_t group) {
    int given = ioctl(terminal, TIOCSPGRP, &group);
    if (group == getpgrp() && is_keeper()) pass("GATE_TERMINAL");
    return given;
}

/* The first byte of a message to the keeper says what it is; a claim is 1. */
ssize_t sendmsg(int socket, const struct msghdr *message, int flags) {
    char armed[256];
    int is_claim = message->msg_iovlen == 1 && message->msg_iov[0].iov_len > 0 &&
                   *(const char *)message->msg_iov[0].iov_base == 1 && (flags & MSG_DONTWAIT);
    if (is_claim && !is_keeper() && is_closed("GATE_CLAIM", armed, sizeof armed)) {
        errno = EAGAIN;
        return -1;
    }
    return syscall(SYS_sendmsg, socket, message, flags);
}
