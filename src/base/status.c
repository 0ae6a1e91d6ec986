/* Status codes and error messages: filling a pt_error, and what a status means to a shell. */
#include "pipetrain/status.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Appends `more` to text[*length], cut to fit, and keeps the closing 0. */
static void append(char text[PT_ERROR_TEXT], size_t *length, const char *more)
{
    size_t room = PT_ERROR_TEXT - 1 - *length;
    size_t n = strnlen(more, room);
    memcpy(text + *length, more, n);
    *length += n;
    text[*length] = 0;
}

/* Messages show texts from files and command lines. What would speak to a terminal becomes '?':
 * control characters but ends of lines, and those of ISO 6429 that UTF-8 writes as c2 80 … c2 9f.
 */
static void silence(char *text)
{
    for (unsigned char *c = (unsigned char *)text; *c; c++) {
        if ((*c < ' ' && *c != '\n') || *c == 0x7f)
            *c = '?';
        if (*c == 0xc2 && c[1] >= 0x80 && c[1] < 0xa0)
            c[0] = c[1] = '?';
    }
}

pt_status pt_fail(pt_error *err, pt_status code, const char *format, ...)
{
    assert(code != PT_OK);
    if (!err)
        return code;
    /* By way of a second buffer, because the arguments may point into err->text. */
    char text[PT_ERROR_TEXT];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    silence(text);
    size_t length = 0;
    append(err->text, &length, text);
    err->code = code;
    return code;
}

pt_status pt_fail_within(pt_error *err, const char *format, ...)
{
    assert(err && err->code != PT_OK);
    char context[PT_ERROR_TEXT], text[PT_ERROR_TEXT];
    va_list args;
    va_start(args, format);
    vsnprintf(context, sizeof context, format, args);
    va_end(args);
    silence(context);
    size_t length = 0;
    append(text, &length, context);
    append(text, &length, ": ");
    append(text, &length, err->text);
    memcpy(err->text, text, length + 1);
    return err->code;
}

int pt_status_exit_code(pt_status status)
{
    switch (status) {
    case PT_OK:
        return 0;
    case PT_EINPUT:
        return 2;
    case PT_EINTERRUPTED:
        return 130; /* what a shell reports for a program that SIGINT ended */
    case PT_ESTOPPED:
        return 75; /* EX_TEMPFAIL of sysexits.h: run me again */
    case PT_EIO:
    case PT_ENOMEM:
    case PT_EBACKEND:
    case PT_ECOMM:
    case PT_EINTERNAL:
        return 1;
    }
    return 1;
}
