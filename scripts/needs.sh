# What the scripts need, and how it gets there. They source this file.

need() {
    printf '%s needs %s: %s\n' "$0" "$1" "$2" >&2
    exit 2
}

# Rust, and a C compiler for SQLite.
need_compiler() {
    command -v cargo >/dev/null || need 'cargo 1.94 or newer' 'install Rust with rustup (see rust-lang.org)'
    if ! command -v cc >/dev/null; then
        if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
            apt-get update -qq && apt-get install -y -qq gcc libc6-dev || need 'a C compiler' 'apt-get install gcc libc6-dev'
        else
            need 'a C compiler (SQLite is built from source)' 'install gcc or clang, such as: sudo apt-get install gcc libc6-dev'
        fi
    fi
}

# PostgreSQL's server, unless DATABASE_URL names one on which databases may be created. The tests start it themselves.
has_postgres() {
    case "${DATABASE_URL:-}" in postgres*) return 0 ;; esac
    local bin
    for bin in ${PATH//:/ } "$(pg_config --bindir 2>/dev/null)" /usr/lib/postgresql/*/bin; do
        if [ -x "$bin/initdb" ] && [ -x "$bin/pg_ctl" ] && [ -x "$bin/postgres" ] &&
            [ "$("$bin/postgres" --version | sed 's/[^0-9]*\([0-9]*\).*/\1/')" -ge 15 ]; then
            return 0
        fi
    done
    return 1
}
need_postgres() {
    if ! has_postgres; then
        if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
            apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq postgresql
        fi
        has_postgres || need 'PostgreSQL 15 or newer' 'install its server, such as: sudo apt-get install postgresql; or set DATABASE_URL'
    fi
}
