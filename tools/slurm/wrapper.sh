# shellcheck shell=bash
# What tools/slurm/salloc and tools/slurm/sbatch share: the words before `--` are Slurm's, those
# behind it mpirun's and the program's. Sourced after a usage() was defined.

slurm_options=()
run=()
warn_s=120
dry_run=no

fail() {
    printf 'tools/slurm/%s: %s; try --help\n' "${0##*/}" "$*" >&2
    exit 2
}

read_words() {
    while [ $# -gt 0 ]; do
        case $1 in
        -h | --help)
            usage
            exit 0
            ;;
        --dry-run) dry_run=yes ;;
        --warn)
            [ $# -ge 2 ] || fail "--warn wants SECONDS"
            warn_s=$2
            shift
            ;;
        --warn=*) warn_s=${1#--warn=} ;;
        --signal | --signal=*) fail "--signal is set here; say --warn SECONDS for another time" ;;
        --)
            shift
            run=("$@")
            break
            ;;
        *) slurm_options+=("$1") ;;
        esac
        shift
    done
    [[ $warn_s =~ ^[1-9][0-9]{0,4}$ ]] || fail "--warn wants 1 to 99999 seconds, not '$warn_s'"
    [ "${#run[@]}" -gt 0 ] ||
        fail "what is to be run stands behind '--': … -- ./pipetrain --checkpoint D --resume D"
}

# value_of OPTION   What the run's words say behind it, as `--o V` or `--o=V`; the last one counts.
value_of() {
    local i value=
    for ((i = 0; i < ${#run[@]}; i++)); do
        case ${run[i]} in
        "$1") value=${run[i + 1]:-} ;;
        "$1"=*) value=${run[i]#*=} ;;
        esac
    done
    printf '%s\n' "$value"
}

# One command line must serve the first start and every other.
check_goes_on() {
    local kept resumed
    kept=$(value_of --checkpoint)
    resumed=$(value_of --resume)
    [ -n "$kept" ] || fail "a job that ends early would begin anew:" \
        "add --checkpoint ${resumed:-D} --resume ${resumed:-D}"
    [ -n "$resumed" ] || fail "the next start would begin anew: add --resume $kept"
    [ "$kept" = "$resumed" ] ||
        fail "every start would go on from $resumed again, and not from $kept:" \
            "name one directory in both --checkpoint and --resume"
}

# Runs, or with --dry-run prints, Slurm's own program of this name: `slurm WORD…`
slurm() {
    local program
    if [ "$dry_run" = yes ]; then
        printf '%s\n' "${*@Q}"
        exit 0
    fi
    while IFS= read -r program; do
        [ "$program" -ef "$0" ] || exec "$program" "${@:2}"
    done < <(type -aP "$1")
    fail "no $1 here (Debian package slurm-client)"
}
