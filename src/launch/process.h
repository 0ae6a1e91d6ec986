/* Processes of this machine: told apart though their numbers are used again, found by a mark,
 * ended.
 */
#ifndef PIPETRAIN_LAUNCH_PROCESS_H
#define PIPETRAIN_LAUNCH_PROCESS_H

#include <stdbool.h>
#include <stdint.h>

/* The variable that all processes of a launch have in their environment, with a text that no other
 * launcher has. */
#define PT_MARK "PIPETRAIN_LAUNCHER"

/* A number may be used again, but not with the same start. {0, 0}: none. */
typedef struct pt_process {
    int64_t pid;
    int64_t started; /* ticks since the machine's start, field 22 of /proc/PID/stat */
} pt_process;

/* The process that has this number now; {0, 0}: none, or it has ended and waits for its parent. */
pt_process pt_process_now(int64_t pid);
bool pt_process_is_alive(const pt_process *process);
/* Does its environment say PT_MARK=mark? False also where that may not be read. */
bool pt_process_has_mark(int64_t pid, const char *mark);

/* How many processes with this mark are there? */
int pt_marked_count(const char *mark);
/* Kills them, and those that they start meanwhile, until there are none. How many are left after
 * `limit_s`. */
int pt_marked_end(const char *mark, double limit_s);

#endif
