# shellcheck shell=bash
. experiments_root.sh
file=$root/@expid@/pkl/job_list_@expid@.pkl
[ -f "$file" ] && stat -L -c %s -- "$file"
