# shellcheck shell=bash
# Print `$2` bytes of the log from byte `$1`. `tail` seeks, so this does not read what is before.
part() { tail -c "+$(($1 + 1))" log 2>/dev/null | head -c "$2"; }
# Set `lines` to the number of line ends before byte `$1`, if they can be counted in time. Ask for ascending bytes.
counted=0 lines=0 can_count=1
count_lines() {
  [ "$can_count" = 1 ] && [ "$1" -le @count_limit@ ] && [ $SECONDS -lt @count_until@ ] &&
    more=$(part "$counted" $(($1 - counted)) | timeout @count_seconds@ wc -l) || { can_count=0; return 1; }
  lines=$((lines + more)) counted=$1
}
