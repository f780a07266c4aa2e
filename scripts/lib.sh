# SPDX-License-Identifier: GPL-2.0
#
# What every script shares: where things are, how to speak, long steps,
# locks and packages.  POSIX sh, sourced as the first command of a script:
#
#	. "$(dirname "$0")/lib.sh"
#
# and ../lib.sh from scripts/suites.
#
# Sourcing takes `--base X` out of the script's own arguments, and answers
# `--help` with the comment at the head of the script; both only before `--`.
# A script that is not about one base says ANY_BASE=1 first.

set -u
LC_ALL=C
export LC_ALL
unset CDPATH GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE GIT_OBJECT_DIRECTORY

ROOT=$(cd "$(dirname "$0")/.." && pwd)
[ "${ROOT##*/}" != scripts ] || ROOT=${ROOT%/*}

say() { printf '%s\n' "$*" >&2; }

die() { say "error: $*"; exit 1; }

# The command line is wrong: exit status 2, as everywhere.
misuse() { say "error: $*"; exit 2; }

# The comment at the head of the script, without the #! and SPDX lines.
usage() {
	sed -n '/^#!/d; /SPDX/d; /^#/!q; s/^# \{0,1\}//; p' "$0" |
		sed '/./,$!d'
}

bases() {
	for _b in "$ROOT"/series/*/base; do
		[ -f "$_b" ] && basename "${_b%/base}"
	done
}

# Take --base and --help out of "$@"; the rest stays, in its order.
BASE_GIVEN=${BASE:+1}
_n=$#
_own=1
while [ "$_n" -gt 0 ]; do
	_arg=$1
	shift
	_n=$((_n - 1))
	if [ -n "$_own" ]; then
		case $_arg in
		--)	_own= ;;
		--help | -h)
			usage
			exit 0 ;;
		--base)
			[ "$_n" -gt 0 ] || misuse "--base needs a name"
			BASE=$1
			BASE_GIVEN=1
			shift
			_n=$((_n - 1))
			continue ;;
		--base=*)
			BASE=${_arg#--base=}
			BASE_GIVEN=1
			continue ;;
		esac
	fi
	set -- "$@" "$_arg"
done

DEFAULT_BASE=7.3
BASE=${BASE:-$DEFAULT_BASE}
export BASE
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/mremap-relocate
BUILD=$ROOT/build/$BASE
TREE=$BUILD/tree
OUT=$ROOT/out/$BASE
SERIES=$ROOT/series/$BASE
JOBS=${JOBS:-$(nproc 2>/dev/null || echo 2)}
CCACHE_DIR=${CCACHE_DIR:-$CACHE/ccache}
export CCACHE_DIR

if [ -n "${ANY_BASE:-}" ] && [ -z "$BASE_GIVEN" ]; then
	:
elif [ -f "$SERIES/base" ]; then
	. "$SERIES/base"
else
	misuse "no base '$BASE'; there are:" $(bases)
fi

# Ctrl-C goes to the whole process group: whatever runs ends first, then the
# shell comes here.  Only the outermost script says so.
_tick=
_interrupted() {
	[ -z "$_tick" ] || kill "$_tick" 2>/dev/null
	[ -n "$1" ] || printf '\n%s\n' \
		"interrupted; run the same command again to go on" >&2
	exit 130
}
trap "_interrupted '${RUN_NESTED:-}'" INT
RUN_NESTED=1
export RUN_NESTED

# need_packages PKG...: Debian packages that a script cannot do without.
need_packages() {
	if ! command -v dpkg-query >/dev/null; then
		say "not a Debian; this needs what these packages hold: $*"
		return 0
	fi
	_missing=
	for _p; do
		case $(dpkg-query -W -f '${Status}' "$_p" 2>/dev/null) in
		*' installed'*) ;;
		*) _missing="$_missing $_p" ;;
		esac
	done
	[ -n "$_missing" ] || return 0
	if [ "$(id -u)" != 0 ]; then
		say "missing packages; please type"
		say "    sudo apt-get install --no-install-recommends$_missing"
		exit 1
	fi
	mkdir -p "$BUILD"
	long "$BUILD/packages.log" "installing$_missing" \
		_install $_missing || exit 1
}

_install() {
	DEBIAN_FRONTEND=noninteractive
	export DEBIAN_FRONTEND
	set -- apt-get -y -o DPkg::Lock::Timeout=300 \
		install --no-install-recommends "$@"
	"$@" || { apt-get update && "$@"; }
}

# locked FILE FUNCTION [ARG]...: one run at a time, until this script ends.
# The shell keeps the lock; no program that FUNCTION starts gets it.
locked() {
	mkdir -p "$(dirname "$1")"
	exec 9>"$1" || die "cannot write $1"
	flock -n 9 || {
		say "waiting for another run to end ($1)"
		flock 9
	}
	shift
	"$@" 9>&-
}

# need_space DIR MEGABYTES "what"
need_space() {
	mkdir -p "$1"
	_free=$(df -Pm "$1" | awk 'NR == 2 { print $4 }')
	[ "$_free" -ge "$2" ] ||
		die "$3 needs $2 MB in $1, and only $_free MB are free"
}

# hint_memory MEGABYTES "what" "what helps": on a machine that is too small,
# one line before the step that may fail for it.
hint_memory() {
	_free=$(awk '/^MemAvailable|^SwapFree/ { kb += $2 }
		END { print int(kb / 1024) }' /proc/meminfo)
	[ "$_free" -ge "$1" ] ||
		say "hint: $2 may need $1 MB of memory, and $_free MB are" \
			"available; $3"
}

# long LOGFILE "what" CMD...: run CMD with its output in LOGFILE, and show
# that it lives.  CMD stays in the foreground, so that Ctrl-C reaches it, and
# gets a subshell, so that the handler of Ctrl-C can still write to stderr.
long() {
	_log=$1
	_what=$2
	shift 2
	mkdir -p "$(dirname "$_log")"
	: >"$_log" || die "cannot write $_log"
	_start=$(date +%s)
	_ticker "$$" &
	_tick=$!
	_rc=0
	("$@") >"$_log" 2>&1 </dev/null || _rc=$?
	kill "$_tick" 2>/dev/null || :
	wait "$_tick" 2>/dev/null || :
	_tick=
	[ ! -t 2 ] || printf '\r\033[K' >&2
	if [ "$_rc" = 0 ]; then
		say "[$(_elapsed)] $_what: done"
		return 0
	fi
	if [ -n "${_trying:-}" ]; then
		say "[$(_elapsed)] $_what: $(grep . "$_log" | tail -n 1)"
		return "$_rc"
	fi
	say "[$(_elapsed)] $_what: failed with status $_rc; the end of its log:"
	tail -n 20 "$_log" | sed 's/^/    /' >&2
	say "error: $_what failed; all of it is in $_log"
	return "$_rc"
}

# try: the same for a step that may fail, since there is another way.
try() {
	_trying=1
	_rc=0
	long "$@" || _rc=$?
	_trying=
	return "$_rc"
}

_elapsed() {
	_t=$(($(date +%s) - _start))
	printf '%d:%02d' $((_t / 60)) $((_t % 60))
}

_ticker() {
	_step=30
	[ ! -t 2 ] || _step=1
	_s=0
	while sleep 1 >/dev/null 2>&1 && [ -e "/proc/$1/exe" ]; do
		_s=$((_s + 1))
		[ $((_s % _step)) = 0 ] || continue
		_last=$(tail -c 500 "$_log" | tr '\r\t' '\n ' | tr -cd '[:print:]\n' |
			grep . | tail -n 1 | cut -c 1-60)
		if [ -t 2 ]; then
			printf '\r\033[K[%s] %s: %s' "$(_elapsed)" "$_what" "$_last" >&2
		else
			say "[$(_elapsed)] $_what: $_last"
		fi
	done
}

# The composed tree, untouched by what the user's git configuration says.
NOBODY='mremap-relocate series'
NOWHERE=series@localhost
EPOCH=1767225600
tgit() {
	GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1 \
		git -C "$TREE" "$@"
}

kernel_version() {
	awk '$2 == "=" { v[$1] = $3 }
	     END { if (v["VERSION"] != "")
		   print v["VERSION"] "." v["PATCHLEVEL"] "." v["SUBLEVEL"] \
			 v["EXTRAVERSION"] }' \
		"$1/Makefile"
}

# A profile is a fragment config/NAME.config with the line "# Profile: SUBJECT".
# "# Builds on: NAME" puts it on top of another, and "# Boots with: PARAMETER..."
# is for the kernel's command line, "# Known: REGEX" for reports that are not ours.
profiles() {
	grep -ls '^# Profile: ' "$ROOT"/config/*.config |
		sed 's|.*/||; s|\.config$||' | xargs
}

# profile_says NAME FIELD
profile_says() { sed -n "s/^# $2: //p" "$ROOT/config/$1.config"; }

# profile_chain NAME: it and those that it builds on, the first of them first
profile_chain() {
	_chain=
	_next=$1
	while [ -n "$_next" ]; do
		case " $(profiles) " in
		*" $_next "*) ;;
		*)	[ -z "$_chain" ] ||
				die "profile '${_chain%% *}' builds on '$_next', which is none"
			misuse "no profile '$_next'; there are:" $(profiles) ;;
		esac
		case " $_chain " in
		*" $_next "*) die "profile '$1' builds on itself" ;;
		esac
		_chain="$_next${_chain:+ $_chain}"
		_next=$(profile_says "$_next" 'Builds on')
	done
	echo "$_chain"
}

# Where a kernel tree keeps what is built with it
profile_dir() {
	if [ "$1" = debug ]; then echo .build; else echo ".build-$1"; fi
}

# One line per commit of the series: PATCH [FILE OF OURS]...  In the file, a
# commit's files may also stand on indented lines below it.
series_lines() {
	awk '/^[ \t]*(#|\[|$)/ { next }
	     /^[^ \t]/ && line != "" { print line; line = "" }
	     { $1 = $1; line = line (line == "" ? "" : " ") $0 }
	     END { if (line != "") print line }' "${1:-$SERIES/series}"
}

# One line per mail thread: NUMBER-OF-PATCHES NAME.  In the file, [NAME] stands
# before the first patch of each; without such lines all is one, and NAME empty.
series_parts() {
	awk '/^[ \t]*(#|$)/ { next }
	     /^\[[a-z0-9-]+\]$/ { name[++n] = substr($0, 2, length($0) - 2); next }
	     /^[^ \t]/ { if (!n) n = 1; patches[n]++ }
	     END { for (i = 1; i <= n; i++) print patches[i] + 0, name[i] }
	' "${1:-$SERIES/series}"
}

# The mode of a file of ours, as git writes it
file_mode() {
	if [ -x "$1" ]; then echo 100755; else echo 100644; fi
}

# What a suite counts.  finish NAME prints the line that scripts/test reads.
passed=0
failed=0
skipped=0
pass() { passed=$((passed + 1)); echo "ok - $*"; }
fail() { failed=$((failed + 1)); echo "not ok - $*"; }
skip() { skipped=$((skipped + 1)); echo "skip - $*"; }

# judge_skip SUITE "PROGRAM: TEST # REASON": one that series/BASE/skips does
# not expect is a failure.
judge_skip() {
	while read -r _suite _pattern; do
		[ "$_suite" = "$1" ] || continue
		_pattern=${_pattern%% # *}
		case $2 in
		$_pattern | $_pattern' # '*)
			skip "$2"
			return ;;
		esac
	done <"$SERIES/skips"
	fail "$2 (series/$BASE/skips does not expect this skip)"
}

finish() {
	echo "$1: $passed passed, $failed failed, $skipped skipped"
	[ "$failed" = 0 ]
	exit
}
