# shellcheck shell=bash
# Undo what start-up files may have changed: traps, options, the POSIX mode, aliases, the word separators (IFS). In the
# POSIX mode, aliases are expanded, `wait` returns when another child ends, and old versions have no `<(...)`. Without the
# mode there is no POSIXLY_CORRECT.
builtin trap - DEBUG ERR RETURN EXIT
builtin set +aefuvxC
. posix_mode.sh
builtin set +o posix
builtin shopt -u expand_aliases
builtin unset -v IFS
