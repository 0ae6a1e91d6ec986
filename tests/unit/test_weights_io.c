/* Weights on disk: names, shapes and bytes of what is written, any cut read by any other, and every
 * file that must be refused. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backend_row.h"
#include "suite.h"

#include "pipetrain/init.h"
#include "pipetrain/safetensors.h"
#include "pipetrain/weights_io.h"
#include "random_graph.h"

enum { CLASSES = 3, PATH = 512, SEED = 9, TENSORS = 8 };

typedef struct fixture {
    char dir[PATH / 2];
    pt_backend *b;
    pt_graph graph;
} fixture;

/* conv2d, batch-norm, relu, flatten, linear; the first is called as in a block. */
static int begin(void **state)
{
    pt_error err = {PT_OK, ""};
    pt_backend_config config = {.threads = 1};
    fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    const char *t = getenv("TMPDIR");
    snprintf(f->dir, sizeof f->dir, "%s/pt-XXXXXX", t ? t : "/tmp");
    assert_non_null(mkdtemp(f->dir));
    assert_ok(backend_row("ref")->open(&config, &f->b, &err), &err);
    graph_begin(&f->graph, (pt_shape){.ndim = 3, .dims = {2, 4, 4}}, CLASSES);
    pt_op conv = graph_op(PT_OP_CONV2D), linear = graph_op(PT_OP_LINEAR);
    conv.features = 4;
    conv.kernel[0] = 3;
    conv.kernel[1] = 1;
    linear.features = CLASSES;
    int value = graph_add1(&f->graph, conv, 0);
    value = graph_add1(&f->graph, graph_op(PT_OP_BATCH_NORM), value);
    value = graph_add1(&f->graph, graph_op(PT_OP_RELU), value);
    value = graph_add1(&f->graph, graph_op(PT_OP_FLATTEN), value);
    graph_add1(&f->graph, linear, value);
    static const char *const names[] = {"group1.0.conv", "bn", "relu", "flat", "fc"};
    for (int i = 0; i < f->graph.n_nodes; i++) {
        free(f->graph.nodes[i].name);
        f->graph.nodes[i].name = strdup(names[i]);
        assert_non_null(f->graph.nodes[i].name);
    }
    *state = f;
    return 0;
}

static void remove_dir(const char *dir)
{
    struct dirent *entry;
    DIR *d = opendir(dir);
    assert_non_null(d);
    while ((entry = readdir(d))) {
        char path[2 * PATH];
        struct stat st;
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        snprintf(path, sizeof path, "%s/%s", dir, entry->d_name);
        if (lstat(path, &st) == 0 && S_ISDIR(st.st_mode))
            remove_dir(path);
        else
            unlink(path);
    }
    closedir(d);
    rmdir(dir);
}

static int end(void **state)
{
    fixture *f = *state;
    remove_dir(f->dir);
    pt_graph_clear(&f->graph);
    f->b->row->close(f->b);
    free(f);
    return 0;
}

/* The weights of the layers [first, end). */
typedef struct part {
    pt_flat *flat;
    pt_weights *w;
} part;

static part part_new(const fixture *f, int first, int last)
{
    pt_error err = {PT_OK, ""};
    part p = {.flat = malloc(sizeof *p.flat)};
    assert_non_null(p.flat);
    assert_ok(pt_flat_init(p.flat, &f->graph, first, last, &err), &err);
    pt_weights_spec spec = {
        .flat = p.flat,
        .optimizer = {.name = "sgd"},
        .predictor = pt_predictor_find("none"),
        .lr = {.schedule = "constant"},
    };
    assert_ok(pt_weights_new(f->b, &spec, &p.w, &err), &err);
    return p;
}

static void part_free(part *p)
{
    pt_weights_free(p->w);
    pt_flat_clear(p->flat);
    free(p->flat);
}

static part whole_new(const fixture *f)
{
    part p = part_new(f, 0, f->graph.n_nodes);
    assert_int_equal(p.flat->n_params + p.flat->n_state, TENSORS);
    return p;
}

static part whole_random(const fixture *f, uint64_t seed)
{
    pt_error err = {PT_OK, ""};
    part p = whole_new(f);
    assert_ok(pt_weights_randomise(p.w, p.flat, &f->graph, PT_INIT_PYTORCH, seed, &err), &err);
    float var[4] = {1.5f, 2.5f, 3.5f, 4.5f}; /* no two tensors are equal */
    assert_ok(pt_weights_set_state(p.w, 1, var, &err), &err);
    return p;
}

static float *tensor(const part *p, bool param, int i)
{
    pt_error err = {PT_OK, ""};
    const pt_flat_tensor *t = param ? &p->flat->params[i] : &p->flat->state[i];
    float *at = calloc((size_t)t->shape.elements, sizeof *at);
    assert_non_null(at);
    assert_ok(param ? pt_weights_get_param(p->w, i, at, &err)
                    : pt_weights_get_state(p->w, i, at, &err),
              &err);
    return at;
}

static bool same_tensor(const part *a, const part *b, bool param, int i)
{
    const pt_flat_tensor *t = param ? &a->flat->params[i] : &a->flat->state[i];
    float *x = tensor(a, param, i), *y = tensor(b, param, i);
    bool same = memcmp(x, y, (size_t)t->shape.elements * sizeof *x) == 0;
    free(x);
    free(y);
    return same;
}

static void assert_same_weights(const part *a, const part *b)
{
    for (int i = 0; i < a->flat->n_params; i++)
        assert_true(same_tensor(a, b, true, i));
    for (int i = 0; i < a->flat->n_state; i++)
        assert_true(same_tensor(a, b, false, i));
}

static char *in_dir(const fixture *f, const char *name, char path[PATH])
{
    snprintf(path, PATH, "%s/%s", f->dir, name);
    return path;
}

static int count_files(const char *dir)
{
    int n = 0;
    struct dirent *entry;
    DIR *d = opendir(dir);
    assert_non_null(d);
    while ((entry = readdir(d)))
        n += entry->d_name[0] != '.';
    closedir(d);
    return n;
}

static void save(const fixture *f, const part *p)
{
    pt_error err = {PT_OK, ""};
    assert_ok(pt_weights_save(p->w, p->flat, &f->graph, f->dir, &err), &err);
}

/* ---- writing ----------------------------------------------------------------------------------
 */

static void assert_tensor(const fixture *f, const char *file, const char *name, int ndim,
                          const int64_t *dims, const float *want)
{
    pt_error err = {PT_OK, ""};
    char path[PATH];
    pt_safetensors *st = NULL;
    assert_ok(pt_safetensors_open(in_dir(f, file, path), &st, &err), &err);
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
    part p = whole_random(f, SEED);
    save(f, &p);
    assert_int_equal(count_files(f->dir), 3);
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
        assert_tensor(f, rows[i].file, rows[i].name, rows[i].ndim, rows[i].dims, want);
        free(want);
    }
    part_free(&p);
}

/* A layer's name cannot lead out of the directory. */
static void test_names_stay_in_the_directory(void **state)
{
    const fixture *f = *state;
    char path[PATH];
    free(f->graph.nodes[4].name);
    f->graph.nodes[4].name = strdup("../../fc");
    part p = whole_random(f, SEED);
    save(f, &p);
    assert_int_equal(access(in_dir(f, "layer-004-.._.._fc.safetensors", path), R_OK), 0);
    part_free(&p);
}

static void test_saving_where_nothing_can_be_written(void **state)
{
    const fixture *f = *state;
    pt_error err = {PT_OK, ""};
    char path[PATH];
    part p = whole_random(f, SEED);
    assert_int_equal(pt_weights_save(p.w, p.flat, &f->graph, in_dir(f, "nowhere", path), &err),
                     PT_EIO);
    assert_non_null(strstr(err.text, "nowhere"));
    part_free(&p);
}

static void test_directories_are_made(void **state)
{
    const fixture *f = *state;
    pt_error err = {PT_OK, ""};
    char path[PATH];
    struct stat st;
    assert_ok(pt_weights_make_dir(in_dir(f, "a/b//c", path), &f->graph, &err), &err);
    assert_ok(pt_weights_make_dir(path, &f->graph, &err), &err); /* it is there already */
    assert_int_equal(stat(path, &st), 0);
    assert_true(S_ISDIR(st.st_mode));
    assert_ok(pt_weights_make_dir(in_dir(f, "with/slash/", path), &f->graph, &err), &err);
    FILE *file = fopen(in_dir(f, "file", path), "w");
    assert_non_null(file);
    fclose(file);
    assert_fails(pt_weights_make_dir(in_dir(f, "file/below", path), &f->graph, &err), PT_EINPUT,
                 "file", &err);
}

/* Files of a layer that this model has are written over; others would be read back with them. */
static void test_weights_of_another_model_are_not_mixed(void **state)
{
    const fixture *f = *state;
    pt_error err = {PT_OK, ""};
    part p = whole_random(f, SEED);
    save(f, &p);
    assert_ok(pt_weights_make_dir(f->dir, &f->graph, &err), &err);
    free(f->graph.nodes[4].name);
    f->graph.nodes[4].name = strdup("head");
    assert_fails(pt_weights_make_dir(f->dir, &f->graph, &err), PT_EINPUT, "fc", &err);
    part_free(&p);
}

/* ---- reading ----------------------------------------------------------------------------------
 */

/* Written at every number of stages, read at every other. */
static void test_any_cut_reads_any_other(void **state)
{
    const fixture *f = *state;
    pt_error err = {PT_OK, ""};
    part whole = whole_random(f, SEED);
    for (int cut = 1; cut < f->graph.n_nodes; cut++) {
        part halves[2] = {part_new(f, 0, cut), part_new(f, cut, f->graph.n_nodes)};
        part again = whole_new(f);
        pt_load_report found = {0};
        int n = 0;
        save(f, &whole);
        for (int h = 0; h < 2; h++) {
            assert_ok(pt_weights_load(halves[h].w, halves[h].flat, &f->graph, f->dir, /*all=*/true,
                                      &found, &err),
                      &err);
            assert_int_equal(found.loaded, halves[h].flat->n_params + halves[h].flat->n_state);
            assert_int_equal(found.missing, 0);
            n += found.loaded;
        }
        assert_int_equal(n, TENSORS);
        remove_dir(f->dir);
        assert_int_equal(mkdir(f->dir, 0700), 0);
        save(f, &halves[1]);
        save(f, &halves[0]);
        assert_ok(pt_weights_load(again.w, again.flat, &f->graph, f->dir, true, &found, &err),
                  &err);
        assert_same_weights(&whole, &again);
        part_free(&halves[0]);
        part_free(&halves[1]);
        part_free(&again);
    }
    part_free(&whole);
}

/* One file with all tensors, as a checkpoint from elsewhere has them. */
static void write_file(const fixture *f, const part *p, const char *name, int skip, char path[PATH])
{
    pt_error err = {PT_OK, ""};
    pt_st_tensor tensors[TENSORS];
    char names[TENSORS][64];
    float *data[TENSORS];
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
    assert_ok(pt_safetensors_write(in_dir(f, name, path), tensors, n, NULL, 0, &err), &err);
    for (int i = 0; i < n; i++)
        free(data[i]);
}

static void test_a_single_file(void **state)
{
    const fixture *f = *state;
    pt_error err = {PT_OK, ""};
    char path[PATH];
    pt_load_report found = {0};
    part p = whole_random(f, SEED), q = whole_new(f);
    write_file(f, &p, "all.safetensors", /*skip=*/-1, path);
    assert_ok(pt_weights_load(q.w, q.flat, &f->graph, path, true, &found, &err), &err);
    assert_same_weights(&p, &q);
    part_free(&p);
    part_free(&q);
}

static void test_a_missing_tensor(void **state)
{
    const fixture *f = *state;
    pt_error err = {PT_OK, ""};
    char path[PATH];
    part p = whole_random(f, SEED);
    for (int skip = 0; skip < TENSORS; skip++) {
        pt_load_report found = {.loaded = -1};
        int n_params = p.flat->n_params;
        part q = whole_random(f, SEED + 1), before = whole_random(f, SEED + 1);
        write_file(f, &p, "part.safetensors", skip, path);
        assert_fails(pt_weights_load(q.w, q.flat, &f->graph, path, true, &found, &err), PT_EINPUT,
                     "has no tensor", &err);
        assert_int_equal(found.loaded, -1); /* untouched on failure */
        assert_ok(pt_weights_load(q.w, q.flat, &f->graph, path, false, &found, &err), &err);
        assert_int_equal(found.loaded, TENSORS - 1);
        assert_int_equal(found.missing, 1);
        assert_non_null(found.missing_names);
        free(found.missing_names);
        for (int i = 0; i < TENSORS; i++) { /* it alone keeps what it had */
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
    char path[PATH];
    pt_load_report found = {0};
    part p = whole_random(f, SEED);
    assert_ok(pt_safetensors_write(in_dir(f, "wrong.safetensors", path), wrong, 1, NULL, 0, &err),
              &err);
    for (int all = 0; all < 2; all++) {
        part q = whole_new(f);
        if (all) /* the rest is right, in another file of the directory */
            save(f, &p);
        unlink(in_dir(f, "layer-004-fc.safetensors", path));
        assert_fails(pt_weights_load(q.w, q.flat, &f->graph,
                                     all ? f->dir : in_dir(f, "wrong.safetensors", path),
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
    char path[PATH];
    pt_load_report found = {0};
    static const float zeros[3];
    part p = whole_random(f, SEED), q = whole_new(f);
    save(f, &p);
    assert_ok(pt_safetensors_write(in_dir(f, "other.safetensors", path),
                                   &(pt_st_tensor){"head.bias", PT_F32, 1, {3}, zeros, 12}, 1, NULL,
                                   0, &err),
              &err);
    assert_ok(pt_weights_load(q.w, q.flat, &f->graph, f->dir, true, &found, &err), &err);
    assert_same_weights(&p, &q);
    part_free(&p);
    part_free(&q);
}

static void test_paths_without_weights(void **state)
{
    const fixture *f = *state;
    pt_error err = {PT_OK, ""};
    char path[PATH];
    pt_load_report found = {0};
    part q = whole_new(f);
    assert_fails(
        pt_weights_load(q.w, q.flat, &f->graph, in_dir(f, "nobody", path), false, &found, &err),
        PT_EINPUT, "nobody", &err);
    assert_fails(pt_weights_load(q.w, q.flat, &f->graph, f->dir, false, &found, &err), PT_EINPUT,
                 "no .safetensors file", &err);
    FILE *file = fopen(in_dir(f, "broken.safetensors", path), "w");
    assert_non_null(file);
    fputs("no safetensors", file);
    fclose(file);
    assert_fails(pt_weights_load(q.w, q.flat, &f->graph, f->dir, false, &found, &err), PT_EINPUT,
                 "broken.safetensors", &err);
    part_free(&q);
}

/* ---- drawing ----------------------------------------------------------------------------------
 */

static void test_random_weights_do_not_depend_on_the_cut(void **state)
{
    const fixture *f = *state;
    pt_error err = {PT_OK, ""};
    part whole = whole_new(f), other = whole_new(f);
    assert_ok(pt_weights_randomise(whole.w, whole.flat, &f->graph, PT_INIT_HE, SEED, &err), &err);
    assert_ok(pt_weights_randomise(other.w, other.flat, &f->graph, PT_INIT_HE, SEED + 1, &err),
              &err);
    assert_false(same_tensor(&whole, &other, true, 0));
    for (int cut = 1; cut < f->graph.n_nodes; cut++) {
        part back = part_new(f, cut, f->graph.n_nodes);
        assert_ok(pt_weights_randomise(back.w, back.flat, &f->graph, PT_INIT_HE, SEED, &err), &err);
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

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_files_have_pytorch_names_and_shapes),
        TEST(test_names_stay_in_the_directory),
        TEST(test_saving_where_nothing_can_be_written),
        TEST(test_directories_are_made),
        TEST(test_weights_of_another_model_are_not_mixed),
        TEST(test_any_cut_reads_any_other),
        TEST(test_a_single_file),
        TEST(test_a_missing_tensor),
        TEST(test_another_shape_is_refused),
        TEST(test_a_transposed_shape_is_refused),
        TEST(test_another_type_is_refused),
        TEST(test_more_dimensions_are_refused),
        TEST(test_other_tensors_are_left_alone),
        TEST(test_paths_without_weights),
        TEST(test_random_weights_do_not_depend_on_the_cut),
    };
    return cmocka_run_group_tests_name("weights_io", tests, NULL, NULL);
}
