# shellcheck shell=bash disable=SC2034,SC2154 # the included files use and set variables
# The log is searched in blocks, so a log without line ends needs no more memory than another.
. open_log.sh
LC_ALL=C SECONDS=0
export LC_ALL
. log_part.sh
begin=@begin@ end=@end@ left=@most@ block=@block@ overlap=@overlap@ around=@context@ found=()
[ "$end" -le "$size" ] || end=$size
[ "$begin" -le "$end" ] || begin=$end
if [ @backward@ = 1 ]; then from=$end cut=tail; else from=$begin cut=head; fi
while [ "$left" -gt 0 ] && [ $SECONDS -lt @seconds@ ]; do
  if [ @backward@ = 1 ]; then
    stop=$from start=$((from - block))
    [ "$start" -gt "$begin" ] || start=$begin
  else
    start=$from stop=$((from + block))
    [ "$stop" -lt "$end" ] || stop=$end
  fi
  [ "$start" -lt "$stop" ] || break
  hits=()
  while read -r at length; do
    hits+=("$((start + at)) $length")
  done < <(part "$start" $((stop - start + overlap)) | grep -obaF @options@ | awk -v most=$((stop - start)) '
{ colon = index($0, ":"); at = substr($0, 1, colon - 1) + 0 } at < most { print at, length($0) - colon }
' | $cut -n "$left")
  left=$((left - ${#hits[@]}))
  if [ @backward@ = 1 ]; then from=$start; else from=$stop; fi
  [ ${#hits[@]} -gt 0 ] || continue
  if [ @backward@ = 1 ]; then
    found=("${hits[@]}" "${found[@]}")
    [ "$left" -gt 0 ] || from=${hits[0]% *}
  else
    found+=("${hits[@]}")
    [ "$left" -gt 0 ] || from=$((${hits[${#hits[@]} - 1]% *} + 1))
  fi
done
printf 'size %s\n' "$size"
for each in "${found[@]}"; do
  at=${each% *} length=${each#* } context=$around
  [ "$at" -ge "$context" ] || context=$at
  number=-
  ! count_lines "$at" || number=$lines
  printf 'match %s %s %s %s %s\n' "$at" "$length" "$number" "$context" \
    "$(part $((at - context)) $((context + length + around)) | base64 -w 0)"
done
printf 'until %s\n%s\n' "$from" @END@
