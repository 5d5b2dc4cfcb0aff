# shellcheck shell=bash
# Undo what start-up files may have changed: aliases, traps, options, the word separators (IFS).
builtin shopt -u expand_aliases
builtin trap - DEBUG ERR RETURN EXIT
builtin set +aefuvxC
builtin unset -v IFS
