/* Partition files: what is read, what blocks expand to, and every refusal with its place. */
#include "partition_texts.h"

#include <stdio.h>
#include <stdlib.h>

#include "pipetrain/text.h"

/* The text is refused with a message that begins with "t.yaml:" and `where` and holds `words`. */
static void refuse(const char *text, const char *where, const char *words)
{
    pt_error err = {0};
    pt_partition *p = NULL;
    char begin[64];

    snprintf(begin, sizeof begin, "t.yaml:%s: ", where);
    assert_fails(pt_partition_parse("t.yaml", text, strlen(text), &p, &err), PT_EINPUT, words,
                 &err);
    if (strncmp(err.text, begin, strlen(begin)) != 0)
        fail_msg("message \"%s\" does not begin with \"%s\"", err.text, begin);
    assert_null(p);
}

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

static void test_block_errors(void **state)
{
    (void)state;
#define ONE(text) RESIDUAL "  - " text "\n" TAIL
    refuse(ONE("{name: g, block: rez, out: 4, k: 1, project: on}"), "11:22", "did you mean 'res'?");
    refuse(ONE("{name: g, block: res, k: 1, project: on}"), "11:5", "lacks the key 'out'");
    refuse(ONE("{name: g, block: res, out: 4, k: 1, projct: on}"), "11:41",
           "did you mean 'project'?");
    refuse(ONE("{name: g, block: res, out: 4, k: 1, project: maybe}"), "11:50", "on or off");
    refuse(ONE("{name: g, block: res, out: -4, k: 1, project: on}"), "11:32",
           "'features' of layer 'g.conv1' must be a whole number");
    refuse(ONE("{name: g, block: res, out: $x, k: 1, project: on}"), "11:32", "outside of a block");
    refuse(ONE("{name: g, block: res, out: 5, k: [1, 1, 1], project: on}"), "11:38", "3 items");
    refuse(ONE("{name: g, block: res, out: 6, k: [3, 1], project: off}"), "9:9",
           "layer 'g.sum': add needs equal shapes");
    refuse(ONE("{name: g, block: res, out: 4, k: 1, project: on, repeat: 2}"), "11:12",
           "needs {i}");
    refuse(ONE("{name: \"g.{i}\", block: res, out: 4, k: 1, project: on}"), "11:12",
           "add 'repeat: N'");
    refuse(ONE("{name: \"g.{i}\", block: res, out: 4, k: 1, project: on, repeat: 0}"), "11:68",
           "from 1 to 10000");
    refuse(ONE("{name: g, block: res, kind: relu, out: 4, k: 1, project: on}"), "11:5",
           "either 'kind");
    refuse("name: t\ninput: {shape: [4]}\nblocks:\n  a:\n    layers:\n"
           "      - {name: x, block: a}\nlayers:\n  - {name: r, block: a}\n",
           "6:9", "may not use itself");
    refuse("name: t\ninput: {shape: [4]}\nblocks:\n  a:\n    parameters: [$n]\n    layers: [1]\n"
           "layers:\n  - {name: r, block: a}\n",
           "5:18", "no name of a parameter");
    refuse("name: t\ninput: {shape: [4]}\nblocks:\n  a:\n    parameters: [repeat]\n"
           "    layers: [1]\nlayers:\n  - {name: r, block: a}\n",
           "5:18", "is a key of every layer");
    refuse("name: t\ninput: {shape: [4]}\nblocks:\n  a:\n    parameters: [n, m, n]\n"
           "    layers: [1]\nlayers:\n  - {name: r, block: a}\n",
           "5:24", "'n' stands here twice");
    refuse(ONE("{name: g, block: res, out: 4, k: 1, project: on, inputs: [input, input]}"), "11:5",
           "takes one input, not 2");
    refuse("name: t\ninput: {shape: [4]}\nblocks:\n  a: {layers: []}\nlayers:\n"
           "  - {name: r, block: a}\n",
           "4:15", "has no layers");
    refuse("name: t\ninput: {shape: [4]}\nblocks:\n  a: {parameter: [x], layers: [1]}\nlayers:\n"
           "  - {name: r, block: a}\n",
           "4:7", "did you mean 'parameters'?");
    refuse(
        "name: t\ninput: {shape: [4]}\nblocks:\n  a:\n    parameters: [n]\n    layers:\n"
        "      - {name: x, kind: linear, features: $m}\nlayers:\n  - {name: r, block: a, n: 1}\n",
        "7:43", "is no parameter of this block");
    refuse(HEAD "  - {name: a, block: b}\n", "5:22", "defines no blocks");
#undef ONE
}

/* Nested repeats multiply: a short file must not ask for more than a machine holds. */
static void test_layers_are_bounded(void **state)
{
    (void)state;
    refuse("name: t\ninput: {shape: [4]}\nblocks:\n"
           "  a: {layers: [{name: 'x{i}', kind: relu, repeat: 10000}]}\n"
           "  b: {layers: [{name: 'y{i}', block: a, repeat: 10000}]}\n"
           "layers:\n  - {name: 'z{i}', block: b, repeat: 10000}\n",
           "4:16", "more than 100000 layers");
    refuse("name: t\ninput: {shape: [4]}\nblocks:\n"
           "  a: {layers: [{name: 'x{i}', kind: relu, when: off, repeat: 10000}]}\n"
           "  b: {layers: [{name: 'y{i}', block: a, repeat: 10000}]}\n"
           "layers:\n  - {name: 'z{i}', block: b, repeat: 10000}\n",
           "4:16", "more than 100000 layers");
}

/* ---- refusals ---- */

static void test_top_level_errors(void **state)
{
    (void)state;
    refuse("", "1:1", "empty");
    refuse("# nothing\n", "1:1", "empty");
    refuse("just text\n", "1:1", "must be a mapping");
    refuse("- a\n", "1:1", "must be a mapping");
    refuse("name: a\nlayer: 1\n", "2:1", "did you mean 'layers'?");
    refuse("input: {shape: [4]}\n", "1:1", "lacks the key 'name'");
    refuse("name: a\n", "1:1", "lacks the key 'input'");
    refuse("name: a\ninput: {shape: [4]}\n", "1:1", "lacks the key 'layers'");
    refuse("name: a\nname: b\n", "2:1", "stands here and in line 1");
    refuse("name: a/b\n", "1:7", "no name of a model");
    refuse("name:\ninput: 3\n", "1:1", "is empty");
    refuse("name: a\ninput: {shape: [4]}\nlayers: []\n", "3:9", "is empty");
    refuse("name: a\ninput: {shape: [4]}\nlayers: {a: 1}\n", "3:9", "must be a list");
    refuse("name: a\ninput: {shape: [4]}\nlayers: [a]\n", "3:10", "must be a mapping");
    refuse(HEAD CONV TAIL "init: xavier\n", "8:7", "unknown init 'xavier' (pytorch, he)");
    refuse(HEAD CONV TAIL "loss: {kind: hinge}\n", "8:14", "cross-entropy, mse");
    refuse(HEAD CONV TAIL "loss: {smoothing: 0.1}\n", "8:7", "lacks the key 'kind'");
    refuse(HEAD CONV TAIL "loss: {kind: mse, smoothing: 0.1}\n", "8:30", "leave it out");
    refuse(HEAD CONV TAIL "loss: {kind: cross-entropy, smoothing: 2}\n", "8:40", "from 0 to 1");
    refuse(HEAD CONV TAIL "loss: mse\n", "8:7", "must be a mapping");
    refuse(HEAD CONV TAIL "train: {lr: {a: 1}}\n", "8:13", "one value or a list");
    refuse(HEAD CONV TAIL "train: {lr: [[1]]}\n", "8:14", "must be one value");
    refuse(HEAD CONV TAIL "train: 3\n", "8:8", "must be a mapping");
}

static void test_input_errors(void **state)
{
    (void)state;
    refuse("name: a\ninput: {shape: [1, 2]}\n", "2:16", "not 2 numbers");
    refuse("name: a\ninput: {shape: 4}\n", "2:16", "must be a list");
    refuse("name: a\ninput: {shape: [0]}\n", "2:17", "whole number from 1");
    refuse("name: a\ninput: {shape: [1.5]}\n", "2:17", "whole number");
    refuse("name: a\ninput: {shape: [0x10]}\n", "2:17", "not '0x10'");
    refuse("name: a\ninput: {shape: [nan]}\n", "2:17", "not 'nan'");
    refuse("name: a\ninput: {shape: [1e400]}\n", "2:17", "whole number");
    refuse("name: a\ninput: {shape: [1000000, 1000000, 9]}\n", "2:16", "elements");
    refuse("name: a\ninput: {mean: [0]}\n", "2:8", "lacks the key 'shape'");
    refuse("name: a\ninput: {shape: [3, 2, 2], mean: [0, 1]}\n", "2:33", "has 2 numbers");
    refuse("name: a\ninput: {shape: [3, 2, 2], std: [0]}\n", "2:33", "from 1e-06");
    refuse("name: a\ninput: {shape: [3, 2, 2], stdd: [1]}\n", "2:27", "did you mean 'std'?");
}

static void test_layer_errors(void **state)
{
    (void)state;
    refuse(HEAD "  - {name: c, kind: conv3d}\n" TAIL, "5:21", "did you mean 'conv2d'?");
    refuse(HEAD "  - {name: c}\n" TAIL, "5:5", "either 'kind");
    refuse(HEAD "  - {kind: relu}\n" TAIL, "5:5", "lacks a name");
    refuse(HEAD "  - {name: a b, kind: relu}\n" TAIL, "5:12", "no name of a layer");
    refuse(HEAD "  - {name: -a, kind: relu}\n" TAIL, "5:12", "no name of a layer");
    refuse(HEAD "  - {name: input, kind: relu}\n" TAIL, "5:12", "the model's input");
    refuse(HEAD "  - {name: c, kind: conv2d, features: 4}\n" TAIL, "5:5", "lacks 'kernel'");
    refuse(HEAD "  - {name: c, kind: conv2d, features: 4, kernal: 3}\n" TAIL, "5:42",
           "unknown key 'kernal' in layer 'c' of kind conv2d; did you mean 'kernel'?");
    refuse(HEAD "  - {name: r, kind: relu, kernel: 3}\n" TAIL, "5:27", "unknown key 'kernel'");
    refuse(HEAD "  - {name: c, kind: conv2d, features: four, kernel: 3}\n" TAIL, "5:39",
           "not 'four'");
    refuse(HEAD "  - {name: c, kind: conv2d, features: 4, kernel: [3, 3, 3]}\n" TAIL, "5:50",
           "[rows, columns]");
    refuse(HEAD "  - {name: c, kind: conv2d, features: [4, 4], kernel: 3}\n" TAIL, "5:39",
           "must be one value");
    refuse(HEAD "  - {name: c, kind: conv2d, features: 4, kernel: 3, bias: 2}\n" TAIL, "5:59",
           "on or off");
    refuse(HEAD "  - {name: d, kind: dropout, p: 1}\n" TAIL, "5:33", "from 0 to 0.999");
    refuse(HEAD "  - {name: d, kind: relu, when: 3}\n" TAIL, "5:33", "on or off");
    refuse(HEAD CONV CONV TAIL, "6:12", "taken by line 5");
    refuse(HEAD CONV "  - {name: s, kind: add, inputs: [conv, con]}\n" TAIL, "6:41",
           "did you mean 'conv'?");
    refuse(HEAD CONV "  - {name: s, kind: add, inputs: [conv, fc]}\n" TAIL, "6:41",
           "no layer before this one is called 'fc'");
    refuse(HEAD CONV "  - {name: s, kind: add, inputs: [conv, \"@\"]}\n" TAIL, "6:41",
           "this is no block");
    refuse(HEAD CONV "  - {name: s, kind: add, inputs: [conv, @]}\n" TAIL, "6:41",
           "write \"@\" in quotes");
    refuse(HEAD CONV "  - {name: s, kind: add, inputs: conv}\n" TAIL, "6:34", "must be a list");
    refuse(HEAD CONV "  - {name: s, kind: add, inputs: []}\n" TAIL, "6:34", "1 to 8 layers");
    refuse(HEAD CONV "  - {name: s, kind: add}\n" TAIL, "6:5", "layer 's': add takes 2 to 8");
    refuse(HEAD CONV "  - {name: 's{i}', kind: add, inputs: [conv, conv], repeat: 2}\n" TAIL, "6:5",
           "takes one input, not 2");
    /* {i} stands for nothing in an input: it is not the first repetition. */
    refuse(HEAD "  - {name: 'c{i}', kind: relu, repeat: 2}\n"
                "  - {name: s, kind: relu, inputs: ['c{i}']}\n" TAIL,
           "6:36", "no layer before this one is called 'c{i}'");
}

static void test_model_errors(void **state)
{
    (void)state;
    refuse(HEAD CONV "  - {name: side, kind: relu}\n"
                     "  - {name: pool, kind: global-avg-pool, inputs: [conv]}\n",
           "6:5", "layer 'side' feeds nothing");
    refuse(HEAD CONV, "5:5", "the last layer 'conv' gives (4, 8, 8), but the loss cross-entropy");
    refuse(HEAD CONV "loss: {kind: mse}\n", "5:5", "a vector, (F)");
    refuse(HEAD CONV "  - {name: fc, kind: linear, features: 3}\n", "6:5",
           "layer 'fc': linear needs features");
    refuse("name: t\ninput: {shape: [4]}\nlayers:\n  - {name: fc, kind: linear, features: 1}\n",
           "4:5", "at least 2 classes");
    pt_partition_free(parse("name: t\ninput: {shape: [4]}\nloss: {kind: mse}\nlayers:\n"
                            "  - {name: fc, kind: linear, features: 1}\n"));
}

static void test_cut_errors(void **state)
{
    (void)state;
#define CUT(text) HEAD CONV TAIL "cuts:\n  " text "\n"
    refuse(CUT("2: [pool]"), "9:7", "names 'pool', which is no layer");
    refuse(CUT("2: [convv]"), "9:7", "did you mean 'conv'?");
    refuse(CUT("2: [conv]"), "9:7", "the cut drops stage 1");
    refuse(CUT("2: []"), "9:6",
           "needs 1 entries (where stages 2 to 2 begin), but here are 0: it "
           "drops a stage");
    refuse(CUT("2: [flat, fc]"), "9:6", "doubles a stage");
    refuse(CUT("3: [fc, fc]"), "9:11", "the cut doubles layer 'fc'");
    refuse(CUT("3: [fc, flat]"), "9:11", "the cut reorders: layer 'flat'");
    refuse(CUT("4: [flat, fc, fc]"), "9:6", "4 stages are more than the 3 layers");
    refuse(CUT("0: []"), "9:3", "from 1 to");
    refuse(CUT("two: [fc]"), "9:3", "not 'two'");
    refuse(CUT("2: fc"), "9:6", "must be a list");
    refuse(CUT("2: [[fc]]"), "9:7", "must be one value");
    refuse(CUT("{2: [fc], 2.0: [fc]}"), "9:13", "a second cut into 2 stages");
    refuse(HEAD CONV "  - {name: r, kind: relu, when: off}\n" TAIL "cuts: {2: [r]}\n", "9:12",
           "dropped");
    pt_partition_free(parse(CUT("1: []")));
#undef CUT
}

static void test_text_errors(void **state)
{
    (void)state;
    refuse("name: a\ninput: {shape: [4\n", "3:1", "flow sequence");
    refuse("name: &x a\n", "1:10", "anchors");
    refuse("name: a\ninput: *x\n", "2:9", "anchors");
    refuse("name: !!str a\n", "1:13", "tags");
    refuse(HEAD CONV TAIL "---\nname: b\n", "7:1", "second document");
    refuse("? [a, b]\n: c\n", "1:3", "a key must be a word");
    refuse("name: a\nb\xff: c\n", "2:2", "byte 0xff is not text");
    refuse("name: \xc0\x80\n", "1:7", "byte 0xc0 is not text");
    refuse("name: \xed\xa0\x80\n", "1:7", "byte 0xed is not text");
    refuse("name: \x01\n", "1:7", "byte 0x01 is not text");
    refuse("name: \"a\\0b\"\n", "1:7", "\\0");
    refuse("a: {a: {a: {a: {a: {a: {a: {a: {a: {a: {a: {a: {a: {a: {a: {a: {a: 1}}}}}}}}}}}}}}}}\n",
           "1:64", "nest deeper than 16");
    /* A zero byte ends no text: the length counts. */
    pt_error err = {0};
    pt_partition *p = NULL;
    assert_fails(pt_partition_parse("t.yaml", "name: a\0b\n", 10, &p, &err), PT_EINPUT, "0x00",
                 &err);
}

static void test_large_texts_are_refused(void **state)
{
    (void)state;
    pt_error err = {0};
    pt_partition *p = NULL;
    size_t bytes = (2u << 20) + 1;
    char *text = malloc(bytes);

    assert_non_null(text);
    memset(text, ' ', bytes);
    assert_fails(pt_partition_parse("t.yaml", text, bytes, &p, &err), PT_EINPUT, "at most", &err);
    /* A name as long as the file, in a message that is not. */
    memset(text, 'x', bytes);
    memcpy(text, "name: ", 6);
    assert_fails(pt_partition_parse("t.yaml", text, 100000, &p, &err), PT_EINPUT, "no name", &err);
    assert_true(strlen(err.text) < 300);
    free(text);
}

/* What libfyaml would take an hour for. */
static void test_slow_texts_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *begin, *where;
        char rest;
        const char *words;
    } cases[] = {
        {"%", "1:1", 'a', "directives (%) are not used"},
        {"a: b\n%", "2:1", '%', "directives"},
        {"a: b\r%", "1:1", '%', "directives"},
        {"\xef\xbb\xbf%", "1:1", 'a', "directives"},
        {"- ", "1:1002", ' ', "more than 1000 blanks"},
        {"? ", "1:1002", '\t', "more than 1000 blanks"},
        {"é:", "1:1003", ' ', "more than 1000 blanks"},
        {"a: >\n ", "1000:1", '\n', "more than 1000 blanks"},
        {"a: >\n ", "2:1", '\r', "more than 1000 blanks"},
    };
    size_t bytes = 2u << 20;
    char *text = calloc(bytes + 1, 1);
    assert_non_null(text);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t begin = strlen(cases[i].begin);
        memset(text, cases[i].rest, bytes);
        memcpy(text, cases[i].begin, begin);
        refuse(text, cases[i].where, cases[i].words);
    }
    /* A thousand are not too many, and a % elsewhere is a letter. */
    memset(text, ' ', 1000);
    strcpy(text + 1000, "a%: b\n");
    refuse(text, "1:1001", "unknown key 'a%'");
    free(text);
}

/* before, then "w0" + each, "w1" + each … n times, then after; free() the text. */
static char *words(int n, const char *before, const char *each, const char *after)
{
    char *text = NULL;
    size_t bytes;
    FILE *out = open_memstream(&text, &bytes);

    assert_non_null(out);
    fputs(before, out);
    for (int i = 0; i < n; i++)
        fprintf(out, "w%d%s", i, each);
    fputs(after, out);
    assert_int_equal(fclose(out), 0);
    return text;
}

static void test_counts_are_bounded(void **state)
{
    (void)state;
    enum { VALUES = 500001 };
    char name[202] = {0}, *values = calloc(2 * VALUES + 2, 1);
    char *parameters = words(33, "name: t\ninput: {shape: [4]}\nblocks:\n  a: {parameters: [", ", ",
                             "], layers: [1]}\nlayers: [{name: r, block: a}]\n");
    char *settings = words(65, HEAD CONV TAIL "train: {milestones: [", ", ", "]}\n");
    char *keys = words(1001, "{", ": 1, ", "}\n");

    memset(name, 'n', sizeof name - 1);
    char *named = pt_text_format(HEAD "  - {name: %s, kind: relu}\n" TAIL, name);
    assert_non_null(values);
    values[0] = '[';
    for (int i = 0; i < VALUES; i++)
        memcpy(values + 1 + 2 * i, "1,", 2);
    refuse(named, "5:12", "has more than 200 letters");
    refuse(parameters, "4:19", "at most 32 parameters, not 33");
    refuse(settings, "8:21", "a list of at most 64");
    refuse(keys, "1:8892", "more than 1000 keys in one mapping");
    refuse(values, "1:1000000", "more than 500000 values in one file");
    free(named);
    free(parameters);
    free(settings);
    free(keys);
    free(values);
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
        cmocka_unit_test(test_block_errors),
        cmocka_unit_test(test_layers_are_bounded),
        cmocka_unit_test(test_top_level_errors),
        cmocka_unit_test(test_input_errors),
        cmocka_unit_test(test_layer_errors),
        cmocka_unit_test(test_model_errors),
        cmocka_unit_test(test_cut_errors),
        cmocka_unit_test(test_text_errors),
        cmocka_unit_test(test_large_texts_are_refused),
        cmocka_unit_test(test_slow_texts_are_refused),
        cmocka_unit_test(test_counts_are_bounded),
    };
    return cmocka_run_group_tests_name("partition", tests, NULL, NULL);
}
