# shellcheck shell=bash
cd @directory@ 2>/dev/null || { mkdir -p -m 700 @directory@ && cd @directory@; } || exit @NO_RUN_DIRECTORY@
