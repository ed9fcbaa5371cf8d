# shellcheck shell=bash
# Shared by the scripts beside it (sourced, bash). Leaves the shell in the root of the checkout.

root=$(cd -P -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
cd "$root" || exit 1

# One line that tells what happens now.
say() {
    printf 'megaphone: %s\n' "$*"
}

# The reason why nothing goes on, and out.
fail() {
    printf 'megaphone: %s\n' "$*" >&2
    exit 1
}

# The directory that holds ejabberd-VERSION/ebin, for ERL_LIBS. EJABBERD_LIBS names one of one's own.
ejabberd_libs() {
    local app
    for app in ${EJABBERD_LIBS:+"$EJABBERD_LIBS"/ejabberd*/ebin/ejabberd.app} \
        /usr/lib/*/ejabberd-*/ebin/ejabberd.app /usr/lib/erlang/lib/ejabberd-*/ebin/ejabberd.app \
        /usr/local/lib/erlang/lib/ejabberd-*/ebin/ejabberd.app; do
        if [ -f "$app" ]; then
            (cd -P -- "$(dirname -- "$app")/../.." && pwd -P)
            return
        fi
    done
    return 1
}

# Where cargo puts what it builds; CARGO_TARGET_DIR and cargo's own configuration move it. Without cargo (root's PATH
# under sudo) the usual place.
cargo_target() {
    if command -v cargo >/dev/null; then
        cargo metadata --format-version 1 --no-deps --locked |
            sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p'
    else
        printf '%s\n' "${CARGO_TARGET_DIR:-$root/target}"
    fi
}

# Where rebar3 puts what it builds.
rebar_base() {
    printf '%s\n' "${REBAR_BASE_DIR:-$root/_build}"
}

# The project's version, from the one place that holds it.
version() {
    sed -n '/^\[workspace\.package\]/,/^\[/s/^version *= *"\(.*\)"/\1/p' Cargo.toml
}
