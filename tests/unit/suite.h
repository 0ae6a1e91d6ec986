/* What every unit test includes: cmocka and the headers it wants, in the order it wants them. */
#ifndef PIPETRAIN_TESTS_SUITE_H
#define PIPETRAIN_TESTS_SUITE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

/* Asserts that a call succeeds and shows its message when it does not. */
#define assert_ok(call, err)                                                                       \
    do {                                                                                           \
        (err)->text[0] = 0;                                                                        \
        if ((call) != PT_OK)                                                                       \
            fail_msg("%s: %s", #call, (err)->text);                                                \
    } while (0)

/* Asserts that a call fails with `code` and that the message holds `words`. */
#define assert_fails(call, code_, words, err)                                                      \
    do {                                                                                           \
        (err)->text[0] = 0;                                                                        \
        assert_int_equal((call), (code_));                                                         \
        if (!strstr((err)->text, (words)))                                                         \
            fail_msg("message \"%s\" lacks \"%s\"", (err)->text, (words));                         \
    } while (0)

#endif
