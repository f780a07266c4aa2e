// SPDX-License-Identifier: GPL-2.0-only
/*
 * Relocate random parts of a range, while everybody else who locks folios is at
 * work on its pages.
 *
 *	arena, all of it mapped
 *	|---AAAA----------BB------CCCCCCC--------D---|
 *	     |______________^  mremap() of any part to any place; what has moved
 *			       away is mapped anew, empty, and written again
 *
 * Most movers of pages do not take the mmap lock, or not for all of their work,
 * so they meet relocation at every point of it. Each is a thread or a process,
 * and makes one try for each move. To have run is not enough: each counts what
 * it did to the pages of the arena, and one that did next to nothing is a
 * failure, since nothing was tested against it.
 *
 * A page that was written has a serial number, which each of its words repeats.
 * The layout is kept in a shadow, so that a page that is lost, stale, or some
 * other page, is found out.
 *
 * Usage: mremap_relocate_stress [offline] [MOVES|SECONDSs [SEED]]
 *
 * The seed decides on the moves, but not on how they meet with the movers.
 *
 * By the clock, as with "600s", the arena and the moves are larger, the movers
 * leave the processor of the moving thread to it, and allocations of some moves
 * fail. Then what counts is how many pages were certainly relocated and were
 * found with their bytes afterwards. Of each page that was written this looks at
 * three words, one of them chosen by its serial number. It looks at all words of
 * all pages of the range after one move in eight, and in the end.
 *
 * With "offline", memory is put offline, and those are missing who go by pfn,
 * compaction above all, and with it huge pages. They do not keep a block from
 * being put offline while they look at its struct pages, which are poisoned
 * then: compaction was seen to run into this.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <linux/mempolicy.h>
#include <linux/perf_event.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <mm/gup_test.h>
#include "kselftest.h"
#include "mremap_relocate_util.h"

#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT	21
#endif

#define UNIT		((2ul << 20) / psize())	/* A PMD's worth, on x86. */
#define NR_PAGES		(nr_units * UNIT)
#define NR_MAX		(MOST_UNITS * 512)
#define MOST_UNITS	64
#define MOVES		100
#define ENOUGH_RELOCATED 10
/* How many times as many moves are made for a mover that lags behind. */
#define PATIENCE	20

#define FAULTS		"/sys/kernel/debug/"
#define MEMORY		"/sys/devices/system/memory/"

struct mover {
	const char *name;
	const char *unit;		/* What it counts. */
	unsigned long enough;

	/* Returns why there is no such mover, or NULL. */
	const char *(*setup)(struct mover *mover);
	/* Try once. Returns what it did, unless that is counted by events. */
	unsigned long (*once)(struct mover *mover);
	void (*cleanup)(struct mover *mover);
	const char * const *events;
	bool own_process;
	enum { ALWAYS, IF_ONLINE, IF_OFFLINE } when;

	unsigned int seed;
	unsigned long tries, done;
	const char *absent;
	bool ready, uncounted;
	pthread_t thread;
	pid_t pid;
};

/* Shared by all the processes. */
struct shared {
	unsigned int moves;		/* A futex: the movers wait for it. */
	unsigned int turn;
	bool stop;
	struct mover movers[];
};

static struct shared *shared;
static size_t nr_movers;
static size_t nr_units = 16;
static bool offline;
static unsigned long seconds;		/* 0: not by the clock */
static int moving_cpu;
static struct arena arena;
static pid_t mm_owner;
static unsigned int seed;

static unsigned int rnd(unsigned int n)
{
	return rand_r(&seed) % n;
}

static unsigned int mover_rnd(struct mover *mover, unsigned int n)
{
	return rand_r(&mover->seed) % n;
}

/*
 * What a mover does to the page tables of the arena is counted by tracepoints,
 * for its thread alone. These are hit wherever folios are migrated or split.
 */
static const char * const migration_events[] = {
	"migrate/set_migration_pte", "thp/set_migration_pmd", NULL
};

/* Reclaim has none with an address. */
static const char * const reclaim_events[] = {
	"vmscan/mm_vmscan_write_folio", NULL
};

static int open_event(const char *event, bool in_arena)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_TRACEPOINT,
		.size = sizeof(attr),
	};
	char path[128], text[128];
	int fd;

	snprintf(path, sizeof(path), "/sys/kernel/tracing/events/%s/id", event);
	if (!read_file(path, text, sizeof(text)))
		return -1;
	attr.config = strtoul(text, NULL, 0);
	fd = syscall(__NR_perf_event_open, &attr, 0, -1, -1, 0);
	if (fd < 0 || !in_arena)
		return fd;
	snprintf(text, sizeof(text), "addr >= 0x%lx && addr < 0x%lx",
		 (unsigned long)arena.base, (unsigned long)arena_at(&arena, NR_PAGES));
	if (!ioctl(fd, PERF_EVENT_IOC_SET_FILTER, text))
		return fd;
	close(fd);
	return -1;
}

static unsigned long read_event(int fd)
{
	__u64 count;

	return read(fd, &count, sizeof(count)) == sizeof(count) ? count : 0;
}

static unsigned long allowed_nodes, node_mask[2];
static int node_nr[2];

static const char *need_two_nodes(struct mover *mover)
{
	int node, found = 0;

	syscall(__NR_get_mempolicy, NULL, &allowed_nodes,
		8 * sizeof(allowed_nodes), NULL, MPOL_F_MEMS_ALLOWED);
	for (node = 0; node < 64 && found < 2; node++) {
		if (!(allowed_nodes & 1ul << node))
			continue;
		node_nr[found] = node;
		node_mask[found++] = 1ul << node;
	}
	return found < 2 ? "no second node with memory" : NULL;
}

static unsigned long move_pages_once(struct mover *mover)
{
	enum { MAX = 256 };
	size_t first = mover_rnd(mover, NR_PAGES - MAX), i;
	int nodes[MAX], status[MAX];
	void *pages[MAX];

	for (i = 0; i < MAX; i++) {
		pages[i] = arena_at(&arena, first + i);
		nodes[i] = node_nr[mover->tries & 1];
	}
	syscall(__NR_move_pages, 0, MAX, pages, nodes, status, MPOL_MF_MOVE);
	return 0;
}

static unsigned long mbind_once(struct mover *mover)
{
	size_t first = mover_rnd(mover, NR_PAGES - UNIT);

	syscall(__NR_mbind, arena_at(&arena, first), PAGES(UNIT), MPOL_PREFERRED,
		&node_mask[mover->tries & 1], 64, MPOL_MF_MOVE);
	/* VMAs of different policies do not merge, so have no more than two. */
	syscall(__NR_mbind, arena.base, PAGES(NR_PAGES), MPOL_DEFAULT, NULL, 0, 0);
	return 0;
}

static unsigned long migrate_pages_once(struct mover *mover)
{
	syscall(__NR_migrate_pages, mm_owner, 64,
		&node_mask[mover->tries & 1], &node_mask[!(mover->tries & 1)]);
	return 0;
}

static const char *need_compaction(struct mover *mover)
{
	if (access("/proc/sys/vm/compact_memory", W_OK))
		return "no /proc/sys/vm/compact_memory";
	return NULL;
}

static unsigned long compact_once(struct mover *mover)
{
	write_text("/proc/sys/vm/compact_memory", "1");
	return 0;
}

static const char *need_split(struct mover *mover)
{
	if (access("/sys/kernel/debug/split_huge_pages", W_OK))
		return "no split_huge_pages in debugfs";
	if (!read_pmd_pagesize())
		return "no transparent huge pages";
	return NULL;
}

static unsigned long split_once(struct mover *mover)
{
	const size_t first = mover_rnd(mover, NR_PAGES - UNIT);
	char text[128];

	/* To small pages by their pfn, or to larger ones through the VMAs. */
	snprintf(text, sizeof(text), "1");
	if (mover->tries & 1)
		snprintf(text, sizeof(text), "%d,0x%lx,0x%lx,%d", mm_owner,
			 (unsigned long)arena_at(&arena, first),
			 (unsigned long)arena_at(&arena, first + UNIT),
			 2 + mover_rnd(mover, 4));
	write_text("/sys/kernel/debug/split_huge_pages", text);
	return 0;
}

static const char *need_swap(struct mover *mover)
{
	return can_swap() ? NULL : "no swap";
}

static unsigned long pageout_once(struct mover *mover)
{
	const size_t first = mover_rnd(mover, NR_PAGES - UNIT);

	madvise(arena_at(&arena, first), PAGES(UNIT), MADV_PAGEOUT);
	return 0;
}

/*
 * Unlike MADV_PAGEOUT, reclaim of a cgroup takes no mmap lock. The arena has a
 * cgroup of its own, so that nobody else's pages are counted.
 */
#define CGROUP		"/sys/fs/cgroup/"
#define OUR_CGROUP	CGROUP "mremap_relocate_stress/"

static char old_cgroup[512];
static bool enabled_memcg;

static bool enter_cgroup(const char *path)
{
	char file[768], pid[32];

	snprintf(file, sizeof(file), "%s/cgroup.procs", path);
	snprintf(pid, sizeof(pid), "%d", mm_owner);
	return write_text(file, pid);
}

static void cgroup_cleanup(struct mover *mover)
{
	enter_cgroup(old_cgroup);
	rmdir(OUR_CGROUP);
	if (enabled_memcg)
		write_text(CGROUP "cgroup.subtree_control", "-memory");
}

static const char *cgroup_setup(struct mover *mover)
{
	char text[512], *path;

	if (!can_swap())
		return "no swap";
	if (!read_file("/proc/self/cgroup", text, sizeof(text)))
		return "no cgroups";
	path = strstr(text, "0::/");
	if (!path || access(CGROUP "cgroup.controllers", R_OK))
		return "no cgroup2 in " CGROUP;
	path[strcspn(path, "\n")] = '\0';
	snprintf(old_cgroup, sizeof(old_cgroup), CGROUP "%s", path + 4);

	if (!read_file(CGROUP "cgroup.subtree_control", text, sizeof(text)) ||
	    !strstr(text, "memory"))
		enabled_memcg = write_text(CGROUP "cgroup.subtree_control",
					   "+memory");
	mkdir(OUR_CGROUP, 0700);
	if (!access(OUR_CGROUP "memory.reclaim", W_OK) &&
	    enter_cgroup(OUR_CGROUP))
		return NULL;
	cgroup_cleanup(mover);
	return "no memory.reclaim in a new cgroup";
}

static unsigned long reclaim_once(struct mover *mover)
{
	write_text(OUR_CGROUP "memory.reclaim", "256K swappiness=max");
	return 0;
}

/*
 * A memory block that is in ZONE_MOVABLE can always be put offline, and is the
 * first place where its node puts new pages of the arena. So put one there, and
 * in the end back to where it was.
 */
static int block;
static char block_zone[32];
static unsigned long blocks_offlined;

static bool block_set(const char *state)
{
	/* An attempt goes on until it succeeds, or a signal ends it. */
	const struct itimerval limit = { .it_value.tv_sec = 20 }, off = {};
	char path[80];
	bool ret;

	snprintf(path, sizeof(path), MEMORY "memory%d/state", block);
	setitimer(ITIMER_REAL, &limit, NULL);
	ret = write_text(path, state);
	setitimer(ITIMER_REAL, &off, NULL);
	return ret;
}

static bool block_read_zone(char *zone, size_t size)
{
	char path[80];

	snprintf(path, sizeof(path), MEMORY "memory%d/valid_zones", block);
	if (!read_file(path, zone, size))
		return false;
	zone[strcspn(zone, "\n ")] = '\0';
	return true;
}

/* To have interrupted the attempt is enough. */
static void on_alarm(int sig)
{
}

static const char *hotplug_setup(struct mover *mover)
{
	struct sigaction action = { .sa_handler = on_alarm };
	int tries = 8;

	sigaction(SIGALRM, &action, NULL);
	if (access(MEMORY "block_size_bytes", R_OK))
		return "no memory hotplug";

	/* The last blocks are the least likely to hold the kernel's memory. */
	for (block = 4096; block > 0 && tries; block--) {
		if (!block_read_zone(block_zone, sizeof(block_zone)))
			continue;
		if (!strcmp(block_zone, "none"))
			continue;
		tries--;
		if (!block_set("offline"))
			continue;
		if (block_set("online_movable"))
			return NULL;
		block_set("online");
	}
	return "no memory block can be put offline";
}

static unsigned long hotplug_once(struct mover *mover)
{
	if (!block_set("offline"))
		return 0;
	blocks_offlined++;
	block_set("online_movable");
	return 0;
}

static void hotplug_cleanup(struct mover *mover)
{
	const char *back = strcmp(block_zone, "Movable") ? "online_kernel" :
							   "online_movable";
	bool done = false;
	int tries;

	/* What is offline cannot be put offline, nor online what is online. */
	for (tries = 0; tries < 10 && !done; tries++) {
		block_set("offline");
		done = block_set(back);
	}
	ksft_print_msg("memory block %d was put offline %lu times, and is %s in zone %s\n",
		       block, blocks_offlined, done ? "again" : "NOT",
		       block_zone);
}

static int gup_test;

static const char *need_gup_test(struct mover *mover)
{
	gup_test = open("/sys/kernel/debug/gup_test", O_RDWR);
	if (gup_test < 0)
		return "no /sys/kernel/debug/gup_test";
	return NULL;
}

static unsigned long gup_fast_once(struct mover *mover)
{
	struct gup_test args = {
		.addr = (unsigned long)arena_at(&arena, mover_rnd(mover, NR_PAGES - 64)),
		.size = PAGES(64),
		.nr_pages_per_call = 1,
		.gup_flags = 1,			/* FOLL_WRITE */
	};

	if (ioctl(gup_test, PIN_FAST_BENCHMARK, &args))
		return 0;
	return args.size / psize();
}

static int idle_bitmap;

static const char *need_page_idle(struct mover *mover)
{
	idle_bitmap = open("/sys/kernel/mm/page_idle/bitmap", O_RDWR);
	if (idle_bitmap < 0)
		return "no /sys/kernel/mm/page_idle/bitmap";
	return NULL;
}

/* To mark a page as idle takes an rmap walk, which clears the accessed bits. */
static unsigned long page_idle_once(struct mover *mover)
{
	size_t first = mover_rnd(mover, NR_PAGES - UNIT), i;
	unsigned long done = 0, pfn;

	for (i = first; i < first + UNIT; i++) {
		__u64 word;

		pfn = pagemap_get_pfn(arena.pagemap, arena_at(&arena, i));
		if (pfn == -1ul || !pfn)
			continue;
		word = BIT_ULL(pfn % 64);
		if (pwrite(idle_bitmap, &word, 8, pfn / 64 * 8) == 8 &&
		    pread(idle_bitmap, &word, 8, pfn / 64 * 8) == 8 &&
		    word & BIT_ULL(pfn % 64))
			done++;
	}
	return done;
}

/* The thread that moves the range does this itself, as it has the shadow. */
#define FORK	0

static const struct mover movers[] = {
	[FORK] = {
		.name = "fork", .unit = "pages seen by children",
	}, {
		.name = "move_pages", .unit = "PTEs frozen",
		.enough = 500, .setup = need_two_nodes,
		.once = move_pages_once, .events = migration_events,
	}, {
		.name = "mbind", .unit = "PTEs frozen",
		.enough = 500, .setup = need_two_nodes,
		.once = mbind_once, .events = migration_events,
	}, {
		.name = "migrate_pages", .unit = "PTEs frozen",
		.enough = 500, .setup = need_two_nodes, .own_process = true,
		.once = migrate_pages_once, .events = migration_events,
	}, {
		.name = "compaction", .unit = "PTEs frozen",
		.enough = 50, .setup = need_compaction, .own_process = true,
		.once = compact_once, .events = migration_events,
		.when = IF_ONLINE,
	}, {
		.name = "memory offline", .unit = "PTEs frozen",
		.enough = 50, .setup = hotplug_setup, .own_process = true,
		.once = hotplug_once, .cleanup = hotplug_cleanup,
		.events = migration_events, .when = IF_OFFLINE,
	}, {
		.name = "split", .unit = "PTEs frozen",
		.enough = 500, .setup = need_split, .own_process = true,
		.once = split_once, .events = migration_events,
		.when = IF_ONLINE,
	}, {
		.name = "MADV_PAGEOUT", .unit = "folios written to swap",
		.enough = 200, .setup = need_swap,
		.once = pageout_once, .events = reclaim_events,
	}, {
		.name = "memory.reclaim", .unit = "folios written to swap",
		.enough = 200, .setup = cgroup_setup, .own_process = true,
		.once = reclaim_once, .cleanup = cgroup_cleanup,
		.events = reclaim_events,
	}, {
		.name = "GUP-fast", .unit = "pages pinned",
		.enough = 500, .setup = need_gup_test,
		.once = gup_fast_once,
	}, {
		.name = "page_idle", .unit = "pages marked as idle",
		.enough = 200, .setup = need_page_idle,
		.once = page_idle_once, .when = IF_ONLINE,
	},
};

/*
 * By the clock, one of them works for each move. If all did, the moves would
 * spend their time waiting for those who hold a lock and do not run.
 */
static bool has_turn(struct mover *mover)
{
	return !seconds || __atomic_load_n(&shared->turn, __ATOMIC_ACQUIRE) ==
			   (unsigned int)(mover - shared->movers);
}

/*
 * Wait until a move has been made since the one that was seen last. Returns
 * false if there will be no more.
 */
static bool wait_for_move(struct mover *mover, unsigned int *seen)
{
	/* If the process that moves the range dies, nobody wakes us. */
	const struct timespec limit = { .tv_sec = 1 };

	while (!__atomic_load_n(&shared->stop, __ATOMIC_ACQUIRE)) {
		unsigned int moves = __atomic_load_n(&shared->moves,
						     __ATOMIC_ACQUIRE);

		if (mover->own_process && getppid() != mm_owner)
			return false;
		if (moves != *seen) {
			*seen = moves;
			if (has_turn(mover))
				return true;
		}
		syscall(__NR_futex, &shared->moves, FUTEX_WAIT, *seen, &limit);
	}
	return false;
}

static void tell_movers(void)
{
	if (seconds)
		__atomic_store_n(&shared->turn, rnd(nr_movers), __ATOMIC_RELEASE);
	__atomic_fetch_add(&shared->moves, 1, __ATOMIC_RELEASE);
	syscall(__NR_futex, &shared->moves, FUTEX_WAKE, INT_MAX);
}

/* Not only where the thread runs that moves the range. */
static void run_elsewhere(void)
{
	cpu_set_t set;

	memset(&set, 0xff, sizeof(set));
	if (seconds && sysconf(_SC_NPROCESSORS_ONLN) > 1)
		CPU_CLR(moving_cpu, &set);
	sched_setaffinity(0, sizeof(set), &set);
}

static void *run_mover(void *arg)
{
	struct mover *mover = arg;
	unsigned int seen = 0;
	int fds[2], i;

	run_elsewhere();
	mover->absent = mover->setup(mover);
	for (i = 0; mover->events && mover->events[i]; i++) {
		fds[i] = open_event(mover->events[i],
				    mover->events == migration_events);
		if (fds[i] < 0)
			mover->uncounted = true;
	}
	__atomic_store_n(&mover->ready, true, __ATOMIC_RELEASE);
	if (mover->absent)
		return NULL;

	while (wait_for_move(mover, &seen)) {
		unsigned long done = mover->once(mover);

		if (!mover->events)
			done += mover->done;
		for (i = 0; mover->events && mover->events[i]; i++)
			done += read_event(fds[i]);
		mover->tries++;
		__atomic_store_n(&mover->done, done, __ATOMIC_RELEASE);
	}
	if (mover->cleanup)
		mover->cleanup(mover);
	return NULL;
}

static void start_mover(struct mover *mover)
{
	pid_t pid;

	if (!mover->once)
		return;
	fflush(stdout);
	if (!mover->own_process) {
		if (pthread_create(&mover->thread, NULL, run_mover, mover))
			ksft_exit_fail_msg("cannot create a thread\n");
	} else {
		pid = fork();
		if (pid < 0)
			ksft_exit_fail_perror("fork");
		if (!pid) {
			run_mover(mover);
			fflush(stdout);
			_exit(0);
		}
		mover->pid = pid;
	}
	while (!__atomic_load_n(&mover->ready, __ATOMIC_ACQUIRE)) {
		if (mover->pid && waitpid(mover->pid, NULL, WNOHANG))
			ksft_exit_fail_msg("%s did not start\n", mover->name);
		usleep(1000);
	}
}

static void end_mover(struct mover *mover)
{
	if (mover->own_process && !reap(mover->pid))
		ksft_exit_fail_msg("%s did not end well\n", mover->name);
	if (mover->once && !mover->own_process)
		pthread_join(mover->thread, NULL);
}

static bool has_done_enough(struct mover *mover)
{
	return mover->absent || mover->uncounted ||
	       __atomic_load_n(&mover->done, __ATOMIC_ACQUIRE) >= mover->enough;
}

static unsigned long relocated, refused, failed, in_place;

static bool all_have_done_enough(void)
{
	size_t i;

	if (relocated < ENOUGH_RELOCATED)
		return false;
	for (i = 0; i < nr_movers; i++) {
		if (!has_done_enough(&shared->movers[i]))
			return false;
	}
	return true;
}

/* The serial number of each page, 0 if nothing was written to it. */
static unsigned int *shadow;

/* How often was it relocated since somebody looked at its bytes? */
static unsigned int *unseen;
static unsigned long verified;

/*
 * How far from home may the VMA of each page be, in pages? It is certainly at
 * home (0), or there or this far, or anywhere.
 */
static long *stray;
#define ANYWHERE	LONG_MAX

static unsigned long word_of(unsigned int serial, size_t word)
{
	return serial ? (unsigned long)serial << 32 | word : 0;
}

struct move {
	size_t from, to, nr;
	int flags, err;
};

static struct move last_moves[16];
static unsigned long nr_moves;

static void print_last_moves(void)
{
	unsigned long i = nr_moves < ARRAY_SIZE(last_moves) ? 0 :
			  nr_moves - ARRAY_SIZE(last_moves);

	for (; i < nr_moves; i++) {
		struct move *move = &last_moves[i % ARRAY_SIZE(last_moves)];

		ksft_print_msg("move %lu: pages %zu to %zu went to %zu, flags %d: %s\n",
			       i, move->from, move->from + move->nr - 1,
			       move->to, move->flags,
			       move->err ? strerror(move->err) : "done");
	}
}

static void print_wrong(size_t page, size_t word, unsigned long found,
			const char *when)
{
	const unsigned int serial = found >> 32;
	size_t i;

	ksft_print_msg("%s: page %zu at %p, word %zu is %lx instead of %lx\n",
		       when, page, arena_at(&arena, page), word, found,
		       word_of(shadow[page], word));
	for (i = 0; serial && i < NR_PAGES; i++) {
		if (shadow[i] == serial)
			ksft_print_msg("that belongs to page %zu\n", i);
	}
	print_last_moves();
}

static bool verify(size_t first, size_t nr, const char *when)
{
	const size_t words = psize() / sizeof(unsigned long);
	size_t page, i;

	for (page = first; page < first + nr; page++) {
		unsigned long *word = (unsigned long *)arena_at(&arena, page);

		for (i = 0; i < words; i++) {
			if (word[i] == word_of(shadow[page], i))
				continue;
			print_wrong(page, i, word[i], when);
			return false;
		}
		verified += unseen[page];
		unseen[page] = 0;
	}
	return true;
}

/* The same with three words of each page that was written. */
static bool verify_some(size_t first, size_t nr, const char *when)
{
	const size_t words = psize() / sizeof(unsigned long);
	size_t page, i;

	for (page = first; page < first + nr; page++) {
		unsigned long *word = (unsigned long *)arena_at(&arena, page);
		size_t some[] = { 0, shadow[page] % words, words - 1 };

		if (!shadow[page])
			continue;
		for (i = 0; i < ARRAY_SIZE(some); i++) {
			if (word[some[i]] == word_of(shadow[page], some[i]))
				continue;
			print_wrong(page, some[i], word[some[i]], when);
			return false;
		}
		verified += unseen[page];
		unseen[page] = 0;
	}
	return true;
}

/* By the clock, mostly some. */
static bool verify_move(size_t first, size_t nr, const char *when)
{
	if (seconds && rnd(8))
		return verify_some(first, nr, when);
	return verify(first, nr, when);
}

static void write_some(size_t first, size_t nr)
{
	const size_t words = psize() / sizeof(unsigned long);
	static unsigned int serial;
	size_t page, i;

	for (page = first; page < first + nr; page++) {
		unsigned long *word = (unsigned long *)arena_at(&arena, page);

		if (!rnd(8))
			continue;
		shadow[page] = ++serial;
		unseen[page] = 0;
		for (i = 0; i < words; i++)
			word[i] = word_of(serial, i);
	}
}

static void map_anew(size_t first, size_t nr)
{
	arena_map(&arena, first, nr);
	if (!offline)
		madvise(arena_at(&arena, first), PAGES(nr), MADV_HUGEPAGE);
	memset(shadow + first, 0, nr * sizeof(*shadow));
	memset(unseen + first, 0, nr * sizeof(*unseen));
	memset(stray + first, 0, nr * sizeof(*stray));
}

/* Does a child, while we go on, see what there was when it was forked? */
static bool fork_once(void)
{
	struct mover *mover = &shared->movers[FORK];
	int status;
	pid_t pid;

	if (mover->pid) {
		if (!waitpid(mover->pid, &status, WNOHANG))
			return true;
		mover->pid = 0;
		if (status) {
			ksft_print_msg("the child ended with %x\n", status);
			return false;
		}
		mover->done += NR_PAGES;
		return true;
	}

	/* It makes moves fall back, so most are to be made without one. */
	if (rnd(seconds ? 64 : 16))
		return true;
	fflush(stdout);
	mover->tries++;
	pid = fork();
	if (pid < 0)
		ksft_exit_fail_perror("fork");
	if (!pid) {
		bool good;

		if (seconds)
			run_elsewhere();
		good = verify_move(0, NR_PAGES, "in a child");

		fflush(stdout);
		_exit(!good);
	}
	mover->pid = pid;
	return true;
}

static size_t nr_written(size_t first, size_t nr)
{
	size_t page, count = 0;

	for (page = first; page < first + nr; page++)
		count += !!shadow[page];
	return count;
}

static void pick_places(struct move *move, size_t unit)
{
	do {
		move->from = rnd((NR_PAGES - move->nr) / unit + 1) * unit;
		move->to = rnd((NR_PAGES - move->nr) / unit + 1) * unit;
	} while (move->from < move->to + move->nr &&
		 move->to < move->from + move->nr);
}

/*
 * By the clock, most of the time would go to faults. So take the best of some
 * moves: from where there are many pages, to where there are few to be lost.
 */
static void pick_good_places(struct move *move, size_t unit)
{
	struct move try = *move;
	long score, best = LONG_MIN;
	int i;

	for (i = 0; i < 8; i++) {
		pick_places(&try, unit);
		score = nr_written(try.from, try.nr) - nr_written(try.to, try.nr);
		if (score <= best)
			continue;
		best = score;
		*move = try;
	}
}

static void pick_move(struct move *move)
{
	static const int flags[] = {
		MUST_RELOCATE_ANON, MUST_RELOCATE_ANON, MUST_RELOCATE_ANON,
		RELOCATE_ANON, RELOCATE_ANON, 0,
	};
	/* Keep some of the huge pages whole, and cut others. */
	size_t unit = rnd(4) ? 1 : UNIT;

	move->err = 0;
	move->flags = flags[rnd(ARRAY_SIZE(flags))];
	if (seconds && rnd(2)) {
		/* What is not certain does not count. */
		move->flags = MUST_RELOCATE_ANON;
		move->nr = unit * (1 + rnd(16 * UNIT / unit));
	} else if (unit > 1) {
		move->nr = unit * (1 + rnd(2));
	} else {
		move->nr = 1 + rnd(rnd(4) ? 64 : 3 * UNIT);
	}
	if (seconds)
		pick_good_places(move, unit);
	else
		pick_places(move, unit);
}

static bool can_stray(long from, long to, long shift)
{
	return from == ANYWHERE || to == ANYWHERE || to == shift ||
	       from + shift == to;
}

/*
 * Where is the VMA of a page after the move? To insist relocates it, unless a
 * plain move merges with the VMA on one side: then it is as far from home as
 * that one.
 */
static long stray_after(const struct move *move, long before, long left,
			long right, bool *certain)
{
	const long shift = (long)move->from - (long)move->to;

	*certain = false;
	if (move->flags != MUST_RELOCATE_ANON)
		return before ? ANYWHERE : shift;
	*certain = !can_stray(before, left, shift) &&
		   !can_stray(before, right, shift);
	if (*certain)
		return 0;
	left = can_stray(before, left, shift) ? left : 0;
	right = can_stray(before, right, shift) ? right : 0;
	return left && right && left != right ? ANYWHERE : left ? left : right;
}

/* Take the pages of a move that was made to their new place. */
static void move_shadow(const struct move *move)
{
	const size_t from = move->from, to = move->to, nr = move->nr;
	const long right = to + nr < NR_PAGES ? stray[to + nr] : 0;
	long left = to ? stray[to - 1] : 0;
	bool certain;
	size_t i;

	memcpy(shadow + to, shadow + from, nr * sizeof(*shadow));
	for (i = 0; i < nr; i++) {
		left = stray_after(move, stray[from + i], left, right, &certain);
		stray[to + i] = left;
		unseen[to + i] = unseen[from + i] + (certain && shadow[to + i]);
	}
}

static int fail_nth = -1;

static const char * const fault_settings[][2] = {
	{ FAULTS "failslab/ignore-gfp-wait",		"N" },
	{ FAULTS "failslab/verbose",			"0" },
	{ FAULTS "fail_page_alloc/ignore-gfp-wait",	"N" },
	{ FAULTS "fail_page_alloc/min-order",		"0" },
	{ FAULTS "fail_page_alloc/verbose",		"0" },
};

static char saved_settings[ARRAY_SIZE(fault_settings)][32];

static void restore_faults(void)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(fault_settings); i++)
		write_text(fault_settings[i][0], saved_settings[i]);
}

static void setup_faults(void)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(fault_settings); i++) {
		if (!read_file(fault_settings[i][0], saved_settings[i],
			       sizeof(saved_settings[i])))
			return;
	}
	fail_nth = open("/proc/thread-self/fail-nth", O_RDWR);
	if (fail_nth < 0)
		return;
	for (i = 0; i < ARRAY_SIZE(fault_settings); i++)
		write_text(fault_settings[i][0], fault_settings[i][1]);
	atexit(restore_faults);
}

/* Have the nth allocation from now on fail. */
static void fail_soon(unsigned int nth)
{
	char text[16];

	snprintf(text, sizeof(text), "%u", nth);
	if (pwrite(fail_nth, text, strlen(text), 0) < 0)
		ksft_exit_fail_perror("fail-nth");
}

/* Has it failed? */
static bool has_failed(void)
{
	char text[16] = {};

	if (pread(fail_nth, text, sizeof(text) - 1, 0) < 0)
		ksft_exit_fail_perror("fail-nth");
	fail_soon(0);
	return !strtoul(text, NULL, 0);
}

/* Of several VMAs some may have moved, and places been cleared, for nothing. */
static void settle(const struct move *move)
{
	struct move part = *move;
	unsigned char in_core;
	size_t i;

	for (part.nr = 0; part.nr < move->nr; part.nr++) {
		if (!mincore(arena_at(&arena, move->from + part.nr), psize(),
			     &in_core))
			break;
	}
	if (part.nr) {
		move_shadow(&part);
		map_anew(part.from, part.nr);
	}
	for (i = part.nr; i < move->nr; i++) {
		if (mincore(arena_at(&arena, move->to + i), psize(), &in_core))
			map_anew(move->to + i, 1);
	}
}

/* A VMA that lies astray there must not be what a plain move merges with. */
static void clear_place(const struct move *move)
{
	size_t i;

	for (i = 0; i < move->nr; i++) {
		if (!stray[move->to + i])
			continue;
		map_anew(move->to, move->nr);
		return;
	}
}

/*
 * Relocate a part of the range where it is, now and then. What was insisted on and
 * not refused is at home then; what was only tried may be.
 */
static bool in_place_once(void)
{
	const int flags = rnd(2) ? RELOCATE_ANON : MUST_RELOCATE_ANON;
	const size_t nr = 1 + rnd(NR_PAGES / 4), first = rnd(NR_PAGES - nr);
	char *ptr = arena_at(&arena, first);
	size_t i;

	if (sys_mremap(ptr, PAGES(nr), PAGES(nr), MREMAP_MAYMOVE | flags,
		       NULL) == MAP_FAILED) {
		if (errno != EFAULT || flags != MUST_RELOCATE_ANON)
			ksft_exit_fail_msg("mremap in place: %s\n",
					   strerror(errno));
	} else {
		in_place++;
		for (i = first; i < first + nr; i++) {
			if (stray[i])
				stray[i] = flags == MUST_RELOCATE_ANON ? 0 : ANYWHERE;
		}
	}
	return rnd(4) || verify_move(first, nr, "relocated in place");
}

static bool move_once(void)
{
	bool injected = false;
	struct move move;

	if (!rnd(4) && !in_place_once())
		return false;

	pick_move(&move);
	if (seconds)
		clear_place(&move);
	if (fail_nth >= 0 && !rnd(8)) {
		injected = true;
		fail_soon(1 + rnd(rnd(2) ? 16 : 128));
	}
	if (relocate(arena_at(&arena, move.from), move.nr, move.flags,
		     arena_at(&arena, move.to)) == MAP_FAILED)
		move.err = errno;
	if (injected)
		injected = has_failed();
	failed += injected;
	last_moves[nr_moves++ % ARRAY_SIZE(last_moves)] = move;
	tell_movers();

	if (injected && move.err == ENOMEM) {
		settle(&move);
		return verify_move(move.from, move.nr, "source of a failed move") &&
		       verify_move(move.to, move.nr, "destination of a failed move");
	}
	if (move.err) {
		/* Shared with a child, or a folio that could not be split. */
		if (move.err != EFAULT || move.flags != MUST_RELOCATE_ANON) {
			print_last_moves();
			ksft_exit_fail_msg("mremap: %s\n", strerror(move.err));
		}
		refused++;
		return verify_move(move.from, move.nr, "source of a refused move") &&
		       verify_move(move.to, move.nr, "destination of a refused move");
	}

	relocated += move.flags == MUST_RELOCATE_ANON;
	move_shadow(&move);
	map_anew(move.from, move.nr);
	if (rnd(2) && !verify_move(move.to, move.nr, "after the move"))
		return false;
	if (seconds ? nr_written(0, NR_PAGES) < NR_PAGES / 2 : rnd(4))
		write_some(move.from, move.nr);
	return true;
}

/*
 * How many pages are there on a node other than this one? The zero page is on
 * none, and takes the place of empty pages when a folio is split.
 */
static size_t nr_left(int node, const char *what)
{
	static void *pages[NR_MAX];
	static int status[NR_MAX];
	size_t page, first = 0, left = 0;

	for (page = 0; page < NR_PAGES; page++)
		pages[page] = arena_at(&arena, page);
	if (syscall(__NR_move_pages, 0, NR_PAGES, pages, NULL, status, 0))
		ksft_exit_fail_perror("move_pages");
	for (page = 0; page < NR_PAGES; page++) {
		if (status[page] < 0 || status[page] == node)
			continue;
		if (!left++)
			first = page;
	}
	if (left && what)
		ksft_print_msg("%zu pages not %s, first %zu: flags %llx, folio of %zu\n",
			       left, what, first,
			       (unsigned long long)page_flags(&arena, pages[first]),
			       folio_pages(&arena, pages[first]));
	return left;
}

/*
 * A folio with the wrong index can be read and written as if nothing were
 * wrong, but not be found by those who start from the folio.
 */
static bool find_all(void)
{
	int node, tries;

	/* No new huge pages from khugepaged, on whatever node. */
	madvise(arena.base, PAGES(NR_PAGES), MADV_NOHUGEPAGE);
	for (node = 0; nr_nodes() > 1 && node < 2; node++) {
		migrate(arena.base, NR_PAGES, node);
		if (nr_left(node_nr[node], "migrated"))
			return false;
	}
	if (!can_swap())
		return true;
	/* What was swapped in just now may be under writeback. */
	for (tries = 0; tries < 1000; tries++) {
		madvise(arena.base, PAGES(NR_PAGES), MADV_PAGEOUT);
		if (!nr_left(-1, NULL))
			return true;
		usleep(5000);
	}
	return !nr_left(-1, "reclaimed");
}

static void report(struct mover *mover, bool cut_short)
{
	char text[160];

	snprintf(text, sizeof(text), "%s: %lu %s in %lu tries", mover->name,
		 mover->done, mover->unit, mover->tries);
	if (mover->absent)
		ksft_test_result_skip("%s: %s\n", mover->name, mover->absent);
	else if (mover->uncounted)
		ksft_test_result_skip("%s: cannot count, no tracepoint for perf\n",
				      text);
	else if (cut_short)
		ksft_test_result_skip("%s: cut short\n", text);
	else
		ksft_test_result(has_done_enough(mover), "%s\n", text);
}

/* Those who can work at the same time. */
static void pick_movers(void)
{
	const size_t len = sizeof(*shared) + sizeof(movers);
	const int not_now = offline ? IF_ONLINE : IF_OFFLINE;
	size_t i;

	shared = mmap(NULL, len, PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		ksft_exit_fail_perror("mmap");
	for (i = 0; i < ARRAY_SIZE(movers); i++) {
		if (movers[i].when != not_now)
			memcpy(&shared->movers[nr_movers++], &movers[i],
			       sizeof(*movers));
	}
	shared->movers[FORK].enough = NR_PAGES;
}

/* What happened to pages meanwhile, in the whole system. */
static const char * const vmstats[] = {
	"pgmigrate_success", "pswpout", "thp_split_page", "thp_split_pmd",
};

static unsigned long vmstats_before[ARRAY_SIZE(vmstats)];

static unsigned long read_vmstat(const char *name)
{
	const size_t len = strlen(name);
	unsigned long val = 0;
	char line[128];
	FILE *file;

	file = fopen("/proc/vmstat", "r");
	while (file && fgets(line, sizeof(line), file)) {
		if (!strncmp(line, name, len) && line[len] == ' ')
			val = strtoul(line + len, NULL, 10);
	}
	if (file)
		fclose(file);
	return val;
}

static time_t now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec;
}

/* These lines say how far it came, should it be interrupted. */
static void print_progress(time_t start)
{
	size_t i;

	printf("# after %ld s: verified=%lu moves=%lu refused=%lu failed_allocations=%lu forks=%lu",
	       (long)(now() - start), verified, nr_moves, refused, failed,
	       shared->movers[FORK].tries);
	for (i = 0; i < ARRAY_SIZE(vmstats); i++)
		printf(" %s=%lu", vmstats[i],
		       read_vmstat(vmstats[i]) - vmstats_before[i]);
	printf("\n");
	fflush(stdout);
}

static bool move_by_the_clock(time_t start)
{
	time_t told = start;
	bool good = true;

	while (good && now() - start < (time_t)seconds) {
		good = fork_once() && move_once();
		if (now() - told < 10)
			continue;
		told = now();
		print_progress(start);
	}
	return good;
}

/* Go on for a while if one of the movers has not done enough. */
static bool move_until_enough(unsigned long moves)
{
	const unsigned long limit = nr_moves + PATIENCE * moves;
	bool good = true;

	while (good && (nr_moves < moves || !all_have_done_enough()) &&
	       nr_moves < limit)
		good = fork_once() && move_once();
	return good;
}

static void parse_amount(const char *text, unsigned long *moves)
{
	char *end;

	*moves = strtoul(text, &end, 0);
	if (*moves && !strcmp(end, "s")) {
		seconds = *moves;
		*moves = MOVES;
		nr_units = MOST_UNITS;
	} else if (!*moves || *end) {
		ksft_exit_fail_msg("'%s' is neither a number of moves nor of seconds, as 600s\n",
				   text);
	}
}

int main(int argc, char **argv)
{
	bool good, found = false;
	unsigned long moves = MOVES;
	time_t start;
	size_t i;

	if (argc > 1 && !strcmp(argv[1], "offline")) {
		offline = true;
		argc--;
		argv++;
	}
	if (argc > 1)
		parse_amount(argv[1], &moves);
	seed = argc > 2 ? strtoul(argv[2], NULL, 0) : time(NULL) ^ getpid();
	ksft_print_header();
	mm_owner = getpid();
	arena_init(&arena, NR_PAGES, PAGES(UNIT));
	moving_cpu = sched_getcpu();
	if (relocate(arena_map(&arena, 0, 1), 1, RELOCATE_ANON, arena_at(&arena, 1)) == MAP_FAILED)
		ksft_exit_skip("no MREMAP_RELOCATE_ANON: %s\n", strerror(errno));
	pick_movers();
	ksft_set_plan(3 + nr_movers);
	ksft_print_msg("%lu %s, seed %u\n", seconds ?: moves,
		       seconds ? "seconds" : "moves", seed);

	shadow = calloc(NR_PAGES, sizeof(*shadow));
	unseen = calloc(NR_PAGES, sizeof(*unseen));
	stray = calloc(NR_PAGES, sizeof(*stray));
	if (!shadow || !unseen || !stray)
		ksft_exit_fail_msg("out of memory\n");

	/* The processes must be there before the pages, not to share them. */
	for (i = 0; i < nr_movers; i++) {
		shared->movers[i].seed = seed + i;
		if (shared->movers[i].own_process)
			start_mover(&shared->movers[i]);
	}
	map_anew(0, NR_PAGES);
	write_some(0, NR_PAGES);
	for (i = 0; i < nr_movers; i++) {
		if (!shared->movers[i].own_process)
			start_mover(&shared->movers[i]);
	}

	if (seconds)
		setup_faults();
	for (i = 0; i < ARRAY_SIZE(vmstats); i++)
		vmstats_before[i] = read_vmstat(vmstats[i]);
	start = now();
	good = move_by_the_clock(start) && move_until_enough(moves);

	if (shared->movers[FORK].pid && reap(shared->movers[FORK].pid))
		shared->movers[FORK].done += NR_PAGES;
	else if (shared->movers[FORK].pid)
		good = false;
	__atomic_store_n(&shared->stop, true, __ATOMIC_RELEASE);
	tell_movers();
	for (i = 0; i < nr_movers; i++)
		end_mover(&shared->movers[i]);

	good = good && verify(0, NR_PAGES, "at the end");
	if (good && seconds)
		print_progress(start);
	if (good)
		found = find_all();
	good = good && verify(0, NR_PAGES, "after everything was migrated and reclaimed");

	ksft_test_result(good, "every page has its bytes\n");
	ksft_test_result(found, "every page is found\n");
	ksft_test_result(relocated >= ENOUGH_RELOCATED,
			 "%lu moves, %lu of them certainly relocated, %lu refused; %lu times in place\n",
			 nr_moves, relocated, refused, in_place);
	for (i = 0; i < nr_movers; i++)
		report(&shared->movers[i], !good);
	ksft_finished();
}
