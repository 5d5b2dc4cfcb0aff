# shellcheck shell=bash
# Write standard input into the file from which a running Autosubmit reads new statuses. The file appears with its whole
# content, and one that is waiting to be read is never replaced: `ln` fails if the name exists.
umask 077
directory=@directory@; name=@name@
for each in @others@; do
  if [ -e "$each" ] || [ -L "$each" ]; then echo waiting; exit; fi
done
cd -P -- "$directory" 2>/dev/null || { echo no-directory; exit; }
temporary=.$name.$$
trap 'rm -f -- "$temporary"' EXIT
set -C
cat >"$temporary" && [ "$(stat -c %s -- "$temporary")" = @size@ ] || { echo not-written; exit; }
# Autosubmit may take the file at once, so its inode is read before.
inode=$(stat -c %i -- "$temporary")
if ln -- "$temporary" "$name" 2>/dev/null; then echo "written $inode"
elif [ -e "$name" ] || [ -L "$name" ]; then echo waiting
else echo not-written; fi
