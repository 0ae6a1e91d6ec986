/* Failures and what the program says of itself: status, log, and the clock that times both. */
#include "pipetrain/status.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pipetrain/clock.h"
#include "pipetrain/log.h"
#include "suite.h"

static void fail_writes_code_and_message(void **state)
{
    (void)state;
    pt_error err = {0};
    assert_int_equal(pt_fail(&err, PT_EIO, "%s: %d", "disk", 7), PT_EIO);
    assert_int_equal(err.code, PT_EIO);
    assert_string_equal(err.text, "disk: 7");
}

static void fail_may_quote_its_own_message(void **state)
{
    (void)state;
    pt_error err = {0};
    pt_fail(&err, PT_EIO, "inner");
    pt_fail(&err, PT_EINPUT, "outer (%s)", err.text);
    assert_string_equal(err.text, "outer (inner)");
    assert_int_equal(err.code, PT_EINPUT);
}

/* An escape, a bell and the one-character form of an escape, c2 9b; a line's end stays. */
static void messages_do_not_speak_to_terminals(void **state)
{
    (void)state;
    pt_error err = {0};
    pt_fail(&err, PT_EINPUT, "%s", "µ\033[2J\t\x7f\n\xc2\x9b…\xc2");
    assert_string_equal(err.text, "µ?[2J??\n??…\xc2");
    pt_fail_within(&err, "a\a");
    assert_string_equal(err.text, "a?: µ?[2J??\n??…\xc2");
}

static void fail_needs_no_error(void **state)
{
    (void)state;
    assert_int_equal(pt_fail(NULL, PT_ECOMM, "nobody listens"), PT_ECOMM);
}

static void long_messages_are_cut(void **state)
{
    (void)state;
    static char flood[2 * PT_ERROR_TEXT];
    memset(flood, 'x', sizeof flood - 1);
    pt_error err = {0};
    pt_fail(&err, PT_EIO, "%s", flood);
    assert_int_equal(strlen(err.text), PT_ERROR_TEXT - 1);
    pt_fail_within(&err, "start");
    assert_int_equal(strlen(err.text), PT_ERROR_TEXT - 1);
    assert_memory_equal(err.text, "start: xxx", 10);
    pt_fail_within(&err, "%s", flood);
    assert_int_equal(strlen(err.text), PT_ERROR_TEXT - 1);
}

static void context_goes_before_the_message(void **state)
{
    (void)state;
    pt_error err = {0};
    pt_fail(&err, PT_ENOMEM, "no memory");
    assert_int_equal(pt_fail_within(&err, "layer %d (%s)", 3, err.text), PT_ENOMEM);
    assert_string_equal(err.text, "layer 3 (no memory): no memory");
}

static pt_status tried(pt_status inner, int *reached)
{
    PT_TRY(inner);
    ++*reached;
    return PT_OK;
}

static pt_status cleaned(pt_status inner, int *reached, int *cleanups)
{
    pt_status status = PT_OK;
    PT_GOTO(status, inner);
    ++*reached;
out:
    ++*cleanups;
    return status;
}

static void macros_leave_early(void **state)
{
    (void)state;
    int reached = 0, cleanups = 0;
    assert_int_equal(tried(PT_ECOMM, &reached), PT_ECOMM);
    assert_int_equal(cleaned(PT_EIO, &reached, &cleanups), PT_EIO);
    assert_int_equal(reached, 0);
    assert_int_equal(cleanups, 1);
    assert_int_equal(tried(PT_OK, &reached), PT_OK);
    assert_int_equal(cleaned(PT_OK, &reached, &cleanups), PT_OK);
    assert_int_equal(reached, 2);
    assert_int_equal(cleanups, 2);
}

static void exit_codes(void **state)
{
    (void)state;
    static const int expected[] = {
        [PT_OK] = 0,
        [PT_EINPUT] = 2,
        [PT_EIO] = 1,
        [PT_ENOMEM] = 1,
        [PT_EBACKEND] = 1,
        [PT_ECOMM] = 1,
        [PT_EINTERRUPTED] = 130,
        [PT_ESTOPPED] = 75,
        [PT_EINTERNAL] = 1,
    };
    for (int i = 0; i < (int)(sizeof expected / sizeof *expected); i++)
        assert_int_equal(pt_status_exit_code((pt_status)i), expected[i]);
}

/* Runs pt_log with stderr led into a file and compares what arrives. */
static void assert_logged(pt_log_level shown, int rank, pt_log_level level, const char *message,
                          const char *expected)
{
    static char text[2 * PT_ERROR_TEXT];
    FILE *file = tmpfile();
    assert_non_null(file);
    fflush(stderr);
    int saved = dup(STDERR_FILENO);
    assert_true(saved >= 0);
    assert_true(dup2(fileno(file), STDERR_FILENO) >= 0);
    pt_log_init(shown, rank);
    pt_log(level, "%s", message);
    assert_true(dup2(saved, STDERR_FILENO) >= 0);
    close(saved);
    rewind(file);
    size_t bytes = fread(text, 1, sizeof text - 1, file);
    text[bytes] = 0;
    fclose(file);
    assert_string_equal(text, expected);
}

static void log_lines(void **state)
{
    (void)state;
    assert_logged(PT_LOG_INFO, -1, PT_LOG_INFO, "hello", "hello\n");
    assert_logged(PT_LOG_INFO, 3, PT_LOG_INFO, "hello", "rank 3: hello\n");
    assert_logged(PT_LOG_INFO, 0, PT_LOG_WARNING, "hm", "rank 0: warning: hm\n");
    assert_logged(PT_LOG_ERROR, -1, PT_LOG_ERROR, "no", "error: no\n");
    assert_logged(PT_LOG_DEBUG, -1, PT_LOG_DEBUG, "see", "debug: see\n");
    assert_logged(PT_LOG_INFO, -1, PT_LOG_DEBUG, "hidden", "");
    assert_logged(PT_LOG_ERROR, -1, PT_LOG_WARNING, "hidden", "");
}

static void log_shows_a_whole_error(void **state)
{
    (void)state;
    static char message[PT_ERROR_TEXT], expected[PT_ERROR_TEXT + 64];
    memset(message, 'y', sizeof message - 1);
    snprintf(expected, sizeof expected, "rank 1: error: %s\n", message);
    assert_logged(PT_LOG_INFO, 1, PT_LOG_ERROR, message, expected);
}

static void clock_goes_forward(void **state)
{
    (void)state;
    static const int64_t nap_ns = 2000000;
    int64_t before = pt_clock_ns();
    pt_clock_sleep_ns(nap_ns);
    int64_t after = pt_clock_ns();
    assert_true(after - before >= nap_ns);
    pt_clock_sleep_ns(0);
    pt_clock_sleep_ns(-1);
    assert_true(pt_clock_ns() >= after);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fail_writes_code_and_message),
        cmocka_unit_test(fail_may_quote_its_own_message),
        cmocka_unit_test(messages_do_not_speak_to_terminals),
        cmocka_unit_test(fail_needs_no_error),
        cmocka_unit_test(long_messages_are_cut),
        cmocka_unit_test(context_goes_before_the_message),
        cmocka_unit_test(macros_leave_early),
        cmocka_unit_test(exit_codes),
        cmocka_unit_test(log_lines),
        cmocka_unit_test(log_shows_a_whole_error),
        cmocka_unit_test(clock_goes_forward),
    };
    return cmocka_run_group_tests_name("status", tests, NULL, NULL);
}
