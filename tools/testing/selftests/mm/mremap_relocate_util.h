/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the tests of MREMAP_RELOCATE_ANON and MREMAP_MUST_RELOCATE_ANON share.
 */
#ifndef __MREMAP_RELOCATE_UTIL_H
#define __MREMAP_RELOCATE_UTIL_H

#include <stdbool.h>
#include <stddef.h>
#include <pthread.h>
#include <sys/mman.h>
#include <linux/mman.h>
#include <linux/types.h>
#include "hugepage_settings.h"
#include "vm_util.h"

#ifndef MREMAP_RELOCATE_ANON
#define MREMAP_RELOCATE_ANON		8
#endif
#ifndef MREMAP_MUST_RELOCATE_ANON
#define MREMAP_MUST_RELOCATE_ANON	16
#endif
#ifndef PR_SET_MREMAP_RELOCATE
#define PR_SET_MREMAP_RELOCATE		82
#define PR_GET_MREMAP_RELOCATE		83
#define PR_MREMAP_RELOCATE_OFF		0
#define PR_MREMAP_RELOCATE_CHEAP	1
#define PR_MREMAP_RELOCATE_ALL		2
#define PR_MREMAP_RELOCATE_SYSCTL	3
#endif

/*
 * On a busy machine, under an emulator and with a sanitizer, a test takes
 * minutes that otherwise takes seconds. Only one that hangs is to be ended.
 */
#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT		900

/* Short enough for tables and calls. */
#define RELOCATE_ANON		MREMAP_RELOCATE_ANON
#define MUST_RELOCATE_ANON	MREMAP_MUST_RELOCATE_ANON

/*
 * Every mapping of a test lies in one arena, reserved with PROT_NONE, so that
 * nobody else maps anything next to it: only the neighbours that a test gives
 * to a mapping can merge with it. Offsets and lengths are in pages.
 */
struct arena {
	char *base;
	size_t nr;			/* pages */
	struct procmap_fd procmap;
	int pagemap;
	int kpageflags;			/* -1 if we may not read it */
};

void arena_init(struct arena *arena, size_t nr, size_t align);
void arena_exit(struct arena *arena);
void arena_reopen(struct arena *arena);

static inline char *arena_at(struct arena *arena, size_t page)
{
	return arena->base + page * psize();
}

/* The size of so many pages. */
#define PAGES(nr)	((size_t)(nr) * psize())

char *arena_map(struct arena *arena, size_t page, size_t nr);
void arena_unmap(struct arena *arena, size_t page, size_t nr);

/* mremap() to a fixed place, without a change of size. */
void *relocate(void *from, size_t nr, int flags, void *to);

/*
 * Memory contents: each word depends on the seed and on its place. fill() and
 * intact() count places from page 'first', so that a part can be checked too.
 */
void fill_from(char *ptr, size_t nr, unsigned long seed, size_t first);
bool intact_from(const char *ptr, size_t nr, unsigned long seed, size_t first);
bool all_zero(const char *ptr, size_t nr);

static inline void fill(char *ptr, size_t nr, unsigned long seed)
{
	fill_from(ptr, nr, seed, 0);
}

static inline bool intact(const char *ptr, size_t nr, unsigned long seed)
{
	return intact_from(ptr, nr, seed, 0);
}

/* VMAs. */
size_t nr_vmas(struct arena *arena, void *start, size_t nr);
bool is_one_vma(struct arena *arena, void *start, size_t nr);

/* Is a mapping one again when its middle has been taken away and mapped anew? */
bool fits_in_again(struct arena *arena, char *ptr, size_t nr);

/* Does the kernel refuse to read this byte for us? */
bool faults(const char *ptr);

/* Page table entries, as /proc/self/pagemap shows them. */
#define ENTRY_MASK	(PM_PRESENT | PM_SWAP | PM_FILE | PM_GUARD_REGION | \
			 PM_UFFD_WP | (BIT_ULL(55) - 1))

void read_entries(struct arena *arena, void *ptr, size_t nr, __u64 *entries);
bool same_entries(struct arena *arena, void *ptr, size_t nr, const __u64 *entries);
size_t count_entries(struct arena *arena, void *ptr, size_t nr, __u64 mask,
		     __u64 value);

static inline size_t nr_present(struct arena *arena, void *ptr, size_t nr)
{
	return count_entries(arena, ptr, nr, PM_PRESENT, PM_PRESENT);
}

static inline size_t nr_swapped(struct arena *arena, void *ptr, size_t nr)
{
	return count_entries(arena, ptr, nr, PM_SWAP, PM_SWAP);
}

/* How many swap entries of the range have their page in the swap cache? */
size_t nr_swap_cached(struct arena *arena, void *ptr, size_t nr);

/*
 * Everything about a range that a call which fails must leave alone: the VMAs
 * of the arena, what is in its page tables for the range, and the process's
 * counters.
 */
struct snapshot {
	struct arena *arena;
	char *ptr;
	size_t nr;
	char maps[16384];
	char counters[1024];
	__u64 *entries;
};

void snapshot_take(struct snapshot *snap, struct arena *arena, void *ptr,
		   size_t nr);
bool snapshot_same(struct snapshot *snap);

/*
 * Is the move refused with EFAULT, and is everything as in the snapshot then?
 * Do the trace events say so, too?
 */
bool is_refused(struct snapshot *snap, void *from, size_t nr, int flags,
		void *to);

/*
 * What the trace event of the last call that asked for relocation says. Of the
 * VMAs of the range that were refused, it is the last one.
 */
struct relocation {
	unsigned long old_addr, old_len, new_addr, new_len;
	char flags[80];
	int result, vmas_before, vmas_after;
	unsigned long folios, pages;
	char reason[32];
	int nr_refused;
	unsigned long start, end, addr;
	char refusal[32];
};

/* False if tracefs, or the events in it, are not there. */
bool can_trace(void);

/*
 * The last call of this process, or of another one, since the last look of
 * whomever. False if there was none.
 */
bool trace_look(struct relocation *rel);
bool trace_look_at(struct relocation *rel, pid_t pid);

/*
 * Was the last call of this process that asked for relocation done, refused, or
 * was there nothing to gain? Says what was wrong if not. True if !can_trace().
 * is_refused() has looked already, and refused_as() asks what it has seen.
 */
bool relocated_as(unsigned long folios, unsigned long pages);
bool refused_as(const char *reason, const char *addr);
bool nothing_gained(const char *reason);

/* A counter of /proc/vmstat, -1 if it is not there. */
long vm_event(const char *name);

/* Write to a file of /proc or /sys that need not be there, or may not like it. */
bool write_text(const char *path, const char *text);

/* A figure of /proc/self/status or /proc/meminfo in kB, -1 if it is not there. */
long status_kb(const char *name);
long meminfo_kb(const char *name);

/*
 * Large folios. Have faults give us folios of this order, and no others; returns
 * false if there are none, else what was to be put back is in 'saved'.
 */
bool thp_set_order(int order, struct thp_settings *saved);

/* The pages of the folio at ptr, 0 if unknown. */
size_t folio_pages(struct arena *arena, void *ptr);
__u64 page_flags(struct arena *arena, void *ptr);

/*
 * Reverse mapping: have the kernel find the mappings of pages, starting from
 * the pages.
 */
bool can_swap(void);
int nr_nodes(void);
size_t pageout(struct arena *arena, void *ptr, size_t nr, size_t want);
int node_of(void *ptr);
size_t migrate(void *ptr, size_t nr, int node_index);
size_t migrate_shared(void *ptr, size_t nr, int node_index);

/*
 * Has every page of the range all its bytes, and can the kernel find it from
 * the page: to migrate it, where there are two nodes, and to reclaim it, where
 * there is swap, or where there is neither, to see whether it was used? Says
 * what was wrong if not. What it can do here is said at the start.
 */
bool healthy_from(struct arena *arena, char *ptr, size_t nr,
		  unsigned long seed, size_t first);

static inline bool healthy(struct arena *arena, char *ptr, size_t nr,
			   unsigned long seed)
{
	return healthy_from(arena, ptr, nr, seed, 0);
}

int open_uffd(__u64 features);

/* Processes in lock step. */
struct step {
	int fds[2][2];
};

void step_init(struct step *step);
void step_tell(struct step *step, bool child);
void step_wait(struct step *step, bool child);

#define tell_parent(step)	step_tell(step, true)
#define tell_child(step)	step_tell(step, false)
#define wait_for_parent(step)	step_wait(step, true)
#define wait_for_child(step)	step_wait(step, false)

/*
 * fork() for a test: the child ends with us, and can use the arena. This must
 * not be in memory that is shared with the child, as a fixture's own may be.
 */
pid_t fork_child(struct arena *arena);

/*
 * Have a child share all our memory, except for the first 'first' pages of ptr.
 * When it is told to go on, the child looks whether the others of these 'nr'
 * pages are intact, and ends.
 */
pid_t share_with_child(struct arena *arena, char *ptr, size_t nr, size_t first,
		       unsigned long seed, struct step *step);

/* Wait for the child to end; true if it exited with 0. */
bool reap(pid_t pid);

/* Kill the child; false if it has ended otherwise, or does not die for 10 s. */
bool kill_child(pid_t pid);

/* A thread that migrates a range back and forth until it is told to stop. */
struct migrator {
	pthread_t thread;
	char *ptr[2];		/* Places where the range may be. */
	size_t nr;
	bool stop;
	unsigned long migrated;
};

void migrator_start(struct migrator *mig, char *one, char *other, size_t nr);
void migrator_wait(struct migrator *mig, unsigned long migrated);
unsigned long migrator_stop(struct migrator *mig);

#endif /* __MREMAP_RELOCATE_UTIL_H */
