/* Status codes and error messages.
 *
 * Three kinds of failure exist. A bug is an assert(). An expected failure is a pt_status plus a
 * message in the caller's pt_error that says what is wrong, where, and what to write or do instead.
 * Ending the process is the business of src/app alone. */
#ifndef PIPETRAIN_STATUS_H
#define PIPETRAIN_STATUS_H

typedef enum pt_status {
    PT_OK = 0,
    PT_EINPUT,       /* bad usage, file or data: nothing was started, exit code 2 */
    PT_EIO,          /* the system refused a read or a write */
    PT_ENOMEM,       /* memory ran out */
    PT_EBACKEND,     /* a compute library refused or failed */
    PT_ECOMM,        /* a message could not be sent or received */
    PT_EINTERRUPTED, /* SIGINT or SIGTERM arrived: exit code 130 */
    PT_ESTOPPED, /* no failure: ended on request with a checkpoint to go on from, exit code 75 */
    PT_EINTERNAL /* a check of our own failed: please report */
} pt_status;

enum { PT_ERROR_TEXT = 4096 }; /* bytes: a refused schedule brings its grid along */

/* The message of the last failure. Zero-initialise; it owns no memory. */
typedef struct pt_error {
    pt_status code;
    char text[PT_ERROR_TEXT];
} pt_error;

/* Writes the message (cut to fit, control characters but ends of lines as "?") and returns `code`,
 * so that callers can `return pt_fail(…)`. */
pt_status pt_fail(pt_error *err, pt_status code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Puts context before a message that a callee left, as "context: message"; returns err->code. */
pt_status pt_fail_within(pt_error *err, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* The process exit code that belongs to a status: 0, 1, 2, 75 or 130. */
int pt_status_exit_code(pt_status status);

/* For functions that own nothing: hand a failure on at once. Others use `goto out`. */
#define PT_TRY(call)                                                                               \
    do {                                                                                           \
        pt_status pt_try_status_ = (call);                                                         \
        if (pt_try_status_ != PT_OK)                                                               \
            return pt_try_status_;                                                                 \
    } while (0)

/* For functions that own something: remember the failure in `status` and leave by `out:`. */
#define PT_GOTO(status, call)                                                                      \
    do {                                                                                           \
        (status) = (call);                                                                         \
        if ((status) != PT_OK)                                                                     \
            goto out;                                                                              \
    } while (0)

#endif
