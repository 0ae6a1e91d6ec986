/* Weights on disk: names, shapes and bytes of what is written, and what is drawn before. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "suite.h"

#include "pipetrain/init.h"
#include "pipetrain/safetensors.h"
#include "pipetrain/weights_io.h"
#include "weights_io_rig.h"

/* ---- writing ----------------------------------------------------------------------------------
 */

static void assert_tensor(const char *file, const char *name, int ndim, const int64_t *dims,
                          const float *want)
{
    pt_error err = {PT_OK, ""};
    pt_safetensors *st = NULL;
    assert_ok(pt_safetensors_open(in_folder(file), &st, &err), &err);
    const pt_st_tensor *t = pt_safetensors_find(st, name);
    assert_non_null(t);
    assert_int_equal(t->dtype, PT_F32);
    assert_int_equal(t->ndim, ndim);
    for (int d = 0; d < ndim; d++)
        assert_int_equal(t->dims[d], dims[d]);
    assert_memory_equal(t->data, want, t->bytes);
    pt_safetensors_close(st);
}

static void test_files_have_pytorch_names_and_shapes(void **state)
{
    const fixture *f = *state;
    part p = whole_random(f, RIG_SEED);
    save(f, &p);
    assert_int_equal(count_entries(folder), 3);
    static const struct {
        const char *file, *name;
        bool param;
        int i, ndim;
        int64_t dims[4];
    } rows[] = {
        {"layer-000-group1.0.conv.safetensors", "group1.0.conv.weight", true, 0, 4, {4, 2, 3, 1}},
        {"layer-000-group1.0.conv.safetensors", "group1.0.conv.bias", true, 1, 1, {4}},
        {"layer-001-bn.safetensors", "bn.weight", true, 2, 1, {4}},
        {"layer-001-bn.safetensors", "bn.bias", true, 3, 1, {4}},
        {"layer-001-bn.safetensors", "bn.running_mean", false, 0, 1, {4}},
        {"layer-001-bn.safetensors", "bn.running_var", false, 1, 1, {4}},
        {"layer-004-fc.safetensors", "fc.weight", true, 4, 2, {3, 32}},
        {"layer-004-fc.safetensors", "fc.bias", true, 5, 1, {3}},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        float *want = tensor(&p, rows[i].param, rows[i].i);
        assert_tensor(rows[i].file, rows[i].name, rows[i].ndim, rows[i].dims, want);
        free(want);
    }
    part_free(&p);
}

/* A layer's name cannot lead out of the directory. */
static void test_names_stay_in_the_directory(void **state)
{
    const fixture *f = *state;
    free(f->graph.nodes[4].name);
    f->graph.nodes[4].name = strdup("../../fc");
    part p = whole_random(f, RIG_SEED);
    save(f, &p);
    assert_int_equal(access(in_folder("layer-004-.._.._fc.safetensors"), R_OK), 0);
    part_free(&p);
}

static void test_saving_where_nothing_can_be_written(void **state)
{
    const fixture *f = *state;
    pt_error err = {PT_OK, ""};
    part p = whole_random(f, RIG_SEED);
    assert_int_equal(pt_weights_save(p.w, p.flat, &f->graph, in_folder("nowhere"), &err), PT_EIO);
    assert_non_null(strstr(err.text, "nowhere"));
    part_free(&p);
}

static void test_directories_are_made(void **state)
{
    const fixture *f = *state;
    pt_error err = {PT_OK, ""};
    const char *path = in_folder("a/b//c");
    struct stat st;
    assert_ok(pt_weights_make_dir(path, &f->graph, &err), &err);
    assert_ok(pt_weights_make_dir(path, &f->graph, &err), &err); /* it is there already */
    assert_int_equal(stat(path, &st), 0);
    assert_true(S_ISDIR(st.st_mode));
    assert_ok(pt_weights_make_dir(in_folder("with/slash/"), &f->graph, &err), &err);
    FILE *file = fopen(in_folder("file"), "w");
    assert_non_null(file);
    fclose(file);
    assert_fails(pt_weights_make_dir(in_folder("file/below"), &f->graph, &err), PT_EINPUT, "file",
                 &err);
}

/* Files of a layer that this model has are written over; others would be read back with them. */
static void test_weights_of_another_model_are_not_mixed(void **state)
{
    const fixture *f = *state;
    pt_error err = {PT_OK, ""};
    part p = whole_random(f, RIG_SEED);
    save(f, &p);
    assert_ok(pt_weights_make_dir(folder, &f->graph, &err), &err);
    free(f->graph.nodes[4].name);
    f->graph.nodes[4].name = strdup("head");
    assert_fails(pt_weights_make_dir(folder, &f->graph, &err), PT_EINPUT, "fc", &err);
    part_free(&p);
}

/* ---- drawing ----------------------------------------------------------------------------------
 */

static void test_random_weights_do_not_depend_on_the_cut(void **state)
{
    const fixture *f = *state;
    pt_error err = {PT_OK, ""};
    part whole = whole_new(f), other = whole_new(f);
    assert_ok(pt_weights_randomise(whole.w, whole.flat, &f->graph, PT_INIT_HE, RIG_SEED, &err),
              &err);
    assert_ok(pt_weights_randomise(other.w, other.flat, &f->graph, PT_INIT_HE, RIG_SEED + 1, &err),
              &err);
    assert_false(same_tensor(&whole, &other, true, 0));
    for (int cut = 1; cut < f->graph.n_nodes; cut++) {
        part back = part_new(f, cut, f->graph.n_nodes);
        assert_ok(pt_weights_randomise(back.w, back.flat, &f->graph, PT_INIT_HE, RIG_SEED, &err),
                  &err);
        for (int i = 0; i < back.flat->n_params; i++) {
            const pt_flat_tensor *t = &back.flat->params[i];
            float *got = tensor(&back, true, i);
            float *want = tensor(&whole, true, whole.flat->first_param[t->node] + t->index);
            assert_memory_equal(got, want, (size_t)t->shape.elements * sizeof *got);
            free(got);
            free(want);
        }
        part_free(&back);
    }
    float *mean = tensor(&whole, false, 0), *var = tensor(&whole, false, 1);
    for (int c = 0; c < 4; c++)
        assert_true(mean[c] == 0 && var[c] == 1);
    free(mean);
    free(var);
    part_free(&whole);
    part_free(&other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_files_have_pytorch_names_and_shapes),
        TEST(test_names_stay_in_the_directory),
        TEST(test_saving_where_nothing_can_be_written),
        TEST(test_directories_are_made),
        TEST(test_weights_of_another_model_are_not_mixed),
        TEST(test_random_weights_do_not_depend_on_the_cut),
    };
    return cmocka_run_group_tests_name("weights_io", tests, NULL, NULL);
}
