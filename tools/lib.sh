# shellcheck shell=bash
# Shell functions that tools/run, tools/test and .ci/run share: find the root, bring the Debian
# packages, make a build folder. Sourced, never run; needs bash with `set -euo pipefail`.

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)

# What a release needs to be built and to run the main job …
# shellcheck disable=SC2034  # read by those who source this file
build_packages=(gcc libc6-dev pkg-config meson ninja-build openmpi-bin libopenmpi-dev libdnnl-dev
    zlib1g-dev libfyaml-dev libjansson-dev dataset-fashion-mnist)
# … and what the tests and the checks of the code need beside it.
# shellcheck disable=SC2034
test_packages=(git g++ libcmocka-dev python3 python3-numpy procps gdb valgrind binutils clang clang-format
    libclang-rt-14-dev iproute2 openssh-client)
# What tests run daemons of, unpacked and not installed.
# shellcheck disable=SC2034
slurm_packages=(slurmctld slurmd slurm-client slurm-wlm-basic-plugins munge)
# shellcheck disable=SC2034
sshd_packages=(openssh-server libwrap0)
# build-test compiles the kernels for every GPU; for one it takes a fourth of the time, which is enough
# for the other builds.
# shellcheck disable=SC2034
one_gpu=-Dgpu_arch=90

say() {
    printf '%s\n' "$*" >&2
}

# die CODE MESSAGE…
die() {
    local code=$1
    shift
    say "$(basename -- "$0"): $*"
    exit "$code"
}

# Prints those of the given packages that are not installed, one a line.
missing_packages() {
    local package
    for package in "$@"; do
        if [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" != installed ]; then
            printf '%s\n' "$package"
        fi
    done
}

# Runs a command as root: directly, or through sudo, which may ask for a password unless CI is set.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif [ -n "${CI:-}" ]; then
        sudo -n "$@"
    else
        sudo "$@"
    fi
}

apt_get() {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -q "$@"
}

# ensure_packages INSTALL PACKAGE…   INSTALL is yes, or no: refuse (exit 2) instead of installing.
ensure_packages() {
    local install=$1
    shift
    if ! command -v dpkg-query >/dev/null; then
        say "this is not Debian: not checking for packages (Debian's names: $*)"
        return 0
    fi
    local -a missing
    mapfile -t missing < <(missing_packages "$@")
    if [ "${#missing[@]}" -eq 0 ]; then
        return 0
    fi
    local by_hand="apt-get install --no-install-recommends ${missing[*]}"
    if [ "$install" != yes ]; then
        die 2 "missing Debian packages: ${missing[*]}; leave out --no-install, or run: $by_hand"
    fi
    if [ "$(id -u)" -ne 0 ] && ! command -v sudo >/dev/null; then
        die 2 "missing Debian packages: ${missing[*]}; there is no sudo, so run as root: $by_hand"
    fi
    say "installing Debian packages: ${missing[*]}"
    # A fresh machine has no package lists, an old one has stale ones: fetch them only then.
    if ! apt-get -q -s --no-install-recommends install "${missing[@]}" >/dev/null 2>&1; then
        apt_get update >&2 || die 1 "apt-get update failed"
    fi
    if ! apt_get install -y --no-install-recommends "${missing[@]}" >&2; then
        apt_get update >&2 || die 1 "apt-get update failed"
        apt_get install -y --no-install-recommends "${missing[@]}" >&2 ||
            die 1 "the packages could not be installed; by hand: $by_hand"
    fi
    mapfile -t missing < <(missing_packages "$@")
    if [ "${#missing[@]}" -ne 0 ]; then
        die 1 "still missing after the installation: ${missing[*]}"
    fi
}

# unpack_packages FOLDER PACKAGE…   Downloads Debian packages into FOLDER and unpacks them: nothing is
# installed, no script of theirs runs, no service starts, and nobody has to be root.
unpack_packages() {
    local folder=$1 package
    shift
    mkdir -p -- "$folder/packages"
    (cd -- "$folder/packages" && apt-get -q -o APT::Sandbox::User=root download "$@" >&2) || return 1
    for package in "$folder"/packages/*.deb; do
        dpkg-deb --extract "$package" "$folder" || return 1
    done
    rm -rf -- "$folder/packages"
}

# The tests need numpy, which was installed for Debian's python3: another one that stands before it
# in PATH will not do unless it has numpy too.
prefer_python_with_numpy() {
    if ! python3 -c 'import numpy' 2>/dev/null &&
        /usr/bin/python3 -c 'import numpy' 2>/dev/null; then
        export PATH=/usr/bin:$PATH
    fi
}

# build FOLDER MESON_OPTION…   Makes or refreshes $root/FOLDER and builds everything in it.
build() {
    local folder=$root/$1
    shift
    # A build folder knows its sources by absolute path: one that was copied along with the
    # checkout would silently build the other tree.
    if [ -d "$folder" ] && [ "$(cat "$folder/source-root" 2>/dev/null)" != "$root" ]; then
        rm -rf -- "$folder"
    fi
    if [ -f "$folder/build.ninja" ]; then
        meson setup --reconfigure "$folder" "$root" "$@" >"$folder/setup.log" 2>&1 ||
            meson setup --wipe "$folder" "$root" "$@" >&2
    else
        meson setup "$folder" "$root" "$@" >&2
    fi
    printf '%s\n' "$root" >"$folder/source-root"
    ninja -C "$folder" >&2
}

# Processor cores that this process may use. Open MPI counts real cores, not hardware threads.
cores() {
    local allowed real
    allowed=$(nproc)
    real=$(lscpu -p=CORE,SOCKET 2>/dev/null | grep -v '^#' | sort -u | wc -l) || real=$allowed
    if [ "$real" -ge 1 ] && [ "$real" -lt "$allowed" ]; then
        allowed=$real
    fi
    printf '%s\n' "$allowed"
}

# Sets what Open MPI wants to know about the place it runs in.
prepare_mpi() {
    if [ "$(id -u)" -eq 0 ]; then
        export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
    fi
}

# Prints how `mpirun` should place RANKS ranks here, one word a line.
placement() {
    local ranks=$1
    if [ "$(cores)" -ge "$ranks" ]; then
        printf '%s\n' --bind-to core
    else
        printf '%s\n' --oversubscribe --bind-to none
    fi
}
