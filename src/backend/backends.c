/* The registry: which backends this build has, best first; and what is the same for all of them. */
#include "pipetrain/backend.h"

#include <string.h>

#include "rows.h"

#ifdef HAVE_CUDA
#define CUDA_IN_THIS_BUILD pt_backend_load_cuda
#define CUDA_EXPECTED      pt_backend_expects_cuda
#else
#define CUDA_IN_THIS_BUILD NULL
#define CUDA_EXPECTED      NULL
#endif
#ifdef HAVE_ONEDNN
#define ONEDNN_IN_THIS_BUILD &pt_backend_onednn
#else
#define ONEDNN_IN_THIS_BUILD NULL
#endif

/* A row, or a way to it; neither: this build was made without, and what it lacked. */
static const struct source {
    const char *name;
    const pt_backend_row *row;
    pt_status (*load)(const pt_backend_row **ret_row, pt_error *err);
    bool (*expected)(void); /* this machine is made for it; NULL: of any */
    const char *lacked;
} sources[] = {
    {"cuda", NULL, CUDA_IN_THIS_BUILD, CUDA_EXPECTED,
     "-Dcuda=enabled, with CUDA's nvcc and cuDNN 9"},
    {"onednn", ONEDNN_IN_THIS_BUILD, NULL, NULL, "-Donednn=enabled, with the library oneDNN"},
    {"ref", &pt_backend_ref, NULL, NULL, NULL},
    {"clock", &pt_backend_clock, NULL, NULL, NULL}, /* behind one that always opens: never chosen */
};

enum { SOURCES = sizeof sources / sizeof sources[0] };

static const char *const choices[] = {"auto", "cuda", "onednn", "ref", "clock", NULL};

static const char *const names[] = {
#ifdef HAVE_CUDA
    "cuda",
#endif
#ifdef HAVE_ONEDNN
    "onednn",
#endif
    "ref",
    NULL,
};

const char *const *pt_backend_choices(void)
{
    return choices;
}

const char *const *pt_backend_names(void)
{
    return names;
}

static pt_status take(const struct source *source, const pt_backend_row **ret_row, pt_error *err)
{
    if (source->load)
        return source->load(ret_row, err);
    if (!source->row)
        return pt_fail(err, PT_EINPUT,
                       "this build has no backend %s: build it again with %s, or use --backend "
                       "auto",
                       source->name, source->lacked);
    *ret_row = source->row;
    return PT_OK;
}

/* On the device that was chosen: trying another one would leave a context on it, and it may be
 * another rank's. */
static bool opens(const struct source *source, const pt_backend_row **ret_row, pt_error *ret_why)
{
    const pt_backend_config config = {.threads = 1, .local_rank = -1};
    pt_backend *backend = NULL;
    if (take(source, ret_row, ret_why) != PT_OK ||
        (*ret_row)->open(&config, &backend, ret_why) != PT_OK)
        return false;
    (*ret_row)->close(backend);
    return true;
}

pt_status pt_backend_find(const char *name, const pt_backend_row **ret_row, pt_error *ret_passed,
                          pt_error *err)
{
    bool any = strcmp(name, "auto") == 0;
    *ret_passed = (pt_error){PT_OK, ""};
    for (int i = 0; i < SOURCES; i++) {
        pt_error why = {PT_OK, ""};
        if (any && opens(&sources[i], ret_row, &why))
            return PT_OK;
        if (any && sources[i].expected && sources[i].expected())
            *ret_passed = why;
        if (strcmp(name, sources[i].name) == 0)
            return take(&sources[i], ret_row, err);
    }
    return any ? pt_fail(err, PT_EINPUT, "no backend of this build can be opened here")
               : pt_fail(err, PT_EINPUT, "there is no backend '%s'", name);
}

void pt_backend_choose_device(const char *name, int local_rank)
{
    bool any = strcmp(name, "auto") == 0;
    for (int i = 0; i < SOURCES; i++) {
        const pt_backend_row *row = NULL;
        pt_error err = {PT_OK, ""};
        if ((any || strcmp(name, sources[i].name) == 0) && take(&sources[i], &row, &err) == PT_OK &&
            row->choose_device)
            row->choose_device(local_rank);
    }
}

pt_status pt_loss_check_labels(const pt_loss *loss, const int32_t *label, int samples,
                               pt_error *err)
{
    if (loss->kind != PT_LOSS_CROSS_ENTROPY)
        return PT_OK;
    int64_t classes = pt_shape_elements(&loss->shape);
    for (int n = 0; n < samples; n++)
        if (label[n] < 0 || label[n] >= classes)
            return pt_fail(err, PT_EINPUT,
                           "sample %d of the micro-batch has label %d, but the model gives %lld "
                           "classes (0 … %lld); widen the last layer or check the labels",
                           n, (int)label[n], (long long)classes, (long long)classes - 1);
    return PT_OK;
}
