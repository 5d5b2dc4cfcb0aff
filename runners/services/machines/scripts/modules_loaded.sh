# shellcheck shell=bash disable=SC2154 # a list that can be joined with `&&`
# Environment Modules 3.2 and earlier print an error and return 0 when a module is missing. LOADEDMODULES has the names
# of what is loaded, with all implementations of `module`. A module may have another name there (an alias, a default),
# so one that is not listed is loaded once more, in a subshell: it did not load if that prints an error.
{ not_loaded=
for each in @modules@; do case :$LOADEDMODULES: in
*:"$each":*|*:"$each/"*) ;;
*) said=$(module load "$each" 2>&1 >/dev/null) && case $said in *ERROR*|*[Uu]'nable to locate'*) false ;; esac ||
not_loaded="$not_loaded $each" ;;
esac; done
[ -z "$not_loaded" ] || { printf 'module: not loaded:%s\n' "$not_loaded" >&2; false; }; }
