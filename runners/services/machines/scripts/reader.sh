# shellcheck shell=bash disable=SC2188,SC2154
# Read one encoded script of @length@ bytes and evaluate it. Every line is one statement: they are joined by "; ".
builtin printf '\n%s%s\n' @half@ @other_half@ >&2 && builtin printf '\n%s%s\n' @half@ @other_half@ || exit @CUT_SHORT@
IFS= builtin read -r line && [ "$line" = @OPENING@ ] || { echo @UNREAD@; exit @CUT_SHORT@; }
LC_ALL=C IFS= builtin read -r -N @length@ script || { echo @UNREAD@; exit @CUT_SHORT@; }
builtin printf -v script %b "$script"
case $script in *@END@) builtin eval "$script" ;; *) { echo @UNREAD@; exit @CUT_SHORT@; } ;; esac
