/* Weights read from disk: any cut reads any other, and what does not fit is refused. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "suite.h"

#include "pipetrain/safetensors.h"
#include "pipetrain/weights_io.h"
#include "weights_io_rig.h"

/* Written at every number of stages, read at every other. */
static void test_any_cut_reads_any_other(void **state)
{
    const fixture *f = *state;
    pt_error err = {PT_OK, ""};
    part whole = whole_random(f, RIG_SEED);
    for (int cut = 1; cut < f->graph.n_nodes; cut++) {
        part halves[2] = {part_new(f, 0, cut), part_new(f, cut, f->graph.n_nodes)};
        part again = whole_new(f);
        pt_load_report found = {0};
        int n = 0;
        save(f, &whole);
        for (int h = 0; h < 2; h++) {
            assert_ok(pt_weights_load(halves[h].w, halves[h].flat, &f->graph, folder, /*all=*/true,
                                      &found, &err),
                      &err);
            assert_int_equal(found.loaded, halves[h].flat->n_params + halves[h].flat->n_state);
            assert_int_equal(found.missing, 0);
            n += found.loaded;
        }
        assert_int_equal(n, RIG_TENSORS);
        assert_int_equal(empty_folder(NULL), 0);
        save(f, &halves[1]);
        save(f, &halves[0]);
        assert_ok(pt_weights_load(again.w, again.flat, &f->graph, folder, true, &found, &err),
                  &err);
        assert_same_weights(&whole, &again);
        part_free(&halves[0]);
        part_free(&halves[1]);
        part_free(&again);
    }
    part_free(&whole);
}

/* One file with all tensors, as a checkpoint from elsewhere has them. */
static void write_file(const fixture *f, const part *p, const char *path, int skip)
{
    pt_error err = {PT_OK, ""};
    pt_st_tensor tensors[RIG_TENSORS] = {0};
    char names[RIG_TENSORS][64];
    float *data[RIG_TENSORS];
    int n = 0, n_params = p->flat->n_params;
    for (int i = 0; i < n_params + p->flat->n_state; i++) {
        const pt_flat_tensor *t =
            i < n_params ? &p->flat->params[i] : &p->flat->state[i - n_params];
        if (i == skip)
            continue;
        data[n] = tensor(p, i < n_params, i < n_params ? i : i - n_params);
        snprintf(names[n], sizeof names[n], "%s.%s", f->graph.nodes[t->node].name, t->shape.name);
        tensors[n] = (pt_st_tensor){.name = names[n],
                                    .dtype = PT_F32,
                                    .ndim = t->shape.ndim,
                                    .data = data[n],
                                    .bytes = (size_t)t->shape.elements * sizeof(float)};
        for (int d = 0; d < t->shape.ndim; d++)
            tensors[n].dims[d] = t->shape.dims[d];
        n++;
    }
    assert_ok(pt_safetensors_write(path, tensors, n, NULL, 0, &err), &err);
    for (int i = 0; i < n; i++)
        free(data[i]);
}

static void test_a_single_file(void **state)
{
    const fixture *f = *state;
    pt_error err = {PT_OK, ""};
    const char *path = in_folder("all.safetensors");
    pt_load_report found = {0};
    part p = whole_random(f, RIG_SEED), q = whole_new(f);
    write_file(f, &p, path, /*skip=*/-1);
    assert_ok(pt_weights_load(q.w, q.flat, &f->graph, path, true, &found, &err), &err);
    assert_same_weights(&p, &q);
    part_free(&p);
    part_free(&q);
}

static void test_a_missing_tensor(void **state)
{
    const fixture *f = *state;
    pt_error err = {PT_OK, ""};
    const char *path = in_folder("part.safetensors");
    part p = whole_random(f, RIG_SEED);
    for (int skip = 0; skip < RIG_TENSORS; skip++) {
        pt_load_report found = {.loaded = -1};
        int n_params = p.flat->n_params;
        part q = whole_random(f, RIG_SEED + 1), before = whole_random(f, RIG_SEED + 1);
        write_file(f, &p, path, skip);
        assert_fails(pt_weights_load(q.w, q.flat, &f->graph, path, true, &found, &err), PT_EINPUT,
                     "has no tensor", &err);
        assert_int_equal(found.loaded, -1); /* untouched on failure */
        assert_ok(pt_weights_load(q.w, q.flat, &f->graph, path, false, &found, &err), &err);
        assert_int_equal(found.loaded, RIG_TENSORS - 1);
        assert_int_equal(found.missing, 1);
        assert_non_null(found.missing_names);
        free(found.missing_names);
        for (int i = 0; i < RIG_TENSORS; i++) { /* it alone keeps what it had */
            bool param = i < n_params;
            assert_true(same_tensor(&q, i == skip ? &before : &p, param, param ? i : i - n_params));
        }
        part_free(&q);
        part_free(&before);
    }
    part_free(&p);
}

static void refuse(const fixture *f, const pt_st_tensor *wrong, const char *words)
{
    pt_error err = {PT_OK, ""};
    pt_load_report found = {0};
    part p = whole_random(f, RIG_SEED);
    assert_ok(pt_safetensors_write(in_folder("wrong.safetensors"), wrong, 1, NULL, 0, &err), &err);
    for (int all = 0; all < 2; all++) {
        part q = whole_new(f);
        if (all) /* the rest is right, in another file of the directory */
            save(f, &p);
        unlink(in_folder("layer-004-fc.safetensors"));
        assert_fails(pt_weights_load(q.w, q.flat, &f->graph,
                                     all ? folder : in_folder("wrong.safetensors"),
                                     /*all=*/false, &found, &err),
                     PT_EINPUT, words, &err);
        part_free(&q);
    }
    part_free(&p);
}

static void test_another_shape_is_refused(void **state)
{
    static const float zeros[4 * 32];
    refuse(*state, &(pt_st_tensor){"fc.weight", PT_F32, 2, {4, 32}, zeros, 4 * 32 * sizeof(float)},
           "(3, 32)");
}

static void test_a_transposed_shape_is_refused(void **state)
{
    static const float zeros[3 * 32];
    refuse(*state, &(pt_st_tensor){"fc.weight", PT_F32, 2, {32, 3}, zeros, 3 * 32 * sizeof(float)},
           "(32, 3)");
}

static void test_another_type_is_refused(void **state)
{
    static const int32_t zeros[3];
    refuse(*state, &(pt_st_tensor){"fc.bias", PT_I32, 1, {3}, zeros, sizeof zeros}, "not f32");
}

static void test_more_dimensions_are_refused(void **state)
{
    static const float zeros[3];
    refuse(*state, &(pt_st_tensor){"fc.bias", PT_F32, 6, {1, 1, 1, 1, 1, 3}, zeros, sizeof zeros},
           "fc.bias");
}

/* What the model has no use for is no mistake: weights of a larger model, say. */
static void test_other_tensors_are_left_alone(void **state)
{
    const fixture *f = *state;
    pt_error err = {PT_OK, ""};
    pt_load_report found = {0};
    static const float zeros[3];
    part p = whole_random(f, RIG_SEED), q = whole_new(f);
    save(f, &p);
    assert_ok(pt_safetensors_write(in_folder("other.safetensors"),
                                   &(pt_st_tensor){"head.bias", PT_F32, 1, {3}, zeros, 12}, 1, NULL,
                                   0, &err),
              &err);
    assert_ok(pt_weights_load(q.w, q.flat, &f->graph, folder, true, &found, &err), &err);
    assert_same_weights(&p, &q);
    part_free(&p);
    part_free(&q);
}

static void test_paths_without_weights(void **state)
{
    const fixture *f = *state;
    pt_error err = {PT_OK, ""};
    pt_load_report found = {0};
    part q = whole_new(f);
    assert_fails(pt_weights_load(q.w, q.flat, &f->graph, in_folder("nobody"), false, &found, &err),
                 PT_EINPUT, "nobody", &err);
    assert_fails(pt_weights_load(q.w, q.flat, &f->graph, folder, false, &found, &err), PT_EINPUT,
                 "no .safetensors file", &err);
    FILE *file = fopen(in_folder("broken.safetensors"), "w");
    assert_non_null(file);
    fputs("no safetensors", file);
    fclose(file);
    assert_fails(pt_weights_load(q.w, q.flat, &f->graph, folder, false, &found, &err), PT_EINPUT,
                 "broken.safetensors", &err);
    part_free(&q);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_any_cut_reads_any_other),
        TEST(test_a_single_file),
        TEST(test_a_missing_tensor),
        TEST(test_another_shape_is_refused),
        TEST(test_a_transposed_shape_is_refused),
        TEST(test_another_type_is_refused),
        TEST(test_more_dimensions_are_refused),
        TEST(test_other_tensors_are_left_alone),
        TEST(test_paths_without_weights),
    };
    return cmocka_run_group_tests_name("weights_load", tests, NULL, NULL);
}
