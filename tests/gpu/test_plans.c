/* Every convolution of every partition file has a plan, in every precision: the backend's own code
 * plans for the device of devices/h100.json, which need not be here. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cudnn.h>

#include "../unit/suite.h"

#include "../../src/backend/cuda_conv.h"
#include "pipetrain/partition.h"
#include "pipetrain/text.h"

#define NOTE(name) (1u << CUDNN_NUMERICAL_NOTE_##name)

enum { SAMPLES = 32, MOST_SHAPES = 512, FILES = 9 /* that ship; more is fine */ };

/* The convolutions of all files, each shape once; precision, pass and determinism are 0. */
typedef struct suite {
    char *device; /* JSON */
    pt_cuda_convs *convs;
    pt_conv_shape shape[MOST_SHAPES];
    int n;
} suite;

/* ---- collecting ---- */

static const char *source_root(void)
{
    const char *root = getenv("PT_SOURCE_ROOT");
    return root ? root : ".";
}

static char *read_source(const char *folder, const char *name, size_t *ret_bytes)
{
    pt_error err = {0};
    char *path = pt_text_format("%s/%s/%s", source_root(), folder, name), *text = NULL;
    assert_non_null(path);
    assert_ok(pt_text_read_file(path, &text, ret_bytes, &err), &err);
    free(path);
    return text;
}

static pt_partition *read_partition(const char *name)
{
    pt_error err = {0};
    pt_partition *partition = NULL;
    size_t bytes = 0;
    char *text = read_source("partitions", name, &bytes);
    assert_ok(pt_partition_parse(name, text, bytes, &partition, &err), &err);
    free(text);
    return partition;
}

static pt_conv_shape shape_of(const pt_op *op)
{
    pt_conv_shape s;
    memset(&s, 0, sizeof s);
    s.n = SAMPLES;
    s.c = op->in[0].dims[0], s.h = op->in[0].dims[1], s.w = op->in[0].dims[2];
    s.k = op->out.dims[0], s.out_h = op->out.dims[1], s.out_w = op->out.dims[2];
    s.r = op->kernel[0], s.s = op->kernel[1];
    memcpy(s.stride, op->stride, sizeof s.stride);
    memcpy(s.padding, op->padding, sizeof s.padding);
    s.groups = op->groups;
    return s;
}

static void add(suite *all, const pt_conv_shape *shape)
{
    for (int i = 0; i < all->n; i++)
        if (memcmp(&all->shape[i], shape, sizeof *shape) == 0)
            return;
    assert_true(all->n < MOST_SHAPES);
    all->shape[all->n++] = *shape;
}

/* Returns how many files there are. */
static int collect(suite *all)
{
    char *path = pt_text_format("%s/partitions", source_root());
    assert_non_null(path);
    DIR *folder = opendir(path);
    int files = 0;
    free(path);
    assert_non_null(folder);
    for (struct dirent *entry; (entry = readdir(folder));) {
        const char *dot = strrchr(entry->d_name, '.');
        if (!dot || strcmp(dot, ".yaml") != 0)
            continue;
        pt_partition *partition = read_partition(entry->d_name);
        for (int i = 0; i < partition->graph.n_nodes; i++)
            if (partition->graph.nodes[i].op.kind == PT_OP_CONV2D) {
                const pt_conv_shape shape = shape_of(&partition->graph.nodes[i].op);
                add(all, &shape);
            }
        pt_partition_free(partition);
        files++;
    }
    closedir(folder);
    return files;
}

/* Not a fixture: when one fails, cmocka does not say why. */
static suite *open_suite(void **state)
{
    suite *all = *state;
    pt_error err = {0};
    size_t bytes = 0;
    if (all->n)
        return all;
    assert_true(collect(all) >= FILES);
    all->device = read_source("tests/gpu/devices", "h100.json", &bytes);
    assert_ok(pt_cuda_convs_open(all->device, &all->convs, &err), &err);
    return all;
}

/* ---- plans ---- */

/* Plans every shape and pass and returns how many there were. */
static int plan_all(suite *all, pt_cuda_convs *convs, pt_precision precision, bool deterministic,
                    void (*judge)(suite *all, const pt_conv_shape *shape, pt_cuda_conv *conv))
{
    pt_error err = {0};
    int plans = 0;
    for (int i = 0; i < all->n; i++)
        for (int pass = 0; pass < PT_CONV_PASSES; pass++, plans++) {
            pt_conv_shape shape = all->shape[i];
            pt_cuda_conv *conv = NULL;
            shape.pass = pass, shape.precision = precision, shape.deterministic = deterministic;
            assert_ok(pt_cuda_conv_plan(convs, &shape, &conv, &err), &err);
            assert_non_null(conv);
            judge(all, &shape, conv);
        }
    return plans;
}

static void refuse_notes(const pt_conv_shape *s, const pt_cuda_conv *conv, unsigned notes)
{
    if (pt_cuda_conv_notes(conv) & notes)
        fail_msg("pass %d of %lldx%lldx%lld: engine %s has notes %#x", s->pass, (long long)s->c,
                 (long long)s->h, (long long)s->w, pt_cuda_conv_engine(conv),
                 pt_cuda_conv_notes(conv));
}

static void judge_plan(suite *all, const pt_conv_shape *s, pt_cuda_conv *conv)
{
    (void)all;
    assert_memory_equal(pt_cuda_conv_engine(conv), "eng", 3);
    refuse_notes(s, conv, NOTE(REDUCED_PRECISION_REDUCTION));
    if (s->precision == PT_FP32)
        refuse_notes(s, conv, NOTE(TENSOR_CORE) | NOTE(DOWN_CONVERT_INPUTS));
    if (s->deterministic)
        refuse_notes(s, conv, NOTE(NONDETERMINISTIC));
    /* A device of 80 GB: what the largest value needs, several times over, is still sane. */
    assert_true(pt_cuda_conv_workspace(conv) < (size_t)2 << 30);
    if (s->precision == PT_BF16 && s->c % 8 == 0 && s->k % 8 == 0)
        assert_true(pt_cuda_conv_notes(conv) & NOTE(TENSOR_CORE));
}

static void plan_both_ways(void **state, pt_precision precision)
{
    suite *all = open_suite(state);
    int plans = plan_all(all, all->convs, precision, /*deterministic=*/false, judge_plan);
    plans += plan_all(all, all->convs, precision, /*deterministic=*/true, judge_plan);
    assert_int_equal(plans, 2 * PT_CONV_PASSES * all->n);
    print_message("# %d shapes, %d plans in %s\n", all->n, plans, pt_precision_names[precision]);
}

static void test_strict_fp32(void **state)
{
    plan_both_ways(state, PT_FP32);
}

static void test_tf32(void **state)
{
    plan_both_ways(state, PT_TF32);
}

static void test_bf16(void **state)
{
    plan_both_ways(state, PT_BF16);
}

static void judge_again(suite *all, const pt_conv_shape *s, pt_cuda_conv *conv)
{
    pt_error err = {0};
    pt_cuda_conv *first = NULL;
    assert_ok(pt_cuda_conv_plan(all->convs, s, &first, &err), &err);
    assert_ptr_not_equal(first, conv);
    assert_string_equal(pt_cuda_conv_engine(first), pt_cuda_conv_engine(conv));
    assert_int_equal(pt_cuda_conv_workspace(first), pt_cuda_conv_workspace(conv));
}

/* Ranks plan each for itself, and must agree. */
static void test_planning_anew_gives_the_same(void **state)
{
    suite *all = open_suite(state);
    pt_cuda_convs *other = NULL;
    pt_error err = {0};
    assert_ok(pt_cuda_convs_open(all->device, &other, &err), &err);
    for (int p = 0; p < PT_PRECISIONS; p++)
        plan_all(all, other, (pt_precision)p, /*deterministic=*/false, judge_again);
    pt_cuda_convs_close(other);
}

static void test_a_shape_has_one_plan(void **state)
{
    suite *all = open_suite(state);
    pt_cuda_conv *first[MOST_SHAPES], *again = NULL;
    pt_error err = {0};
    for (int i = 0; i < all->n; i++)
        assert_ok(pt_cuda_conv_plan(all->convs, &all->shape[i], &first[i], &err), &err);
    for (int i = 0; i < all->n; i++) {
        assert_ok(pt_cuda_conv_plan(all->convs, &all->shape[i], &again, &err), &err);
        assert_ptr_equal(again, first[i]);
        for (int j = 0; j < i; j++)
            assert_ptr_not_equal(first[i], first[j]);
    }
}

/* ---- refusals ---- */

static void test_no_engine_is_said_once(void **state)
{
    suite *all = open_suite(state);
    pt_error err = {0};
    pt_cuda_conv *conv = NULL;
    pt_conv_shape s;
    memset(&s, 0, sizeof s);
    /* More elements than any engine counts to. */
    s.n = SAMPLES, s.c = s.k = 64, s.h = s.w = s.out_h = s.out_w = 40000;
    s.r = s.s = 3, s.stride[0] = s.stride[1] = s.padding[0] = s.padding[1] = 1, s.groups = 1;
    assert_fails(pt_cuda_conv_plan(all->convs, &s, &conv, &err), PT_EINPUT,
                 "has no engine for the output in fp32 of a convolution of 32 images from "
                 "64x40000x40000 to 64x40000x40000 (kernel 3x3, stride 1x1, padding 1x1, 1 group)",
                 &err);
    assert_non_null(strstr(err.text, "another --precision"));
    assert_null(strstr(err.text, "--deterministic"));
    s.deterministic = 1;
    assert_fails(pt_cuda_conv_plan(all->convs, &s, &conv, &err), PT_EINPUT,
                 "leave --deterministic out", &err);
    assert_null(conv);
}

static void test_shapes_must_meet(void **state)
{
    suite *all = open_suite(state);
    pt_error err = {0};
    pt_cuda_conv *conv = NULL;
    pt_conv_shape s = all->shape[0];
    s.out_h++;
    assert_fails(pt_cuda_conv_plan(all->convs, &s, &conv, &err), PT_EBACKEND,
                 "a convolution of 32 images", &err);
    assert_non_null(strstr(err.text, "cuDNN"));
    assert_null(conv);
}

static void test_a_described_device_does_not_run(void **state)
{
    suite *all = open_suite(state);
    pt_error err = {0};
    pt_cuda_conv *conv = NULL;
    char memory[16] = {0};
    assert_ok(pt_cuda_conv_plan(all->convs, &all->shape[0], &conv, &err), &err);
    assert_fails(pt_cuda_conv_run(conv, NULL, memory, memory, memory, NULL, &err), PT_EINTERNAL,
                 "cannot run", &err);
}

static void test_a_description_is_checked(void **state)
{
    (void)state;
    pt_error err = {0};
    pt_cuda_convs *convs = NULL;
    assert_fails(pt_cuda_convs_open("{\"warpSize\":", &convs, &err), PT_EBACKEND,
                 "description of a device", &err);
    assert_null(convs);
}

/* ---- the two models that this suite is mostly about ---- */

static void test_parameters(void **state)
{
    (void)state;
    static const struct {
        const char *file;
        int64_t parameters;
    } rows[] = {{"resnet-50.yaml", 25557032}, {"wrn-28-10.yaml", 36479194}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        pt_partition *p = read_partition(rows[i].file);
        assert_int_equal(pt_graph_parameters(&p->graph, 0, p->graph.n_nodes), rows[i].parameters);
        assert_non_null(pt_partition_cut(p, 2));
        assert_non_null(pt_partition_cut(p, 4));
        pt_partition_free(p);
    }
}

static int close_suite(void **state)
{
    suite *all = *state;
    pt_cuda_convs_close(all->convs);
    free(all->device);
    return 0;
}

int main(void)
{
    static suite all; /* large */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(test_strict_fp32, &all),
        cmocka_unit_test_prestate(test_tf32, &all),
        cmocka_unit_test_prestate(test_bf16, &all),
        cmocka_unit_test_prestate(test_planning_anew_gives_the_same, &all),
        cmocka_unit_test_prestate(test_a_shape_has_one_plan, &all),
        cmocka_unit_test_prestate(test_no_engine_is_said_once, &all),
        cmocka_unit_test_prestate(test_shapes_must_meet, &all),
        cmocka_unit_test_prestate(test_a_described_device_does_not_run, &all),
        cmocka_unit_test_prestate(test_a_description_is_checked, &all),
        cmocka_unit_test_prestate(test_parameters, &all),
    };
    void *state = &all;
    int failed = cmocka_run_group_tests_name("plans", tests, NULL, NULL);
    close_suite(&state);
    return failed;
}
