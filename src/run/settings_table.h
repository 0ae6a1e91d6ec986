/* The option table, private to src/run. */
#ifndef PIPETRAIN_RUN_SETTINGS_TABLE_H
#define PIPETRAIN_RUN_SETTINGS_TABLE_H

#include "pipetrain/options.h"

extern const pt_option pt_settings_rows[];
extern const int pt_settings_n_rows;

#endif
