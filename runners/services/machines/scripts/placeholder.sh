# shellcheck shell=bash
exec -a autosubmit bash -c 'echo; read -r _' run "$1" @PLACEHOLDER@
