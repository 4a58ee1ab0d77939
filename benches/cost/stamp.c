/* The command of the benchmark: writes to the journal when it was executed and, with "hold", when SIGTERM ended it. */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static void note(const char *journal, const char *event)
{
    struct timespec now;
    char line[96];
    int length, file;

    clock_gettime(CLOCK_BOOTTIME, &now);
    length = snprintf(line, sizeof line, "%s %d %lld\n", event, (int)getpid(),
                      (long long)now.tv_sec * 1000000000LL + now.tv_nsec);
    file = open(journal, O_WRONLY | O_APPEND | O_CREAT, 0644);
    if (file < 0 || write(file, line, (size_t)length) != length)
        _exit(1);
    close(file);
}

int main(int argc, char **argv)
{
    sigset_t end;
    int signal;

    if (argc < 2)
        return 2;
    sigemptyset(&end);
    sigaddset(&end, SIGTERM);
    sigprocmask(SIG_BLOCK, &end, NULL);
    note(argv[1], "start");
    if (argc > 2 && strcmp(argv[2], "hold") == 0) {
        sigwait(&end, &signal);
        note(argv[1], "end");
    }
    return 0;
}
