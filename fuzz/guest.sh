#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# guest.sh SWAP OPTION...: run the fuzzer in the guest, with "zram" or "disk" to
# swap to.  With zram a page is out when the call returns, with the disk it is
# on its way for a while.

swap=$1
shift
swapoff -a
if [ "$swap" = zram ]; then
	[ -e /dev/zram0 ] || modprobe zram
	echo 512M >/sys/block/zram0/disksize
	mkswap -q /dev/zram0
	swapon /dev/zram0
else
	swapon /dev/vdc
fi

# Allocations that may fail: those of fail-nth, in silence.
faults=/sys/kernel/debug
for setting in failslab/ignore-gfp-wait=N failslab/verbose=0 \
	fail_page_alloc/ignore-gfp-wait=N fail_page_alloc/verbose=0 \
	fail_page_alloc/min-order=0; do
	file=$faults/${setting%=*}
	[ ! -e "$file" ] || echo "${setting#*=}" >"$file"
done

exec ./fuzz --alone "$@"
