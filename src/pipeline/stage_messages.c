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
} crossing_values;

static const crossing_values activations_in = {false, false, pt_program_value};
static const crossing_values activations_out = {true, false, pt_program_value};
static const crossing_values gradients_in = {true, true, pt_program_gradient_in};
static const crossing_values gradients_out = {false, true, pt_program_gradient_out};

/* Calls `move` for each value that crosses. */
static pt_status for_each(pt_stage *s, const pt_micro_batch *mb, const crossing_values *what,
                          pt_status (*move)(pt_backend *b, void *dev, char *message, size_t bytes,
                                            pt_error *err),
                          char *message, pt_error *err)
{
    pt_program_run run = pt_stage_run(s, mb);
    int n = 0;
    const int *values = crossing(s->plan.spec, what->behind, &n);
    for (int i = 0; i < n; i++) {
        if (what->gradients && values[i] == 0)
            continue;
        size_t bytes = pt_program_layout(mb->program, values[i])->bytes;
        PT_TRY(move(s->plan.backend, what->address(mb->program, &run, values[i]), message, bytes,
                    err));
        message += pt_align_up(bytes);
    }
    return PT_OK;
}

static bool any_in_scratch(pt_stage *s, const pt_micro_batch *mb, const crossing_values *what)
{
    pt_program_run run = pt_stage_run(s, mb);
    int n = 0;
    const int *values = crossing(s->plan.spec, what->behind, &n);
    for (int i = 0; i < n; i++)
        if (pt_stage_in_scratch(s, what->address(mb->program, &run, values[i])))
            return true;
    return false;
}

static pt_status from_message(pt_backend *b, void *dev, char *message, size_t bytes, pt_error *err)
{
    return b->row->copy_in(b, dev, message, bytes, err);
}

static pt_status to_message(pt_backend *b, void *dev, char *message, size_t bytes, pt_error *err)
{
    return b->row->copy_out(b, message, dev, bytes, err);
}

static pt_status unpack(pt_stage *s, const pt_micro_batch *mb, const crossing_values *what,
                        const void *message, pt_error *err)
{
    PT_TRY(pt_stage_before_in(s, any_in_scratch(s, mb, what), err));
    PT_TRY(for_each(s, mb, what, from_message, (char *)message, err)); /* which is only read */
    return pt_stage_after_in(s, &s->slots[mb->slot], err);
}

static pt_status pack(pt_stage *s, const pt_micro_batch *mb, const crossing_values *what,
                      void *message, pt_error *err)
{
    PT_TRY(pt_stage_before_out(s, err));
    PT_TRY(for_each(s, mb, what, to_message, message, err));
    return pt_stage_after_out(s, &s->slots[mb->slot], any_in_scratch(s, mb, what), err);
}

pt_status pt_stage_unpack_activations(pt_stage *s, pt_micro_batch *mb, const void *message,
                                      pt_error *err)
{
    return unpack(s, mb, &activations_in, message, err);
}

pt_status pt_stage_pack_activations(pt_stage *s, const pt_micro_batch *mb, void *message,
                                    pt_error *err)
{
    return pack(s, mb, &activations_out, message, err);
}

pt_status pt_stage_unpack_gradients(pt_stage *s, pt_micro_batch *mb, const void *message,
                                    pt_error *err)
{
    PT_TRY(pt_stage_hold(s, mb, err));
    return unpack(s, mb, &gradients_in, message, err);
}

pt_status pt_stage_pack_gradients(pt_stage *s, const pt_micro_batch *mb, void *message,
                                  pt_error *err)
{
    return pack(s, mb, &gradients_out, message, err);
}
