/* pipetrain-launch: reads the command line, runs, reports, ends. */
#include <stdio.h>

#include "launcher.h"
#include "pipetrain/log.h"

int main(int argc, char **argv)
{
    static pt_error err;
    static pt_launch_options options;
    int code = 0;
    pt_status status = pt_launch_options_read(&options, argc, argv, &err);
    if (status == PT_OK && options.help)
        pt_launch_options_help(stdout);
    else if (status == PT_OK && options.version)
        puts("pipetrain-launch " PT_VERSION);
    else if (status == PT_OK)
        status = pt_launcher_run(&options, &code, &err);
    pt_launch_options_clear(&options);
    if (status != PT_OK)
        pt_log(PT_LOG_ERROR, "%s", err.text);
    return status == PT_OK ? code : pt_status_exit_code(status);
}
