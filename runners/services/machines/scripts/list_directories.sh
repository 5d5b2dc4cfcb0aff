# shellcheck shell=bash
# The first line of command.sh is the label. A directory without a valid label gets `-`. The owner of the directory can
# write anything, so only a regular file is opened, and only text of the known form is printed.
base=@BASE_DIRECTORY@ after=@after@ most=@most@
LC_ALL=C
key_pattern='^[0-9a-f]{32}$' label_pattern='^# [A-Za-z0-9_:.-]+$'
cd "$base" 2>/dev/null || { echo @END@; exit; }
for key in *; do
  [[ $key =~ $key_pattern && $key > $after && -d $key ]] || continue
  [ $((most--)) -gt 0 ] || break
  line=
  [ ! -f "$key/command.sh" ] || IFS= read -r -n @label_limit@ line <"$key/command.sh"
  [[ $line =~ $label_pattern ]] && line=${line#\# } || line=-
  printf '%s %s\n' "$key" "$line"
done
echo @END@
