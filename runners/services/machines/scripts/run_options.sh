# shellcheck shell=bash
expid=@expid@; other=@other@
date '+clock %Y-%m-%dT%H:%M:%S%z'
. experiments_root.sh
# Without the experiment itself there, this is not the directory that Autosubmit uses, so nothing can be told.
[ -d "$root/$expid" ] && [ -n "$other" ] || exit 0
if [ ! -d "$root/$other" ]; then echo other missing
elif [ -d "$root/metadata/data" ] && [ ! -s "$root/metadata/data/job_data_$other.db" ]; then echo other never-ran
else echo other found; fi
