/* A folder for the files of a test, below $TMPDIR or, where that is not set, below /tmp. */
#ifndef PIPETRAIN_TESTS_FOLDER_H
#define PIPETRAIN_TESTS_FOLDER_H

extern char folder[256]; /* its name, "" before it is made */

/* Each is a set-up or tear-down of cmocka, which gets `state` and leaves it alone: 0, or -1 and a
 * line on stderr. Links are removed, and not what they point to. */
int make_folder(void **state);
int empty_folder(void **state);
int remove_folder(void **state); /* with all that is in it */

/* The full name of a file in the folder; the next call but three overwrites it. */
const char *in_folder(const char *name);
/* How many files and folders there are in `path`, hidden ones too; -1 where that cannot be read. */
int count_entries(const char *path);

#endif
