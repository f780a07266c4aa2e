#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# relocate-run and the demonstration in the guest: what they do, what they say to
# bad arguments, and their exit status.

failed=0

# expect STATUS PATTERN DESCRIPTION COMMAND...
expect() {
	status=$1 pattern=$2 what=$3
	shift 3
	said=$("$@" 2>&1)
	rc=$?
	if [ "$rc" = "$status" ] && echo "$said" | grep -qE -e "$pattern"; then
		echo "ok - $what"
	else
		echo "not ok - $what (status $rc, not $status, or not said: $pattern)"
		echo "$said" | sed 's/^/    /'
		failed=1
	fi
}

relocated() { awk '$1 == "mremap_relocate" { print $2 }' /proc/vmstat; }
plain="bin/compact_heap --no-limit --blocks 8"

expect 0 "^usage: relocate-run" "relocate-run --help" bin/relocate-run --help
expect 2 "^usage: " "no program" bin/relocate-run
expect 2 "^usage: " "unknown option" bin/relocate-run --nonsense true
expect 2 "no mode 'most'; there are: off, cheap, all, sysctl" "unknown mode" \
	bin/relocate-run --mode most true
expect 127 "nonsense: No such file" "no such program" bin/relocate-run /nonsense
expect 126 "/: Permission denied" "what cannot be executed" bin/relocate-run /
expect 7 "^its own -m$" "the program's own options and status" \
	bin/relocate-run sh -c 'echo its own $1; exit 7' sh -m

before=$(relocated)
expect 0 "^ *VMAs after the call" "a program without it" bin/relocate-run -m off $plain
off=$(($(relocated) - before))
before=$(relocated)
expect 0 "^ *VMAs after the call" "the same with it" bin/relocate-run $plain
all=$(($(relocated) - before))
expect 0 "^more$" "... which relocates its plain moves as well" \
	sh -c "[ $all -gt $off ] && echo more || echo off: $off, all: $all"

expect 2 "'1' is not a number from 2 to" "a heap of one block" \
	bin/compact_heap --blocks 1
expect 2 "'x' is not a number from 1 to" "pages that are no number" \
	bin/compact_heap --pages x
expect 2 "^usage: compact_heap" "unknown option of the demonstration" bin/compact_heap --nonsense
exit $failed
