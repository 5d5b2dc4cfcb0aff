# shellcheck shell=bash
cd @directory@ 2>/dev/null || { mkdir -m 700 @directory@ && cd @directory@; } || { echo @UNUSABLE@ >&2; exit @NO_RUN_DIRECTORY@; }
