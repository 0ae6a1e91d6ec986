/* Partition files whose model is wrong: every refusal with its place. */
#include "partition_texts.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_block_errors), cmocka_unit_test(test_top_level_errors),
        cmocka_unit_test(test_input_errors), cmocka_unit_test(test_layer_errors),
        cmocka_unit_test(test_model_errors), cmocka_unit_test(test_cut_errors),
    };
    return cmocka_run_group_tests_name("partition_refused", tests, NULL, NULL);
}
