/* --recompute: which layers it means, where it saves memory, and what it comes to. */
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>

#include "pipetrain/text.h"
#include "reporter.h"
#include "setup.h"

/* A layer, all layers of a block, or a pattern. */
static bool means(const char *word, const char *layer)
{
    size_t n = strlen(word);
    bool inside = strncmp(word, layer, n) == 0 && layer[n] == '.';
    return inside || fnmatch(word, layer, 0) == 0;
}

static pt_status unknown(const pt_run *run, const char *word, pt_error *err)
{
    const pt_graph *graph = &run->partition->graph;
    const size_t n = graph->n_nodes > 0 ? (size_t)graph->n_nodes : 0;
    const char **names = calloc(n + 1, sizeof *names);
    char some[128];
    if (!names)
        return pt_fail(err, PT_ENOMEM, "no memory for names");
    for (size_t i = 0; i < n; i++)
        names[i] = graph->nodes[i].name;
    const char *nearest = pt_text_nearest(word, names, (int)n);
    pt_text_join(names, (int)n, some, sizeof some);
    if (nearest)
        pt_fail(err, PT_EINPUT, "--recompute: %s has no layer '%s'; did you mean '%s'?",
                run->partition->name, word, nearest);
    else
        pt_fail(err, PT_EINPUT,
                "--recompute: %s has no layer '%s'; write none, all, or names and patterns of "
                "layers: %s",
                run->partition->name, word, some);
    free(names);
    return err->code;
}

static pt_status find(const pt_run *run, const char *word, bool *recompute, pt_error *err)
{
    const pt_graph *graph = &run->partition->graph;
    bool found = false;
    for (int i = 0; i < graph->n_nodes; i++) {
        bool meant = strcmp(word, "all") == 0 || means(word, graph->nodes[i].name);
        recompute[i] |= meant;
        found |= meant;
    }
    return found ? PT_OK : unknown(run, word, err);
}

static pt_status find_all(const pt_run *run, char *words, bool *recompute, pt_error *err)
{
    const pt_graph *graph = &run->partition->graph;
    char *rest = words;
    for (char *word; (word = strsep(&rest, ",")) != NULL;) {
        word += strspn(word, " ");
        word[strcspn(word, " ")] = 0;
        PT_TRY(find(run, word, recompute, err));
    }
    for (int i = 0; i < graph->n_nodes - 1; i++)
        if (recompute[i])
            return PT_OK;
    return pt_fail(err, PT_EINPUT,
                   "--recompute %s: the loss reads what the last layer makes, so it is kept in any "
                   "case; name others, or leave --recompute out",
                   run->settings->recompute);
}

pt_status pt_run_find_recomputed(pt_run *run, pt_error *err)
{
    const char *text = run->settings->recompute;
    if (strcmp(text, "none") == 0 || run->settings->infer)
        return PT_OK;
    char *words = strdup(text);
    run->recompute = calloc((size_t)run->partition->graph.n_nodes, sizeof *run->recompute);
    pt_status status = words && run->recompute ? find_all(run, words, run->recompute, err)
                                               : pt_fail(err, PT_ENOMEM, "no memory for names");
    free(words);
    return status;
}

/* What is computed again takes the memory of one micro-batch, or of those whose weight gradients
 * wait; what is kept, that of all in flight. --check-gradients has one, and wants to see it work.
 */
void pt_run_plan_recompute(const pt_run *run, pt_stage_plan *plan)
{
    int at_once = plan->held > 1 ? plan->held : 1;
    bool saves = plan->slots > at_once;
    plan->recompute = saves || run->settings->check_gradients ? run->recompute : NULL;
}

static const char *weights_text(const pt_settings *s, const stage_card *cards, int stages)
{
    bool late = false;
    for (int i = 0; i < stages; i++)
        late |= cards[i].staleness_max > 0;
    if (!late)
        return "";
    return s->stash || s->two_versions ? " with the weights of the forward"
                                       : " with the newest weights";
}

void pt_reporter_recompute(const pt_run *run, const stage_card *cards, const char *label, FILE *out)
{
    const pt_settings *s = run->settings;
    bool idle = false;
    if (!run->recompute)
        return;
    fprintf(out, "%s%s%s, ops run again in a backward of each stage:", label, s->recompute,
            weights_text(s, cards, run->stages));
    for (int i = 0; i < run->stages; i++) {
        fprintf(out, " %d", cards[i].ops_again);
        idle |= cards[i].ops_again == 0;
    }
    fprintf(out, "%s\n", idle ? " (0: nothing to save there)" : "");
}
