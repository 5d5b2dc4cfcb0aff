# shellcheck shell=bash
# The mark is new for each request, so nothing in the log can look like it.
(
  . grep_log.sh
)
printf '\n%s %s\n' @mark@ "$?"
@jobs@
printf '\n%s\n' @mark@
. read_log.sh
