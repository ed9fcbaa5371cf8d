# shellcheck shell=bash
# Small Debian systems for the scripts beside it (sourced after lib.sh): made with debootstrap in cargo's build
# directory, kept for the next run, and entered with mounts and processes of their own. Takes root.
#
#   FRESH=1      makes the systems anew; otherwise those of the last run are used
#   STALE=1      makes a system also from a mirror whose lists have expired, as snapshots have; signatures still count
#   MIRROR=URL   a Debian mirror, where apt's own sources do not name one for all of Debian

# The directory of this script's systems, and that of its logs; work_in sets them.
work='' logs=''
# What a system sees of the one around it besides proc and dev: FROM:TO, or FROM:TO:ro.
binds=()
# The directory that takes all that is written in a system, which then stays as it is.
layer=''
child='' unfinished=''

# work_in NAME: below NAME in cargo's build directory, one run at a time. This script's end is that of all it started.
work_in() {
    [ "$(id -u)" -eq 0 ] ||
        fail "other systems are made and entered here, which takes root: sudo env \"PATH=\$PATH\" \"HOME=\$HOME\" make ${0##*/}"
    local target
    target=$(cargo_target) && [ -n "$target" ] || fail "cargo does not say where it builds"
    work=$target/$1 logs=$work/logs
    mkdir -p "$work/roots" "$logs" || exit 1
    exec {lock}>"$work/lock"
    flock -n "$lock" || fail "another run is at work in $work"
    trap stop EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
}

# describe LEG: what it is made of.
#   suite     Debian's release
#   newer     the suite that has a newer ejabberd
#   recipe    debootstrap's, where it does not know the release by name
#   blocking  whether its failures are this run's
describe() {
    suite='' newer='' recipe='' blocking=yes
    case $1 in
        debian12) suite=bookworm newer=bookworm-backports ;;
        debian13) suite=trixie newer=trixie-backports ;;
        # Testing: moves every day, and may be broken by others.
        forky) suite=forky newer=forky recipe=sid blocking=no ;;
        *) return 1 ;;
    esac
}

# ready_root LEG FILL SUITE: sets `dir' to the system, in which the function FILL was run with SUITE, the one that
# what it installs comes from. Makes it unless it is there, made the way that is written here now.
ready_root() {
    local leg=$1 fill=$2 from=$3 how log=$logs/$1/$2.log start=$SECONDS
    dir=$work/roots/$leg-$fill
    mkdir -p "${log%/*}"
    describe "$leg"
    how=$( (echo "$from" && declare -f describe make_root "$fill") | sha256sum)
    if [ -z "${FRESH:-}" ] && [ "$(cat "$dir.made" 2>/dev/null)" = "$how" ]; then
        say "$leg: uses its system of an earlier run (FRESH=1 makes it anew)"
        return
    fi
    say "$leg: makes a $suite system, with what it installs from $from (a minute or two)"
    rm -rf --one-file-system -- "$dir" "$dir.made"
    unfinished=$dir
    make_root "$dir" "$fill" "$from" >"$log" 2>&1 || {
        tail -n 20 "$log"
        rm -rf --one-file-system -- "$dir"
        unfinished=''
        say "$leg: its system could not be made: $log"
        return 1
    }
    unfinished=''
    printf '%s\n' "$how" >"$dir.made"
    say "$leg: its system is made, $((SECONDS - start)) s, $(du -sm "$dir" | cut -f1) MB"
}

# make_root DIR FILL SUITE: a small Debian, then what FILL puts into it.
make_root() {
    local dir=$1 fill=$2 from=$3 mirror bind layer='' binds=()
    mirror=${MIRROR:-$(mirror)}
    [ -n "$mirror" ] || {
        echo "apt's sources name no mirror of Debian: give one with MIRROR=URL"
        return 1
    }
    scripts/setup debootstrap &&
        alone -- debootstrap --variant=minbase --include=ca-certificates "$suite" "$dir" "$mirror" ${recipe:+"$recipe"} &&
        echo '127.0.0.1 localhost' >"$dir/etc/hosts" &&
        # Nothing starts by being installed.
        printf '#!/bin/sh\nexit 101\n' >"$dir/usr/sbin/policy-rc.d" &&
        chmod 755 "$dir/usr/sbin/policy-rc.d" &&
        { [ "$from" = "$suite" ] || printf 'deb %s %s main\n' "$mirror" "$from" >"$dir/etc/apt/sources.list.d/newer.list"; } &&
        { [ -z "${STALE:-}" ] || echo 'Acquire::Check-Valid-Until "false";' >"$dir/etc/apt/apt.conf.d/stale"; } &&
        in_root "$dir" bash -c "$(declare -f "$fill"); $fill $from"
}

# The mirror that apt uses for this Debian's own release: it has the others, too.
mirror() {
    # shellcheck disable=SC2016 # for apt-get to fill in
    apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
        sed -n "s/^\(http[^ ]*\) $(. /etc/os-release && printf '%s' "${VERSION_CODENAME:-stable}") main$/\1/p" | head -n 1
}

# ---- apart from this system ----------------------------------------------------------------------------------------

# alone [OPTION OF UNSHARE...] -- COMMAND...: with mounts and processes of its own. When it ends, however it does, or
# this script does, the kernel ends all its processes and takes all its mounts away: none is ever seen by what removes
# a directory. In the background, so that a signal is obeyed at once.
alone() {
    unshare --mount --propagation private --pid --fork --kill-child "$@" </dev/null &
    child=$!
    wait "$child"
    local status=$?
    child=''
    return "$status"
}

# in_root DIR COMMAND...: in a system. The shell stays: it is the one that collects processes whose parent has ended.
in_root() {
    alone -- bash -c "$(declare -p layer binds); $(declare -f mount_root enter)"'
        mount_root "$1" && enter "$@"
        exit "$?"' in_root "$@"
}

# mount_root DIR: what a system needs to be entered. In what `alone' runs.
mount_root() {
    local dir=$1 bind from to
    if [ -n "$layer" ]; then
        mkdir -p "$layer"/{upper,work} &&
            mount -t overlay overlay -o "lowerdir=$dir,upperdir=$layer/upper,workdir=$layer/work" "$dir" || return
    fi
    mount -t proc proc "$dir/proc" && mount --rbind /dev "$dir/dev" || return
    for bind in "${binds[@]}"; do
        from=${bind%%:*} to=$dir${bind#*:}
        mkdir -p "${to%:ro}" && mount --bind "$from" "${to%:ro}" || return
        case $to in *:ro) mount -o remount,bind,ro "${to%:ro}" || return ;; esac
    done
}

# enter DIR COMMAND...: in a system that is mounted.
enter() {
    env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 chroot "$@"
}

stop() {
    local status=$?
    # A second Ctrl-C must not leave half of it behind.
    trap '' INT TERM HUP
    if [ -n "$child" ]; then
        kill -KILL "$child" 2>/dev/null
        wait "$child" 2>/dev/null
    fi
    if [ -n "$unfinished" ]; then rm -rf --one-file-system -- "$unfinished"; fi
    exit "$status"
}
