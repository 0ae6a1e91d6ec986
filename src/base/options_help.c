/* --help, made from the option table.
 *
 *     Training:
 *       --batch B              Samples per optimizer step. (default: 128)
 *       --optimizer NAME       The rule of the update. One of sgd, adam. (default: sgd)
 */
#include "pipetrain/options.h"

#include <string.h>

enum {
    WIDTH = 100,   /* columns of the page */
    MARGIN = 2,    /* before an option */
    GAP = 2,       /* between an option and its text, at the least */
    LEFT_MAX = 30, /* a longer option stands on a line of its own */
    LEFT_TEXT = 128,
    VALUE_TEXT = 256
};

/* Where the next word goes. */
struct page {
    FILE *out;
    int column; /* columns of this line already filled */
    int indent; /* where the text begins */
};

/* Columns of the first `bytes` of UTF-8: bytes that continue a character take none. */
static int columns(const char *text, size_t bytes)
{
    int n = 0;
    for (size_t i = 0; i < bytes; i++)
        n += ((unsigned char)text[i] & 0xC0) != 0x80;
    return n;
}

static void end_line(struct page *page)
{
    fputc('\n', page->out);
    page->column = 0;
}

static void put_word(struct page *page, const char *word, size_t bytes)
{
    int width = columns(word, bytes);
    bool follows = page->column > page->indent;
    if (follows && page->column + 1 + width > WIDTH) {
        end_line(page);
        follows = false;
    }
    if (follows)
        page->column += fprintf(page->out, " ");
    else
        page->column += fprintf(page->out, "%*s", page->indent - page->column, "");
    fwrite(word, 1, bytes, page->out);
    page->column += width;
}

static void put_words(struct page *page, const char *text)
{
    static const char blanks[] = " \n";
    for (text += strspn(text, blanks); *text; text += strspn(text, blanks)) {
        size_t bytes = strcspn(text, blanks);
        put_word(page, text, bytes);
        text += bytes;
    }
}

static void put_choices(struct page *page, const pt_option *row)
{
    const char *const *choices = row->choices();
    put_words(page, "One of");
    for (int i = 0; choices[i]; i++) {
        char word[VALUE_TEXT];
        snprintf(word, sizeof word, "%s%s", choices[i], choices[i + 1] || row->file ? "," : ".");
        put_words(page, word);
    }
    if (row->file)
        put_words(page, "or a file.");
}

/* "--batch B", "--[no-]stash", "--debug[=RANKS]" */
static void print_left(const pt_option *row, bool is_on, char text[LEFT_TEXT])
{
    const char *argument = row->argument ? row->argument : "VALUE";
    if (row->type == PT_OPTION_FLAG) {
        /* Turning off makes sense where a file or a default may have turned it on. */
        bool negatable = is_on || !row->command_line_only;
        snprintf(text, LEFT_TEXT, "--%s%s", negatable ? "[no-]" : "", row->name);
    } else if (row->type == PT_OPTION_SWITCH) {
        snprintf(text, LEFT_TEXT, "--%s %s", row->name, row->argument ? row->argument : "on|off");
    } else if (row->optional_argument) {
        snprintf(text, LEFT_TEXT, "--%s[=%s]", row->name, argument);
    } else {
        snprintf(text, LEFT_TEXT, "--%s %s", row->name, argument);
    }
}

/* Prints row i's left side into `left` and its default into `value`; returns columns of `left`. */
static int print_row(const pt_options *options, int i, char left[LEFT_TEXT], char value[VALUE_TEXT])
{
    pt_options_print(options, i, value, VALUE_TEXT);
    print_left(&options->rows[i], strcmp(value, "on") == 0, left);
    return columns(left, strlen(left));
}

static void put_row(struct page *page, const pt_options *options, int i)
{
    const pt_option *row = &options->rows[i];
    char left[LEFT_TEXT], value[VALUE_TEXT];
    int width = print_row(options, i, left, value);
    fprintf(page->out, "%*s%s", MARGIN, "", left);
    page->column = MARGIN + width;
    if (page->column + GAP > page->indent)
        end_line(page);
    put_words(page, row->help);
    if (row->type == PT_OPTION_CHOICE)
        put_choices(page, row);
    bool plain_off = row->type == PT_OPTION_FLAG && strcmp(value, "off") == 0;
    if (value[0] && !plain_off) {
        put_words(page, "(default:");
        size_t length = strnlen(value, sizeof value - 2);
        memcpy(value + length, ")", 2);
        put_words(page, value);
    }
    end_line(page);
}

void pt_options_help(const pt_option *rows, int n_rows, const void *defaults, FILE *out)
{
    /* Only read from: pt_options_print() changes nothing. */
    const pt_options options = {.rows = rows, .n_rows = n_rows, .settings = (void *)defaults};
    struct page page = {.out = out};
    for (int i = 0; i < n_rows; i++) {
        char left[LEFT_TEXT], value[VALUE_TEXT];
        int width = print_row(&options, i, left, value);
        if (width <= LEFT_MAX && MARGIN + width + GAP > page.indent)
            page.indent = MARGIN + width + GAP;
    }
    if (page.indent == 0)
        page.indent = MARGIN + GAP;
    for (int i = 0; i < n_rows; i++) {
        bool new_group = i == 0 || strcmp(rows[i].group, rows[i - 1].group) != 0;
        if (new_group)
            fprintf(out, "%s%s:\n", i ? "\n" : "", rows[i].group);
        put_row(&page, &options, i);
    }
}
