# shellcheck shell=sh disable=SC2086,SC2154 # `code` is a number
# Print the marker and the exit code `code` on both streams.
printf '\n%s%s %s\n' @half@ @other_half@ $code >&2
printf '\n%s%s %s\n' @half@ @other_half@ $code
