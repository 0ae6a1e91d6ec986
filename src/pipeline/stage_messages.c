/* What crosses a cut: activations forwards, gradients backwards, packed into one message. */
#include "pipetrain/arena.h"
#include "stage_internal.h"

/* The values of a cut lie one behind the other, each on a cache line of its own. */
static const int *crossing(const pt_stage_spec *spec, bool behind, int *ret_n)
{
    *ret_n = behind ? spec->n_out : spec->n_in;
    return behind ? spec->out : spec->in;
}

static size_t cut_bytes(const pt_program *p, const pt_stage_spec *spec, bool behind, bool gradients)
{
    int n = 0;
    const int *values = crossing(spec, behind, &n);
    size_t bytes = 0;
    for (int i = 0; i < n; i++)
        if (!gradients || values[i] != 0)
            bytes += pt_align_up(pt_program_layout(p, values[i])->bytes);
    return bytes;
}

size_t pt_stage_message_bytes(const pt_stage *s, bool behind)
{
    size_t most = 0;
    for (int i = 0; i < s->n_programs; i++) {
        size_t bytes = cut_bytes(s->programs[i], s->plan.spec, behind, /*gradients=*/false);
        most = bytes > most ? bytes : most;
    }
    return most;
}

size_t pt_stage_activation_bytes(const pt_micro_batch *mb, bool behind)
{
    return cut_bytes(mb->program, pt_program_spec(mb->program), behind, /*gradients=*/false);
}

size_t pt_stage_gradient_bytes(const pt_micro_batch *mb, bool behind)
{
    return cut_bytes(mb->program, pt_program_spec(mb->program), behind, /*gradients=*/true);
}

/* What crosses a cut, one value after the other. */
typedef struct crossing_values {
    bool behind, gradients;
    void *(*address)(const pt_program *p, const pt_program_run *run, int value);
    pt_status (*move)(pt_backend *b, void *dev, char *message, size_t bytes, pt_error *err);
} crossing_values;

static pt_status from_message(pt_backend *b, void *dev, char *message, size_t bytes, pt_error *err)
{
    return b->row->upload(b, dev, message, bytes, err);
}

static pt_status to_message(pt_backend *b, void *dev, char *message, size_t bytes, pt_error *err)
{
    return b->row->download(b, message, dev, bytes, err);
}

static pt_status move(pt_stage *s, const pt_micro_batch *mb, const crossing_values *what,
                      char *message, pt_error *err)
{
    pt_program_run run = pt_stage_run(s, mb);
    int n = 0;
    const int *values = crossing(s->plan.spec, what->behind, &n);
    for (int i = 0; i < n; i++) {
        if (what->gradients && values[i] == 0)
            continue;
        size_t bytes = pt_program_layout(mb->program, values[i])->bytes;
        PT_TRY(what->move(s->plan.backend, what->address(mb->program, &run, values[i]), message,
                          bytes, err));
        message += pt_align_up(bytes);
    }
    return PT_OK;
}

static const crossing_values activations_in = {false, false, pt_program_value, from_message};
static const crossing_values activations_out = {true, false, pt_program_value, to_message};
static const crossing_values gradients_in = {true, true, pt_program_gradient_in, from_message};
static const crossing_values gradients_out = {false, true, pt_program_gradient_out, to_message};

pt_status pt_stage_unpack_activations(pt_stage *s, pt_micro_batch *mb, const void *message,
                                      pt_error *err)
{
    return move(s, mb, &activations_in, (char *)message, err); /* which is only read */
}

pt_status pt_stage_pack_activations(pt_stage *s, const pt_micro_batch *mb, void *message,
                                    pt_error *err)
{
    return move(s, mb, &activations_out, message, err);
}

pt_status pt_stage_unpack_gradients(pt_stage *s, pt_micro_batch *mb, const void *message,
                                    pt_error *err)
{
    return move(s, mb, &gradients_in, (char *)message, err); /* which is only read */
}

pt_status pt_stage_pack_gradients(pt_stage *s, const pt_micro_batch *mb, void *message,
                                  pt_error *err)
{
    return move(s, mb, &gradients_out, message, err);
}
