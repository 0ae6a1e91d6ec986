/* A small model whose weights are written to a folder and read from it, whole or in parts. */
#ifndef PIPETRAIN_TESTS_WEIGHTS_IO_RIG_H
#define PIPETRAIN_TESTS_WEIGHTS_IO_RIG_H

#include <stdbool.h>
#include <stdint.h>

#include "folder.h"
#include "pipetrain/weights.h"

enum { RIG_CLASSES = 3, RIG_TENSORS = 8, RIG_SEED = 9 };

/* conv2d, batch-norm, relu, flatten, linear; the first is called as in a block. */
typedef struct fixture {
    pt_backend *b;
    pt_graph graph;
} fixture;

/* The weights of some of its layers. */
typedef struct part {
    pt_flat *flat;
    pt_weights *w;
} part;

/* Each test has a fixture and an empty folder. */
int rig_begin(void **state);
int rig_end(void **state);
#define TEST(name) cmocka_unit_test_setup_teardown(name, rig_begin, rig_end)

/* Of the layers [first, last); part_free() it, as those below. */
part part_new(const fixture *f, int first, int last);
part whole_new(const fixture *f);
/* No two of its tensors are equal. */
part whole_random(const fixture *f, uint64_t seed);
void part_free(part *p);

/* Values of parameter i, or of state i; free() them. */
float *tensor(const part *p, bool param, int i);
bool same_tensor(const part *a, const part *b, bool param, int i);
void assert_same_weights(const part *a, const part *b);

/* Writes the weights into the folder. */
void save(const fixture *f, const part *p);

#endif
