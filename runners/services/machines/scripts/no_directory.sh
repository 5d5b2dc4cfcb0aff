# shellcheck shell=bash disable=SC2154 # a list that can be joined with `&&`
# After an archive that it cannot read, `autosubmit unarchive` removes the directory of the experiment.
{
. experiments_root.sh
[ ! -e "$root/"@expid@ ] || { printf '[CRITICAL] Experiment %s is not archived: its directory exists.\n' @expid@; false; }; }
