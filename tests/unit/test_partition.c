/* Partition files: what is read, and what blocks expand to. */
#include "partition_texts.h"

static void assert_node(const pt_partition *p, int i, const char *name, int input0, int input1)
{
    const pt_node *node = &p->graph.nodes[i];

    assert_string_equal(node->name, name);
    assert_int_equal(node->inputs[0], input0);
    assert_int_equal(node->op.n_inputs, input1 < 0 ? 1 : 2);
    assert_int_equal(node->op.layer, i);
    if (input1 >= 0)
        assert_int_equal(node->inputs[1], input1);
}

/* ---- what is read ---- */

static void test_everything_is_read(void **state)
{
    (void)state;
    pt_partition *p = parse("name: tiny-1\n"
                            "input: {shape: [2, 8, 8], mean: [0.1, 0.2], std: [0.5]}\n"
                            "layers:\n"
                            "  - name: conv\n"
                            "    kind: conv2d\n"
                            "    features: 4\n"
                            "    kernel: [3, 5]\n"
                            "    padding: [1, 2]\n"
                            "    groups: 2\n"
                            "    bias: off\n"
                            "  - {name: pool, kind: max-pool, kernel: 2}\n" TAIL
                            "loss: {kind: cross-entropy, smoothing: 0.1}\n"
                            "init: he\n"
                            "cuts:\n"
                            "  2: [flat]\n"
                            "  3: [pool, fc]\n"
                            "train:\n"
                            "  lr: 5e-2\n"
                            "  milestones: [60, 120]\n"
                            "  data: 'synthetic'\n");
    const pt_op *op = &p->graph.nodes[0].op;

    assert_string_equal(p->file, "t.yaml");
    assert_string_equal(p->name, "tiny-1");
    assert_int_equal(p->graph.n_nodes, 4);
    assert_int_equal(op->kernel[0], 3);
    assert_int_equal(op->kernel[1], 5);
    assert_int_equal(op->padding[0], 1);
    assert_int_equal(op->padding[1], 2);
    assert_int_equal(op->stride[1], 1);
    assert_int_equal(op->groups, 2);
    assert_false(op->bias);
    assert_int_equal(p->graph.nodes[0].line, 4);
    assert_int_equal(p->graph.nodes[0].column, 5);
    assert_int_equal(p->normalisation.n, 2);
    assert_true(p->normalisation.mean[1] == 0.2 && p->normalisation.std[1] == 0.5);
    assert_int_equal(p->graph.loss.kind, PT_LOSS_CROSS_ENTROPY);
    assert_true(p->graph.loss.smoothing == 0.1);
    assert_int_equal(p->graph.loss.shape.dims[0], 3);
    assert_int_equal(p->init, PT_INIT_HE);
    assert_int_equal(p->n_settings, 3);
    assert_string_equal(p->settings[0].key, "lr");
    assert_string_equal(p->settings[0].value, "5e-2");
    assert_string_equal(p->settings[1].value, "60,120");
    assert_string_equal(p->settings[2].value, "synthetic");
    assert_int_equal(p->settings[1].line, 21);
    assert_int_equal(p->settings[1].column, 3);
    assert_int_equal(pt_partition_cut(p, 1)->begins[0], 0);
    assert_int_equal(pt_partition_cut(p, 2)->begins[1], 2);
    assert_int_equal(pt_partition_cut(p, 3)->begins[2], 3);
    assert_null(pt_partition_cut(p, 4));
    pt_partition_free(p);
    pt_partition_free(NULL);
}

static void test_defaults(void **state)
{
    (void)state;
    pt_partition *p = parse(HEAD CONV TAIL "cuts:\n");

    assert_int_equal(p->init, PT_INIT_PYTORCH);
    assert_int_equal(p->graph.loss.kind, PT_LOSS_CROSS_ENTROPY);
    assert_true(p->graph.loss.smoothing == 0);
    assert_int_equal(p->normalisation.n, 1);
    assert_true(p->normalisation.mean[0] == 0 && p->normalisation.std[0] == 1);
    assert_true(p->graph.nodes[0].op.bias);
    assert_int_equal(p->n_cuts, 1);
    assert_int_equal(p->n_settings, 0);
    pt_partition_free(p);
}

/* One number for all channels goes with one for each. */
static void test_mean_and_std_may_differ_in_length(void **state)
{
    (void)state;
    pt_partition *p =
        parse("name: t\ninput: {shape: [2, 8, 8], mean: [0.5], std: [2, 3]}\nlayers:\n" CONV TAIL);

    assert_int_equal(p->normalisation.n, 2);
    assert_true(p->normalisation.mean[1] == 0.5 && p->normalisation.std[1] == 3);
    pt_partition_free(p);
}

/* A file may begin with a byte order mark, have other line ends, or be JSON. */
static void test_other_ways_of_writing(void **state)
{
    (void)state;
    pt_partition_free(parse("\xef\xbb\xbf" HEAD CONV TAIL));
    pt_partition_free(parse("name: a\r\ninput: {shape: [4]}\r\nlayers:\r\n"
                            "- {name: fc, kind: linear, features: 2}\r\n"));
    pt_partition_free(parse("{\"name\": \"a\", \"input\": {\"shape\": [4]}, \"layers\": "
                            "[{\"name\": \"fc\", \"kind\": \"linear\", \"features\": 2}]}"));
}

/* ---- blocks ---- */

static void test_blocks_substitute_and_drop(void **state)
{
    (void)state;
    pt_partition *p =
        parse(RESIDUAL "  - {name: g.0, block: res, out: 6, k: [3, 1], project: on}\n"
                       "  - {name: g.1, block: res, out: 6, k: [3, 1], project: off}\n"
                       "  - {name: both, kind: add, inputs: [g.0, g.1]}\n" TAIL);

    assert_node(p, 0, "g.0.conv1", 0, -1);
    assert_node(p, 1, "g.0.skip", 0, -1);
    assert_node(p, 2, "g.0.sum", 1, 2);
    assert_node(p, 3, "g.1.conv1", 3, -1);
    assert_node(p, 4, "g.1.sum", 4, 3); /* skip is dropped: its name means the block's input */
    assert_node(p, 5, "both", 3, 5);
    assert_int_equal(p->graph.nodes[0].op.kernel[0], 3);
    assert_int_equal(p->graph.nodes[0].op.kernel[1], 1);
    assert_int_equal(p->graph.nodes[0].op.features, 6);
    assert_int_equal(p->graph.nodes[3].line, 7); /* the layer's own line, in the block */
    pt_partition_free(p);
}

static void test_repeat_is_a_chain(void **state)
{
    (void)state;
    pt_partition *p =
        parse(RESIDUAL "  - {name: conv, kind: conv2d, features: 4, kernel: 1}\n"
                       "  - {name: relu, kind: relu}\n"
                       "  - {name: \"g.{i}\", block: res, repeat: 3, out: 4, k: [3, 1], "
                       "project: off, inputs: [conv]}\n"
                       "  - {name: c, kind: concat, inputs: [relu, g.2]}\n" TAIL
                       "cuts: {2: [g.1], 3: [g.1.sum, c]}\n");

    assert_node(p, 2, "g.0.conv1", 1, -1);
    assert_node(p, 3, "g.0.sum", 3, 1);
    assert_node(p, 4, "g.1.conv1", 4, -1);
    assert_node(p, 7, "g.2.sum", 7, 6);
    assert_node(p, 8, "c", 2, 8);
    assert_int_equal(pt_partition_cut(p, 2)->begins[1], 4);
    assert_int_equal(pt_partition_cut(p, 3)->begins[1], 5);
    pt_partition_free(p);
}

/* A block hands its own parameters on, and names inside come first. */
static void test_nested_blocks(void **state)
{
    (void)state;
    pt_partition *p = parse("name: tiny\n"
                            "input: {shape: [4]}\n"
                            "blocks:\n"
                            "  inner:\n"
                            "    parameters: [n, from]\n"
                            "    layers:\n"
                            "      - {name: fc, kind: linear, features: $n, inputs: [$from]}\n"
                            "      - {name: act, kind: relu}\n"
                            "  outer:\n"
                            "    parameters: [n]\n"
                            "    layers:\n"
                            "      - {name: fc, kind: linear, features: $n}\n"
                            "      - {name: in, block: inner, n: $n, from: fc}\n"
                            "      - {name: sum, kind: add, inputs: [fc, in]}\n"
                            "layers:\n"
                            "  - {name: fc, kind: linear, features: 4}\n"
                            "  - {name: a, block: outer, n: 5}\n"
                            "  - {name: fc2, kind: linear, features: 4}\n"
                            "  - {name: sum, kind: add, inputs: [fc, fc2, input]}\n");

    assert_node(p, 1, "a.fc", 1, -1);
    assert_node(p, 2, "a.in.fc", 2, -1); /* `from: fc` stands in outer: it means a.fc */
    assert_node(p, 3, "a.in.act", 3, -1);
    assert_node(p, 4, "a.sum", 2, 4);
    assert_int_equal(p->graph.nodes[2].op.features, 5);
    assert_int_equal(p->graph.nodes[6].inputs[0], 1);
    assert_int_equal(p->graph.nodes[6].inputs[2], 0);
    pt_partition_free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_everything_is_read),
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_mean_and_std_may_differ_in_length),
        cmocka_unit_test(test_other_ways_of_writing),
        cmocka_unit_test(test_blocks_substitute_and_drop),
        cmocka_unit_test(test_repeat_is_a_chain),
        cmocka_unit_test(test_nested_blocks),
    };
    return cmocka_run_group_tests_name("partition", tests, NULL, NULL);
}
