# shellcheck shell=bash
code=$?
. report.sh
exit $code
