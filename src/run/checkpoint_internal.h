/* What the files that take checkpoints share. Private to them. */
#ifndef PIPETRAIN_RUN_CHECKPOINT_INTERNAL_H
#define PIPETRAIN_RUN_CHECKPOINT_INTERNAL_H

#include "checkpoint.h"
#include "checkpoint_image.h"
#include "pipetrain/store.h"
#include "pipetrain/upload.h"
#include "pipetrain/writer.h"

/* What rank 0 says of a step as it begins. */
typedef enum word { GO_ON, CHECKPOINT, STOP } word;

/* Where the present checkpoint is. Ranks but 0 are done when they have reported. */
typedef enum phase { IDLE, WRITING, REPORTING, GATHERING, COMMITTING, NAMING } phase;

enum { REPORT_TEXT = 512, LAST = -1 };
enum { PT_CHECKPOINT_PAUSE_NS = 50000 }; /* between looks while something is waited for */

/* One file that a rank has written; or, with the node LAST, that it has done what it can. */
typedef struct report {
    int64_t node;
    uint64_t bytes;
    uint32_t crc;
    int32_t status;
    pt_pass_result sums; /* LAST; those of the last rank count */
    char text[REPORT_TEXT];
} report;

struct pt_checkpoint {
    pt_run *run;
    const char *dir;
    pt_image *image;
    pt_writer *writer;
    pt_mail *mail; /* NULL: one rank */
    int64_t every_steps, every_ns;
    int64_t taken_ns; /* when the last one was, or the run began */
    word word;        /* of the step that began last */
    phase phase;
    pt_resumed stand; /* of the run when it was taken; step 0: none was yet */
    uint32_t *crcs;   /* of this rank's files */
    int posted;       /* reports that have left */
    report last;      /* this rank's */
    /* rank 0 */
    json_t *manifest;
    char **names;        /* of each node's file, or NULL */
    report *found;       /* of each node: bytes 0 where none came */
    pt_store_file *list; /* the same, without holes … */
    int n_list;          /* … and how many */
    int heard;           /* ranks that have done what they can … */
    bool *heard_of;      /* … and which */
    report failed;       /* of the first that failed; status PT_OK: none */
    bool committed;
    pt_upload *upload; /* NULL: nobody asked for it */
    pt_score best;     /* that `best` names; step 0: none … */
    pt_score better;   /* … and one that it shall name; likewise */
};

static inline bool pt_checkpoint_is_root(const pt_checkpoint *c)
{
    return c->run->rank == 0;
}

/* ---- checkpoint_commit.c: from the copy to a committed step -----------------------------------
 */
/* Has the thread write the copy; pt_checkpoint_between goes on from there. */
void pt_checkpoint_begin_writing(pt_checkpoint *checkpoint);
/* Waits until no checkpoint is under way. The steps' records, too, are looked at meanwhile. */
pt_status pt_checkpoint_settle(pt_checkpoint *checkpoint, pt_error *err);
/* On the thread: old steps go. */
pt_status pt_checkpoint_prune(pt_checkpoint *checkpoint, pt_error *err);

/* ---- checkpoint_best.c: a step that `best` shall name -----------------------------------------
 */
/* When its checkpoint is through: a later one waits for that. */
void pt_checkpoint_begin_naming(pt_checkpoint *checkpoint);
/* `status`, `why`: of the thread's job. */
void pt_checkpoint_end_naming(pt_checkpoint *checkpoint, pt_status status, const pt_error *why);

#endif
