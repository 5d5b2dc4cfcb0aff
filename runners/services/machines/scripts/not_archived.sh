# shellcheck shell=bash disable=SC2154 # a list that can be joined with `&&`
{
. experiments_root.sh
archived=
if [ ! -e "$root/"@expid@ ]; then
for file in "$root"/[0-9][0-9][0-9][0-9]/@expid@.tar.gz "$root"/[0-9][0-9][0-9][0-9]/@expid@.tar; do
[ ! -f "$file" ] || archived=${file#"$root/"}
done
fi
[ -z "$archived" ] || {
printf '[CRITICAL] Experiment %s does not exist: it is archived in %s. unarchive-experiment brings it back.\n' @expid@ "$archived"
false; }; }
