// SPDX-License-Identifier: GPL-2.0
/*
 * Relocation for programs that do not ask for it: the sysctl vm.mremap_relocate,
 * prctl(PR_SET_MREMAP_RELOCATE), and which moves are cheap to relocate. What they
 * promise is in Documentation/admin-guide/mm/mremap_relocate.rst.
 */

#include <linux/mm.h>
#include <linux/mmap_lock.h>
#include <linux/sizes.h>
#include <linux/sysctl.h>
#include <linux/userfaultfd_k.h>

#include <uapi/linux/mman.h>
#include <uapi/linux/prctl.h>

#include "internal.h"
#include "mremap_relocate.h"

/*
 * The longest range that counts as cheap, in bytes: the mmap lock is held, and
 * 4 kB pages of that many take some 700,000 instructions more than without.
 */
#define CHEAP_MAX	SZ_64M

int sysctl_mremap_relocate __read_mostly = PR_MREMAP_RELOCATE_OFF;

/* Depends on the call alone, so that a program behaves the same in each run. */
static bool is_cheap(struct vm_area_struct *vma, unsigned long start,
		     unsigned long len, unsigned long distance,
		     unsigned long flags)
{
	if (len > CHEAP_MAX)
		return false;
	/*
	 * Page tables can move whole, which costs next to nothing: the first one
	 * even if the range begins in the middle of it, unless something is mapped
	 * in front, see can_realign_addr().
	 */
	if (!(distance & ~PMD_MASK) && (start & ~PMD_MASK) + len >= PMD_SIZE)
		return false;
	/* Whoever uses these looks closely at what moves. */
	return !(flags & MREMAP_DONTUNMAP) && !userfaultfd_armed(vma);
}

/**
 * mremap_relocate_unasked() - Is a move to be relocated without a flag for it?
 * @vma: The first VMA that has been moved.
 * @start: Where all that the call has moved was, in bytes.
 * @len: Length of that, in bytes.
 * @distance: How far it has moved, in bytes: new minus old address.
 * @flags: The flags of mremap().
 *
 * The mmap lock must be held.
 *
 * Returns: true if so.
 */
bool mremap_relocate_unasked(struct vm_area_struct *vma, unsigned long start,
			     unsigned long len, unsigned long distance,
			     unsigned long flags)
{
	const int set = vma->vm_mm->mremap_relocate;

	switch (set ? set - 1 : READ_ONCE(sysctl_mremap_relocate)) {
	case PR_MREMAP_RELOCATE_CHEAP:
		return is_cheap(vma, start, len, distance, flags);
	case PR_MREMAP_RELOCATE_ALL:
		return true;
	default:
		return false;
	}
}

/**
 * mremap_relocate_get_mode() - What has the current process been set to?
 *
 * Returns: PR_MREMAP_RELOCATE_SYSCTL, or what overrides the sysctl.
 */
int mremap_relocate_get_mode(void)
{
	const int set = READ_ONCE(current->mm->mremap_relocate);

	return set ? set - 1 : PR_MREMAP_RELOCATE_SYSCTL;
}

/**
 * mremap_relocate_set_mode() - Set which moves of this process are relocated.
 * @mode: PR_MREMAP_RELOCATE_SYSCTL, or another one that overrides the sysctl.
 *
 * Takes the mmap lock, so that it does not change in the midst of a mremap().
 *
 * Returns: 0, -EINVAL if there is no such mode, or -EINTR if a fatal signal is
 * pending.
 */
int mremap_relocate_set_mode(unsigned long mode)
{
	struct mm_struct *mm = current->mm;

	if (mode > PR_MREMAP_RELOCATE_SYSCTL)
		return -EINVAL;
	if (mmap_write_lock_killable(mm))
		return -EINTR;
	WRITE_ONCE(mm->mremap_relocate,
		   mode == PR_MREMAP_RELOCATE_SYSCTL ? 0 : mode + 1);
	mmap_write_unlock(mm);
	return 0;
}

#ifdef CONFIG_SYSCTL
static const struct ctl_table mremap_relocate_sysctls[] = {
	{
		.procname	= "mremap_relocate",
		.data		= &sysctl_mremap_relocate,
		.maxlen		= sizeof(sysctl_mremap_relocate),
		.mode		= 0644,
		.proc_handler	= proc_dointvec_minmax,
		.extra1		= SYSCTL_ZERO,
		.extra2		= SYSCTL_TWO,
	},
};

static int __init mremap_relocate_sysctl_init(void)
{
	register_sysctl_init("vm", mremap_relocate_sysctls);
	return 0;
}
subsys_initcall(mremap_relocate_sysctl_init);
#endif
