/* A tree of so many processes that do nothing: crowd NUMBER FILE, where the file is made when all of them are there. */
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

int main(int words, char **word) {
    int number = words > 1 ? atoi(word[1]) : 0;
    for (int made = 0; made < number; made++) {
        switch (fork()) {
        case 0:
            for (;;) pause();
        case -1:
            return 1;
        }
    }
    if (words > 2) close(open(word[2], O_CREAT | O_WRONLY, 0644));
    for (;;) pause();
}
