/* See naive.h. */
#include "naive.h"

#include <stdlib.h>

#include "suite.h"

struct naive {
    pt_backend *b;
    const pt_graph *graph;
    const pt_flat *flat;
    int samples;
    pt_mode mode;
    pt_layout *input, *plain;
    pt_kernel **kernel; /* [node] */
    void **value;       /* [value] */
    void **sent;        /* [value]: as the forward left it, once layers run again; or NULL */
    void **saved;       /* [node] */
    void **extra;       /* gradients and sums of the backward that is running */
    int n_extra;
    const void **total; /* [value]: the gradient so far, or NULL */
};

static const pt_layout *layout(const naive *n, int value)
{
    return value ? n->kernel[value - 1]->out : n->input;
}

static void *memory(naive *n, size_t bytes)
{
    pt_error err = {PT_OK, ""};
    void *dev = NULL;
    assert_ok(n->b->row->dev_new(n->b, bytes, &dev, &err), &err);
    return dev;
}

static void *gradient_memory(naive *n, int value)
{
    n->extra = realloc(n->extra, ((size_t)n->n_extra + 1) * sizeof *n->extra);
    assert_non_null(n->extra);
    return n->extra[n->n_extra++] = memory(n, layout(n, value)->bytes);
}

static void forget_gradients(naive *n)
{
    for (int i = 0; i < n->n_extra; i++)
        n->b->row->dev_free(n->b, n->extra[i]);
    n->n_extra = 0;
    for (int v = 0; v <= n->graph->n_nodes; v++)
        n->total[v] = NULL;
}

naive *naive_new(pt_backend *b, const pt_graph *graph, const pt_flat *flat, int samples,
                 pt_mode mode)
{
    pt_error err = {PT_OK, ""};
    size_t n_values = (size_t)graph->n_nodes + 1;
    naive *n = calloc(1, sizeof *n);
    assert_non_null(n);
    *n = (naive){.b = b, .graph = graph, .flat = flat, .samples = samples, .mode = mode};
    n->kernel = calloc(n_values, sizeof(pt_kernel *));
    n->value = calloc(n_values, sizeof *n->value);
    n->sent = calloc(n_values, sizeof *n->sent);
    n->saved = calloc(n_values, sizeof *n->saved);
    n->total = calloc(n_values, sizeof *n->total);
    assert_true(n->kernel && n->value && n->sent && n->saved && n->total);
    assert_ok(b->row->plain_layout(b, &graph->input, samples, &n->input, &err), &err);
    assert_ok(b->row->plain_layout(b, &graph->loss.shape, samples, &n->plain, &err), &err);
    n->value[0] = memory(n, n->input->bytes);
    for (int i = 0; i < graph->n_nodes; i++) {
        const pt_node *node = &graph->nodes[i];
        const pt_layout *in[PT_MAX_INPUTS] = {NULL};
        for (int j = 0; j < node->op.n_inputs; j++)
            in[j] = layout(n, node->inputs[j]);
        assert_ok(b->row->plan(b, &node->op, samples, mode, in, &n->kernel[i], &err), &err);
        assert_ok(b->row->build(n->kernel[i], &err), &err);
        n->value[i + 1] = memory(n, n->kernel[i]->out->bytes);
        n->saved[i] = memory(n, n->kernel[i]->saved_bytes);
    }
    return n;
}

void naive_free(naive *n)
{
    forget_gradients(n);
    for (int i = n->graph->n_nodes - 1; i >= 0; i--) {
        n->b->row->release(n->kernel[i]);
        n->b->row->dev_free(n->b, n->saved[i]);
    }
    for (int v = 0; v <= n->graph->n_nodes; v++) {
        n->b->row->dev_free(n->b, n->value[v]);
        n->b->row->dev_free(n->b, n->sent[v]);
    }
    n->b->row->layout_free(n->b, n->input);
    n->b->row->layout_free(n->b, n->plain);
    free(n->kernel);
    free(n->value);
    free(n->sent);
    free(n->saved);
    free(n->extra);
    free(n->total);
    free(n);
}

const pt_kernel *naive_kernel(const naive *n, int node)
{
    return n->kernel[node];
}

size_t naive_value_bytes(const naive *n)
{
    size_t bytes = 0;
    for (int v = 0; v <= n->graph->n_nodes; v++)
        bytes += layout(n, v)->bytes;
    return bytes;
}

static int stage_of(const naive_run *run, int node)
{
    int s = 0;
    while (s + 1 < run->stages && run->begins[s + 1] <= node)
        s++;
    return s;
}

/* The value as node i sees it. */
static const void *seen(const naive *n, const naive_run *run, int value, int i)
{
    bool crosses = value > 0 && stage_of(run, value - 1) != stage_of(run, i);
    return crosses && n->sent[value] ? n->sent[value] : n->value[value];
}

static pt_kernel_args args_of(const naive *n, const naive_run *run, int i)
{
    const pt_node *node = &n->graph->nodes[i];
    pt_kernel_args args = {
        .dev_out = n->value[i + 1],
        .dev_saved = n->saved[i],
        .accumulate = run->accumulate,
        .seed = run->seed,
        .epoch = run->epoch,
        .dev_sample = run->sample,
    };
    for (int j = 0; j < node->op.n_inputs; j++)
        args.dev_in[j] = seen(n, run, node->inputs[j], i);
    for (int j = 0; j < n->flat->n_params; j++)
        if (n->flat->params[j].node == i) {
            const pt_flat_tensor *t = &n->flat->params[j];
            args.dev_param[t->index] = run->dev_params + t->offset;
            args.dev_d_param[t->index] = run->dev_gradient ? run->dev_gradient + t->offset : NULL;
        }
    for (int j = 0; j < n->flat->n_state; j++)
        if (n->flat->state[j].node == i)
            args.dev_state[n->flat->state[j].index] = run->dev_state + n->flat->state[j].offset;
    return args;
}

static void add_contribution(naive *n, int value, const void *contribution)
{
    pt_error err = {PT_OK, ""};
    if (!n->total[value]) {
        n->total[value] = contribution;
        return;
    }
    void *sum = gradient_memory(n, value);
    assert_ok(n->b->row->add(n->b, layout(n, value), n->total[value], contribution, sum, &err),
              &err);
    n->total[value] = sum;
}

static void backward(naive *n, const naive_run *run)
{
    pt_error err = {PT_OK, ""};
    for (int i = n->graph->n_nodes - 1; i >= 0; i--) {
        const pt_node *node = &n->graph->nodes[i];
        pt_kernel_args args = args_of(n, run, i);
        bool wanted = node->op.kind == PT_OP_BATCH_NORM;
        args.dev_d_out = n->total[i + 1];
        for (int j = 0; j < node->op.n_inputs; j++)
            if (node->inputs[j] != 0) {
                args.dev_d_in[j] = gradient_memory(n, node->inputs[j]);
                wanted = true;
            }
        if (wanted)
            assert_ok(n->b->row->backward_input(n->kernel[i], &args, &err), &err);
        if (n->kernel[i]->flags & PT_SPLITS_BACKWARD)
            assert_ok(n->b->row->backward_weight(n->kernel[i], &args, &err), &err);
        for (int j = node->op.n_inputs - 1; j >= 0; j--)
            if (args.dev_d_in[j])
                add_contribution(n, node->inputs[j], args.dev_d_in[j]);
    }
}

/* On running statistics of its own, for these are updated once. */
static void compute_again(naive *n, const naive_run *run)
{
    pt_error err = {PT_OK, ""};
    naive_run apart = *run;
    size_t bytes = n->flat->state_elements * sizeof(float);
    apart.dev_state = memory(n, bytes);
    assert_ok(n->b->row->copy(n->b, apart.dev_state, run->dev_state, bytes, &err), &err);
    for (int v = 0; v <= n->graph->n_nodes; v++) {
        n->sent[v] = memory(n, layout(n, v)->bytes);
        assert_ok(n->b->row->copy(n->b, n->sent[v], n->value[v], layout(n, v)->bytes, &err), &err);
    }
    for (int i = 0; i + 1 < n->graph->n_nodes; i++) {
        pt_kernel_args args = args_of(n, &apart, i);
        if (run->recompute[i])
            assert_ok(n->b->row->forward(n->kernel[i], &args, &err), &err);
    }
    n->b->row->dev_free(n->b, apart.dev_state);
}

static void read_predictions(naive *n, float *ret_predictions)
{
    pt_error err = {PT_OK, ""};
    int last = n->graph->n_nodes;
    void *dev = memory(n, n->plain->bytes);
    assert_ok(n->b->row->reorder(n->b, &n->graph->loss.shape, n->samples, layout(n, last),
                                 n->value[last], n->plain, dev, &err),
              &err);
    assert_ok(n->b->row->download(n->b, ret_predictions, dev, n->plain->bytes, &err), &err);
    n->b->row->dev_free(n->b, dev);
}

void naive_evaluate(naive *n, const naive_run *run, float *ret_predictions,
                    pt_loss_result *ret_loss)
{
    pt_error err = {PT_OK, ""};
    int last = n->graph->n_nodes;
    forget_gradients(n);
    assert_ok(n->b->row->upload(n->b, n->value[0], run->input, n->input->bytes, &err), &err);
    for (int i = 0; i < last; i++) {
        pt_kernel_args args = args_of(n, run, i);
        assert_ok(n->b->row->forward(n->kernel[i], &args, &err), &err);
    }
    read_predictions(n, ret_predictions);
    pt_loss_args loss = {
        .layout = layout(n, last),
        .samples = n->samples,
        .dev_y = n->value[last],
        .dev_label = run->label,
        .host_result = ret_loss,
        .scale = run->scale,
        .dev_d_y = n->mode == PT_TRAIN ? gradient_memory(n, last) : NULL,
    };
    assert_ok(n->b->row->loss(n->b, &n->graph->loss, &loss, &err), &err);
    n->total[last] = loss.dev_d_y;
    naive_run back = *run;
    if (run->dev_params_back)
        back.dev_params = run->dev_params_back;
    if (n->mode == PT_TRAIN && run->recompute)
        compute_again(n, &back);
    if (n->mode == PT_TRAIN)
        backward(n, &back);
    assert_ok(n->b->row->finish(n->b, &err), &err);
}
