/* The program's own voice on stderr: one line a message, prefixed with the rank when several ranks
 * run. The level and the rank are the only mutable globals outside of src/app. Library code below
 * src/run does not log: it returns a pt_status. */
#ifndef PIPETRAIN_LOG_H
#define PIPETRAIN_LOG_H

typedef enum pt_log_level { PT_LOG_ERROR, PT_LOG_WARNING, PT_LOG_INFO, PT_LOG_DEBUG } pt_log_level;

/* rank < 0: no prefix. */
void pt_log_init(pt_log_level level, int rank);
void pt_log(pt_log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
