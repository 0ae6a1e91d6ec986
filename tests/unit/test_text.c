/* Helpers on text, and the way shapes are printed. */
#include "pipetrain/text.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "folder.h"
#include "pipetrain/shape.h"
#include "suite.h"

static void nearest(void **state)
{
    (void)state;
    static const char *const names[] = {"batch", "sgd", "adam", "adamw", "learning-rate", "lr"};
    enum { N = sizeof names / sizeof *names };
    static const struct {
        const char *word, *expected;
    } rows[] = {
        {"btach", "batch"},
        {"batc", "batch"},
        {"batchs", "batch"},
        {"sgdd", "sgd"},
        {"Adam", "adam"},
        {"adamW", "adamw"},
        {"adan", "adam"},
        {"lr", "lr"},
        {"xyz", NULL},
        {"", NULL},
        {"l", NULL},
        {"catnip", NULL},
        {"learningrate", "learning-rate"},
        {"laerning-rtae", "learning-rate"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const char *found = pt_text_nearest(rows[i].word, names, N);
        if (!rows[i].expected)
            assert_null(found);
        else if (!found || strcmp(found, rows[i].expected) != 0)
            fail_msg("%s: %s, expected %s", rows[i].word, found ? found : "none", rows[i].expected);
    }
    assert_null(pt_text_nearest("batch", names, 0));
}

/* Words too long for the table of distances are nobody's slip, and must not overrun it. */
static void nearest_of_long_words(void **state)
{
    (void)state;
    static char long_word[4096];
    memset(long_word, 'a', sizeof long_word - 1);
    const char *names[] = {long_word, "aaa"};
    assert_null(pt_text_nearest(long_word, names, 2));
    assert_string_equal(pt_text_nearest("aaaa", names, 2), "aaa");
}

static void join(void **state)
{
    (void)state;
    static const char *const names[] = {"gpipe", "1f1b", "async"};
    char text[24];
    assert_string_equal(pt_text_join(names, 3, text, sizeof text), "gpipe, 1f1b, async");
    assert_string_equal(pt_text_join(names, 1, text, sizeof text), "gpipe");
    assert_string_equal(pt_text_join(names, 0, text, sizeof text), "");
    for (size_t size = 1; size < sizeof text; size++) {
        memset(text, 'x', sizeof text);
        pt_text_join(names, 3, text, size);
        assert_int_equal(strlen(text), size <= 18 ? size - 1 : 18);
        assert_int_equal(text[size], 'x');
    }
}

static void number(void **state)
{
    (void)state;
    static const char *const none[] = {"",   " 1",  "1 ", "0x10", "inf",  "nan", "-",
                                       "1e", "1-1", ".",  "1,5",  "1e5x", "--1", "e5"};
    double value = 7;
    for (size_t i = 0; i < sizeof none / sizeof *none; i++)
        if (pt_text_number(none[i], &value))
            fail_msg("\"%s\" is taken as %g", none[i], value);
    assert_true(value == 7); /* outputs stay as they were */
    assert_true(pt_text_number("-2.5e-1", &value) && value == -0.25);
    assert_true(pt_text_number("+7", &value) && value == 7);
    assert_true(pt_text_number(".5", &value) && value == 0.5);
    assert_true(pt_text_number("-1e999", &value) && isinf(value) && value < 0);
}

static void format(void **state)
{
    (void)state;
    char *text = pt_text_format("%s-%03d", "layer", 7);
    assert_string_equal(text, "layer-007");
    free(text);
}

static void write_file(const char *path, const char *data, size_t bytes)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, bytes, file), bytes);
    assert_int_equal(fclose(file), 0);
}

static void reads_a_whole_file(void **state)
{
    (void)state;
    static char data[100001];
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (char)(i % 251); /* 0 bytes among them */
    static const size_t sizes[] = {0, 1, 4096, sizeof data};
    const char *path = in_folder("file");
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        pt_error err = {0};
        char *text = NULL;
        size_t bytes = 99;
        write_file(path, data, sizes[i]);
        assert_ok(pt_text_read_file(path, &text, &bytes, &err), &err);
        assert_int_equal(bytes, sizes[i]);
        assert_memory_equal(text, data, bytes);
        assert_int_equal(text[bytes], 0);
        free(text);
    }
}

/* A pipe has no size beforehand. */
static void reads_a_pipe(void **state)
{
    (void)state;
    static const char words[] = "through the pipe";
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(write(ends[1], words, sizeof words - 1), sizeof words - 1);
    close(ends[1]);
    char *path = pt_text_format("/proc/self/fd/%d", ends[0]);
    char *text = NULL;
    size_t bytes = 0;
    pt_error err = {0};
    assert_ok(pt_text_read_file(path, &text, &bytes, &err), &err);
    assert_string_equal(text, words);
    assert_int_equal(bytes, sizeof words - 1);
    free(text);
    free(path);
    close(ends[0]);
}

static void refuses_what_is_no_file(void **state)
{
    (void)state;
    char *text = (char *)1;
    size_t bytes = 5;
    pt_error err = {0};
    const char *path = in_folder("none");
    assert_fails(pt_text_read_file(path, &text, &bytes, &err), PT_EINPUT, "no such file", &err);
    assert_non_null(strstr(err.text, path));
    assert_fails(pt_text_read_file(folder, &text, &bytes, &err), PT_EINPUT, "is a folder", &err);
    assert_ptr_equal(text, (char *)1); /* outputs stay as they were */
    assert_int_equal(bytes, 5);
}

static void shapes(void **state)
{
    (void)state;
    char text[PT_SHAPE_TEXT];
    const pt_shape image = {.ndim = 3, .dims = {16, 28, 28}};
    const pt_shape flat = {.ndim = 1, .dims = {12544}};
    const pt_shape other = {.ndim = 3, .dims = {16, 28, 27}};
    assert_string_equal(pt_shape_print(&image, text), "(16, 28, 28)");
    assert_string_equal(pt_shape_print(&flat, text), "(12544)");
    assert_int_equal(pt_shape_elements(&image), 12544);
    assert_int_equal(pt_shape_elements(&flat), 12544);
    assert_true(pt_shape_equal(&image, &image));
    assert_false(pt_shape_equal(&image, &flat));
    assert_false(pt_shape_equal(&image, &other));
}

static void huge_shapes(void **state)
{
    (void)state;
    const pt_shape huge = {.ndim = 4, .dims = {INT64_MAX, INT64_MAX, INT64_MAX, INT64_MAX}};
    char text[PT_SHAPE_TEXT];
    assert_true(pt_shape_elements(&huge) == INT64_MAX);
    assert_int_equal(strlen(pt_shape_print(&huge, text)), PT_SHAPE_TEXT - 1);
    assert_memory_equal(text, "(9223372036854775807, 9223372036854775807, ", 43);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nearest),      cmocka_unit_test(nearest_of_long_words),
        cmocka_unit_test(join),         cmocka_unit_test(number),
        cmocka_unit_test(format),       cmocka_unit_test(reads_a_whole_file),
        cmocka_unit_test(reads_a_pipe), cmocka_unit_test(refuses_what_is_no_file),
        cmocka_unit_test(shapes),       cmocka_unit_test(huge_shapes),
    };
    return cmocka_run_group_tests_name("text", tests, make_folder, remove_folder);
}
