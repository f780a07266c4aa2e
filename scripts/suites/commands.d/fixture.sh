# SPDX-License-Identifier: GPL-2.0
#
# What every subject finds: a repository of two small series on kernels of three
# files ($REPO), and a Debian ($small_debian) whose PATH has, besides git, the
# programs of the packages that every Debian has, and of those that the scripts ask
# apt-get for.  apt-get, the mirror and the virtual machine are stubs ($STUB_DIR).

work=$tmp/work
unset BASE LINUX_SRC RUN_NESTED
export XDG_CACHE_HOME=$work/cache STUB_DIR=$work/stub HOME=$work
export GIT_CONFIG_NOSYSTEM=1
REPO=$work/repo
TREE=$REPO/build/7.3/tree
DOWNLOADS=$XDG_CACHE_HOME/mremap-relocate/downloads
mkdir -p "$REPO/mm" "$STUB_DIR" "$work/bin"

# expect STATUS PATTERN DESCRIPTION CMD...: how it ends, and what it says
said=$work/said
expect() {
	local status=$1 pattern=$2 what=$3 rc=0
	shift 3
	(cd "$REPO" && "$@") >"$said" 2>&1 </dev/null || rc=$?
	if [ "$rc" = "$status" ] && { [ -z "$pattern" ] || grep -qE -e "$pattern" "$said"; }; then
		pass "$what"
	else
		fail "$what (status $rc, not $status, or not said: $pattern)"
		sed 's/^/    /' "$said"
	fi
}

# check DESCRIPTION CMD...: leaves alone what the last one said that was expected to
check() { said=$work/checked expect 0 "" "$@"; }
said() { check "$2" grep -qE -e "$1" "$said"; }

not() { ! "$@"; }
mirror() { echo "$1" >"$STUB_DIR/mirror"; }

# What is done on the way to a check
redo() { (cd "$REPO" && ./run "$@") >/dev/null 2>&1; }
as_me() { git -c user.name=A -c user.email=a@b.c "$@"; }
in_tree() { as_me -C "$TREE" "$@"; }
in_repo() { as_me -C "$REPO" "$@"; }
restore() { in_repo checkout -q .; }
clean() { in_repo status --porcelain | not grep .; }

# script FILE: a program, from standard input
script() { cat >"$1" && chmod +x "$1"; }

# with PROGRAM CMD...: with another PROGRAM, from standard input
with() {
	script "$work/bin/$1" <<<"#!/bin/sh"$'\n'"$(cat)"
	hash -r
	"${@:2}"
	rm "$work/bin/$1"
	hash -r
}
full_disk() { with df "$@" <<<'printf "x\nx 9 9 7 9 /\n"'; }

# ---- the kernels, their tarballs, and the mirror that has them

# kernel X.Y.Z [WORD]: print the sum of its tarball
kernel() {
	local dir=$work/linux-$1 tarball=$STUB_DIR/linux_$1.orig.tar.xz
	mkdir -p "$dir/mm"
	printf 'VERSION = %s\nPATCHLEVEL = %s\nSUBLEVEL = %s\nEXTRAVERSION =\n' \
		${1//./ } >"$dir/Makefile"
	echo 'obj-y := mremap.o' >"$dir/mm/Makefile"
	echo '*.o' >"$dir/.gitignore"
	seq -f "${2-} line %g" 30 >"$dir/mm/mremap.c"
	tar -c -J -f "$tarball" -C "$work" "linux-$1"
	sha256sum "$tarball" | cut -d ' ' -f 1
}
sum734=$(kernel 7.3.4) sum739=$(kernel 7.3.9) sum612=$(kernel 6.12.8)
kernel 8.0.0 other >/dev/null

# What it does is in the file `mirror`: good, or what is wrong with it.
script "$work/bin/apt-get" <<'END'
#!/bin/bash
how=$(cat "$STUB_DIR/mirror")
args=$*
echo "$args" >>"$STUB_DIR/calls"
. "$STUB_DIR/descriptors"
case $args in
*indextargets*RELEASE*)
	echo "$(. /etc/os-release; echo "$VERSION_CODENAME")" \
		main http://mirror.invalid/debian/ ;;
*indextargets*) echo 'Debian|Debian|http://mirror.invalid/debian/' ;;
*' --no-install-recommends '*)
	"$STUB_DIR/install" ${args##* --no-install-recommends } ;;
*update) [ "$how" != down ] ;;
*source*linux=*)
	v=${args##*linux=}
	f=linux_${v%%-*}.orig.tar.xz
	case $how-$v in
	good-* | gone-7.3.9-*) cp "$STUB_DIR/$f" . ;;
	garbage-*) echo garbage >"$f" ;;
	slow-*) head -c 99 "$STUB_DIR/$f" >"$f"; : >"$STUB_DIR/slow"; sleep 60 ;;
	*) echo "E: 404 $f"; exit 100 ;;
	esac ;;
*) exit 100 ;;
esac
END
script "$work/bin/apt-cache" <<END
#!/bin/sh
cat <<END2
Package: linux
Version: 7.3.4-1
Checksums-Sha256:
 $sum734 1 linux_7.3.4.orig.tar.xz
 $sum739 1 linux_7.3.4-1.debian.tar.xz
Package: linux
Version: 7.3.9-1
Checksums-Sha256:
 $sum739 1 linux_7.3.9.orig.tar.xz
Package-List:
Package: linux
Version: 7.4.1-1
Checksums-Sha256:
 $sum739 1 linux_7.4.1.orig.tar.xz
END2
END
mirror good

# ---- programs that have no place here

# stub PACKAGE PROGRAM: what it does, from standard input
stub() {
	mkdir -p "$STUB_DIR/$1"
	{ printf '#!/bin/bash\n. "$STUB_DIR/descriptors"\n'; cat; } |
		script "$STUB_DIR/$1/$2"
}
stub curl curl <<<'exit 6'
stub make make <<<'echo "no rule"; exit 2'
stub gcc gcc <<<'echo "gcc 1"'
stub fakeroot fakeroot <<<'shift; exec "$@"'
stub mmdebstrap mmdebstrap <<'END'
echo "$*" >>"$STUB_DIR/mmdebstrap-calls"
for arg; do
	case $arg in *.tar) tar -c -f "$arg" -C "$STUB_DIR" mirror ;; esac
done
END
stub qemu-system-x86 qemu-system-x86_64 <<'END'
args=$*
echo "$args" >"$STUB_DIR/qemu"
status=${args##*id=status,path=}
echo "from the guest" >/dev/fd/1
echo 3 >"${status%% *}"
END

# Each of these programs notes its name, and what it inherits besides standard
# input, output and error, and what this script inherited.
exec 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-
export STUB_INHERITED=" $(cd /proc/$$/fd && echo *) "
cat >"$STUB_DIR/descriptors" <<'END'
echo "${0##*/}" >>"$STUB_DIR/started"
for fd in /proc/$$/fd/*; do
	case "$STUB_INHERITED" in *" ${fd##*/} "*) continue ;; esac
	[ ! -e "$fd" ] || [ "$fd" -ef "$0" ] ||
		echo "${0##*/}: ${fd##*/} is $(readlink "$fd")" \
			>>"$STUB_DIR/inherited"
done
END

# Packages are "installed" by links to their programs: the stubs above, or what
# this machine has.  A package without either has no program.
debian=$work/debian
list=$(command -v dpkg-query) || die "the suite needs a Debian"
mkdir "$debian"
script "$STUB_DIR/install" <<END
#!/bin/bash
for package; do
	case \$package in *[=/_]* | no-such-package) exit 100 ;; esac
	echo \$package >>"\$STUB_DIR/installed"
	if [ -d "\$STUB_DIR/\$package" ]; then
		ln -sf "\$STUB_DIR/\$package"/* $debian/
	else
		$list -L \$package 2>/dev/null | grep -E '^(/usr)?/s?bin/.' |
			xargs -r ln -sf -t $debian/
	fi
done
# awk, and others that are installed under several names
cd /etc/alternatives
paste <(printf '%s\n' *) <(readlink -m *) | while read -r name target; do
	[ -e $debian/\$name ] || [ ! -e $debian/\${target##*/} ] ||
		ln -s \$target $debian/\$name
done
# These are real, and also note what they inherit.
for name in git tar xz mke2fs; do
	[ -L $debian/\$name ] || continue
	printf '#!/bin/bash\n. "\$STUB_DIR/descriptors"\nexec %s "\$@"\n' \
		\$(readlink $debian/\$name) >$debian/new
	chmod +x $debian/new
	mv $debian/new $debian/\$name
done
END
script "$work/bin/dpkg-query" <<'END'
#!/bin/sh
! grep -qxF -e "$4" "$STUB_DIR/installed" || echo 'install ok installed'
END

# The smallest Debian, and git: that needs perl and more, but none of their
# programs.
base=$("$list" -W -f '${Package} ${Essential} ${Priority}\n' |
	awk '$2 == "yes" || $3 == "required" { print $1 }')
base="$base apt git"
"$STUB_DIR/install" $base
small_debian=$work/bin:$debian

# ---- the repository

pin() {
	mkdir -p "$REPO/series/$1/"
	cat >"$REPO/series/$1/base" <<-END
		BASE_VERSION=$2 DEB_SUITE=x DEB_VERSION=$2-1
		TARBALL=linux_$2.orig.tar.xz TARBALL_SHA256=$3
		DEB_PACKAGE= DEB_PACKAGE_SHA256= SUITES="none"
	END
	: >"$REPO/series/$1/skips"
}
cp -r "$ROOT/run" "$ROOT/scripts" "$ROOT/.gitignore" "$REPO"
rm -r "$REPO"/scripts/suites/*
pin 7.3 7.3.4 "$sum734"
pin 6.12 6.12.8 "$sum612"
echo 'int relocate;' >"$REPO/mm/relocate.c"
printf '# A comment\n0001-mm-add-relocate.patch\n\tmm/relocate.c\n' |
	tee "$REPO/series/6.12/series" >"$REPO/series/7.3/series"
echo 0002-mm-change-line-5.patch >>"$REPO/series/7.3/series"
printf 'Subject: mm: a small series\n\nIt does nothing.\n' >"$REPO/series/7.3/cover"
cat >"$REPO/series/7.3/0001-mm-add-relocate.patch" <<'END'
Subject: mm: add relocate

It is built.

---
diff --git a/mm/Makefile b/mm/Makefile
--- a/mm/Makefile
+++ b/mm/Makefile
@@ -1 +1 @@
-obj-y := mremap.o
+obj-y := mremap.o relocate.o
END
cat >"$REPO/series/7.3/0002-mm-change-line-5.patch" <<'END'
Subject: mm: change line 5

---
diff --git a/mm/mremap.c b/mm/mremap.c
--- a/mm/mremap.c
+++ b/mm/mremap.c
@@ -2,7 +2,7 @@
  line 2
  line 3
  line 4
- line 5
+ LINE 5
  line 6
  line 7
  line 8
END
cat >"$REPO/series/6.12/0001-mm-add-relocate.patch" <<'END'
Subject: mm: add relocate

On the older base it is called otherwise.

---
diff --git a/mm/relocate.c b/mm/relocate.c
--- a/mm/relocate.c
+++ b/mm/relocate.c
@@ -1 +1 @@
-int relocate;
+int old_relocate;
END
git config --global init.defaultBranch main
git init -q "$REPO"
in_repo add -A
in_repo commit -q -m all
(PATH=$small_debian redo tree) || die "the fixture composes no tree"

# ---- for several subjects

# interrupt CMD...: Ctrl-C once the mirror has sent the half; its status and words
interrupt() {
	local rc=0 n=0
	set -m
	# Even where a shell has told all that it starts to ignore it.
	env --default-signal=INT "$@" &
	set +m
	while [ ! -e "$STUB_DIR/slow" ] && [ $((n += 1)) -lt 600 ]; do sleep 0.1; done
	kill -INT -- "-$!"
	wait $! || rc=$?
	return $rc
}

# suite NAME OPTIONS: one that says what it gets; copy_suite NAME...: one of ours
suite() {
	script "$REPO/scripts/suites/$1" <<-END
		#!/bin/bash
		# Usage: test-$1 $2
		. "\$(dirname "\$0")/../lib.sh"
		echo "$1 <\$*>"; pass x; finish $1
	END
}
copy_suite() { (cd "$ROOT/scripts/suites" && cp "$@" "$REPO/scripts/suites"); }

# profile NAME LINE...: which ./run vm --no-build finds built
profile() {
	local dir=$TREE/.build-$1
	[ "$1" != debug ] || dir=$TREE/.build
	mkdir -p "$REPO/config" "$dir/arch/x86/boot"
	printf '# %s\n' "${@:2}" >"$REPO/config/$1.config"
	touch "$dir/arch/x86/boot/bzImage" "$TREE/Kconfig"
}

# guest_says: for the suites, a ./run vm that prints $STUB_DIR/output, with
# $STUB_DIR/log for the kernel's log
guest_says() {
	: >"$STUB_DIR/log"
	script "$REPO/scripts/vm" <<-'END'
		#!/bin/bash
		while [ "$1" != -- ]; do [ "$1" != --log ] || log=$2; shift; done
		[ -z "$log" ] || cat "$STUB_DIR/log" >"$log"
		cat "$STUB_DIR/output"
	END
}
