# shellcheck shell=bash
root=$HOME/autosubmit; section=
while IFS= read -r line; do
  case $line in
    '['*) section=$line ;;
    path*=*) [ "$section" = '[local]' ] && root=${line#*=} && root=${root# } ;;
  esac
done 2>/dev/null <"$HOME/.autosubmitrc"
file=$root/@expid@/pkl/job_list_@expid@.pkl
[ -f "$file" ] && stat -L -c %s -- "$file"
